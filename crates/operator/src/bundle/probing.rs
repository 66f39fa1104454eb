//! Probers: where no node feature discovery runs, they find out which nodes are able.

use osc_objects::names::NAMESPACE;
use serde_json::{Value, json};

use super::{rbac, workload};
use crate::prober::{PROBER, READY, STARTED};

/// Where the node's file system is in the pod.
const HOST: &str = "/host";
/// A directory every node has; what is in it on the node is hidden from the prober.
const STAGE: &str = "/tmp";

/// An account without rights and the DaemonSet.
pub(super) fn objects(image: &str, payload_image: &str) -> Vec<Value> {
    vec![rbac::account(PROBER), daemon_set(image, payload_image)]
}

fn daemon_set(image: &str, payload_image: &str) -> Value {
    let labels = json!({"name": PROBER});
    let payload = format!("{STAGE}/payload");
    let probe = |path: &str, failures: u32| {
        let get = json!({"path": path, "port": "verdict"});
        json!({"httpGet": get, "periodSeconds": 10, "failureThreshold": failures})
    };
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": PROBER, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": PROBER,
                "automountServiceAccountToken": false,
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "tolerations": [{"operator": "Exists"}],
                "terminationGracePeriodSeconds": 5,
                "initContainers": [workload::stage_payload(payload_image)],
                "containers": [{
                    "name": PROBER,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/usr/bin/osc-operator", "probe", "--root", HOST, "--listen", "0.0.0.0:8081", "--"],
                    "args": [format!("{payload}/bin/osc"), "--root", format!("{STAGE}/root"), "check", "--json",
                        "--payload", payload],
                    "ports": [{"name": "verdict", "containerPort": 8081, "protocol": "TCP"}],
                    // A guest that is booted by emulation on a busy node takes its time.
                    "startupProbe": probe(STARTED, 60),
                    "readinessProbe": probe(READY, 1),
                    "resources": {"requests": {"cpu": "10m", "memory": "20Mi"}},
                    "securityContext": workload::root_of_the_node(),
                    "volumeMounts": [
                        workload::mount_of_the_node(HOST),
                        {"name": "payload", "mountPath": format!("{HOST}{STAGE}")},
                    ],
                }],
                "volumes": [workload::volume_of_the_node(), {"name": "payload", "emptyDir": {}}],
            }},
        },
    })
}
