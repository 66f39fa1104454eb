//! The operator as a Deployment, and what is around it.

use osc_objects::names::NAMESPACE;
use serde_json::{Value, json};

use super::{Settings, rbac::ACCOUNT};
use crate::webhook::configuration::{PORT, SERVICE};

/// Name of the Deployment.
pub(super) const DEPLOYMENT: &str = "controller-manager";
/// Port on which programs tell how they are, inside their pods.
const METRICS_PORT: u16 = 8080;

pub(super) fn namespace() -> Value {
    // The monitor reads directories of the host.
    let labels = json!({
        "openshift.io/cluster-monitoring": "true",
        "pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/audit": "privileged",
        "pod-security.kubernetes.io/warn": "privileged",
    });
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
}

pub(super) fn deployment(settings: &Settings) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT, "namespace": NAMESPACE, "labels": labels()},
        "spec": deployment_spec(settings, &["--webhook", SERVICE]),
    })
}

/// Also what the lifecycle manager deploys, with other arguments about the webhook.
pub(super) fn deployment_spec(settings: &Settings, webhook: &[&str]) -> Value {
    let mut arguments = vec!["run"];
    arguments.extend(webhook);
    let metrics = telling();
    arguments.extend(metrics.iter().map(String::as_str));
    let mut env = vec![
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_NAMESPACE", "metadata.namespace"),
        json!({"name": "SANDBOXED_CONTAINERS_EXTENSION", "value": settings.extension}),
    ];
    if let Some(image) = &settings.monitor_image {
        env.push(json!({"name": "RELATED_IMAGE_KATA_MONITOR", "value": image}));
    }
    json!({
        "replicas": 1,
        "selector": {"matchLabels": labels()},
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"},
        "template": {
            "metadata": {"labels": labels()},
            "spec": {
                "serviceAccountName": ACCOUNT,
                "securityContext": unprivileged_pod(),
                "terminationGracePeriodSeconds": 10,
                "containers": [{
                    "name": "manager",
                    "image": settings.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/usr/bin/osc-operator"],
                    "args": arguments,
                    "env": env,
                    "ports": [
                        metrics_port(),
                        {"name": "webhook", "containerPort": PORT, "protocol": "TCP"},
                    ],
                    "livenessProbe": lives(),
                    "readinessProbe": is_ready(),
                    "resources": {
                        "limits": {"cpu": "200m", "memory": "256Mi"},
                        "requests": {"cpu": "100m", "memory": "40Mi"},
                    },
                    "securityContext": unprivileged_container(),
                }],
            },
        },
    })
}

/// Arguments of a program that tells how it is.
pub(super) fn telling() -> [String; 2] {
    ["--metrics".into(), format!("0.0.0.0:{METRICS_PORT}")]
}

/// The port of such a program.
pub(super) fn metrics_port() -> Value {
    json!({"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"})
}

/// A probe that asks it whether it lives.
pub(super) fn lives() -> Value {
    json!({"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 20})
}

/// A probe that asks it whether it is ready: rollouts wait for the answer.
pub(super) fn is_ready() -> Value {
    json!({"httpGet": {"path": "/readyz", "port": "metrics"}, "periodSeconds": 5})
}

/// A variable with something about its pod.
pub(super) fn from_field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// Restrictions of a pod that only speaks to the API.
pub(super) fn unprivileged_pod() -> Value {
    json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// The same for its containers.
pub(super) fn unprivileged_container() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

/// What a container needs that works on its node as root there.
pub(super) fn root_of_the_node() -> Value {
    json!({"privileged": true, "runAsUser": 0, "readOnlyRootFilesystem": true})
}

/// The file system of the node.
pub(super) fn volume_of_the_node() -> Value {
    json!({"name": "host", "hostPath": {"path": "/", "type": "Directory"}})
}

/// What the node unmounts later must not stay mounted here.
pub(super) fn mount_of_the_node(path: &str) -> Value {
    json!({"name": "host", "mountPath": path, "mountPropagation": "HostToContainer"})
}

/// Copies the payload out of its image into volume `payload`.
pub(super) fn stage_payload(image: &str) -> Value {
    json!({
        "name": "payload",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/machine-config-daemon", "stage", "/payload", "/staged/payload"],
        "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}},
        "securityContext": unprivileged_container(),
        "volumeMounts": [{"name": "payload", "mountPath": "/staged"}],
    })
}

pub(super) fn webhook_service() -> Value {
    let port = json!({"name": "webhook", "port": 443, "targetPort": PORT, "protocol": "TCP"});
    service(SERVICE, &labels(), &port)
}

/// Name of the Service in front of the metrics of a program.
pub(super) fn metrics_service_name(program: &str) -> String {
    format!("{program}-metrics")
}

/// The Service in front of the metrics of a program, whose pods have `labels`.
pub(super) fn metrics_service(program: &str, labels: &Value) -> Value {
    let port = json!({"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"});
    service(&metrics_service_name(program), labels, &port)
}

fn service(name: &str, labels: &Value, port: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"selector": labels, "ports": [port]},
    })
}

pub(super) fn labels() -> Value {
    json!({"control-plane": "controller-manager"})
}
