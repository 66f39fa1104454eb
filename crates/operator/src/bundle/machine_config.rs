//! What configures machines where the platform does not: a controller, and a daemon on
//! every node.
//!
//! The daemon makes the node's root directory its own, so what it needs of its pod (its
//! token, the payload) is mounted inside that.

use osc_machine_config::rights::{self, CONTROLLER_ACCOUNT, DAEMON_ACCOUNT};
use osc_objects::names::NAMESPACE;
use serde_json::{Value, json};

use super::{rbac, value, workload};

/// Where the node's file system is in the pod of a daemon.
const HOST: &str = "/host";
/// Where the payload is, as a path of the node.
const PAYLOAD: &str = "/run/machine-config-daemon";

/// Accounts, roles and bindings of both.
pub(super) fn rbac_objects() -> Vec<Value> {
    let both = [(CONTROLLER_ACCOUNT, rights::controller()), (DAEMON_ACCOUNT, rights::daemon())];
    let mut objects: Vec<Value> =
        both.into_iter().flat_map(|(account, rules)| rbac::of_account(account, value(&rules))).collect();
    let leases = rights::controller_in_its_namespace();
    objects.extend(rbac::in_our_namespace(CONTROLLER_ACCOUNT, value(&leases)));
    objects
}

/// Both programs, and the Services in front of their metrics.
pub(super) fn programs(image: &str, payload_image: &str) -> Vec<Value> {
    vec![
        controller(image),
        workload::metrics_service(CONTROLLER_ACCOUNT, &labels(CONTROLLER_ACCOUNT)),
        daemon(image, payload_image),
        workload::metrics_service(DAEMON_ACCOUNT, &labels(DAEMON_ACCOUNT)),
    ]
}

/// What Prometheus scrapes: the names of both, and the labels of their Services.
pub(super) fn scraped() -> [(&'static str, Value); 2] {
    [CONTROLLER_ACCOUNT, DAEMON_ACCOUNT].map(|name| (name, labels(name)))
}

fn labels(name: &str) -> Value {
    json!({"name": name})
}

/// The controller. Of its replicas one acts; the other takes over when that one's node is
/// gone, or is being emptied by it.
fn controller(image: &str) -> Value {
    let labels = labels(CONTROLLER_ACCOUNT);
    let other_nodes = json!({"weight": 100, "podAffinityTerm": {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": labels},
    }});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CONTROLLER_ACCOUNT, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": CONTROLLER_ACCOUNT,
                "priorityClassName": "system-cluster-critical",
                "securityContext": workload::unprivileged_pod(),
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [other_nodes]}},
                "terminationGracePeriodSeconds": 10,
                "containers": [{
                    "name": CONTROLLER_ACCOUNT,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/usr/bin/machine-config-controller"],
                    "args": workload::telling(),
                    // Inside their pods all replicas have the same process identifier.
                    "env": [
                        workload::from_field("POD_NAME", "metadata.name"),
                        workload::from_field("POD_NAMESPACE", "metadata.namespace"),
                        workload::from_field("NODE_NAME", "spec.nodeName"),
                    ],
                    "ports": [workload::metrics_port()],
                    "livenessProbe": workload::lives(),
                    "readinessProbe": workload::is_ready(),
                    "resources": {"requests": {"cpu": "20m", "memory": "50Mi"}, "limits": {"memory": "512Mi"}},
                    "securityContext": workload::unprivileged_container(),
                }],
            }},
        },
    })
}

/// The daemon of every node. It ends an update that is under way before it goes.
fn daemon(image: &str, payload_image: &str) -> Value {
    let labels = labels(DAEMON_ACCOUNT);
    let inside = |path: &str| format!("{HOST}{path}");
    let [metrics, address] = workload::telling();
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": DAEMON_ACCOUNT, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": DAEMON_ACCOUNT,
                "automountServiceAccountToken": false,
                "hostPID": true,
                "priorityClassName": "system-node-critical",
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "tolerations": [{"operator": "Exists"}],
                "terminationGracePeriodSeconds": 600,
                "initContainers": [workload::stage_payload(payload_image)],
                "containers": [{
                    "name": DAEMON_ACCOUNT,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/usr/bin/machine-config-daemon"],
                    "args": ["--root", HOST, "--payload", format!("{PAYLOAD}/payload"), metrics, address],
                    "env": [workload::from_field("NODE_NAME", "spec.nodeName")],
                    "ports": [workload::metrics_port()],
                    "livenessProbe": workload::lives(),
                    "readinessProbe": workload::is_ready(),
                    "resources": {"requests": {"cpu": "20m", "memory": "30Mi"}},
                    "securityContext": workload::root_of_the_node(),
                    "volumeMounts": [
                        workload::mount_of_the_node(HOST),
                        {"name": "payload", "mountPath": inside(PAYLOAD), "readOnly": true},
                        {"name": "api", "mountPath": inside("/run/secrets/kubernetes.io/serviceaccount"),
                            "readOnly": true},
                    ],
                }],
                "volumes": [
                    workload::volume_of_the_node(),
                    {"name": "payload", "emptyDir": {}},
                    {"name": "api", "projected": {"sources": [
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                        {"downwardAPI": {"items": [
                            {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                        ]}},
                    ]}},
                ],
            }},
        },
    })
}
