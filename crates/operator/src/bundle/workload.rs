//! The operator as a Deployment, and what is around it.

use osc_objects::names::NAMESPACE;
use serde_json::{Value, json};

use super::{Settings, rbac::ACCOUNT};
use crate::webhook::configuration::{PORT, SERVICE};

/// Name of the Deployment.
pub(super) const DEPLOYMENT: &str = "controller-manager";
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
    let metrics = format!("0.0.0.0:{METRICS_PORT}");
    arguments.extend(["--metrics", &metrics]);
    let mut env = vec![
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}),
        json!({"name": "SANDBOXED_CONTAINERS_EXTENSION", "value": settings.extension}),
    ];
    if let Some(image) = &settings.monitor_image {
        env.push(json!({"name": "RELATED_IMAGE_KATA_MONITOR", "value": image}));
    }
    let healthy = json!({"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 20});
    json!({
        "replicas": 1,
        "selector": {"matchLabels": labels()},
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"},
        "template": {
            "metadata": {"labels": labels()},
            "spec": {
                "serviceAccountName": ACCOUNT,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "terminationGracePeriodSeconds": 10,
                "containers": [{
                    "name": "manager",
                    "image": settings.image,
                    "command": ["/usr/bin/osc-operator"],
                    "args": arguments,
                    "env": env,
                    "ports": [
                        {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                        {"name": "webhook", "containerPort": PORT, "protocol": "TCP"},
                    ],
                    "livenessProbe": healthy,
                    "readinessProbe": healthy,
                    "resources": {
                        "limits": {"cpu": "200m", "memory": "256Mi"},
                        "requests": {"cpu": "100m", "memory": "40Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                    },
                }],
            },
        },
    })
}

pub(super) fn webhook_service() -> Value {
    service(SERVICE, json!([{"name": "webhook", "port": 443, "targetPort": PORT, "protocol": "TCP"}]))
}

pub(super) fn metrics_service() -> Value {
    let port = json!([{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"}]);
    service("controller-manager-metrics", port)
}

fn service(name: &str, ports: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": labels(), "ports": ports},
    })
}

fn labels() -> Value {
    json!({"control-plane": "controller-manager"})
}
