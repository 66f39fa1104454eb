//! Objects the operator makes, as data.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        node::v1::{Overhead, RuntimeClass, Scheduling},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Resource, ResourceExt};
use osc_objects::{
    ContainerRuntimeConfig, ContainerRuntimeConfigSpec, ContainerRuntimeSettings, KataConfig, LabelSelector,
    MachineConfig, MachineConfigPool, MachineConfigPoolSpec, MachineConfigSpec,
    names::{kata, machine, role},
};
use serde_json::{Value, json};

/// Label selector of everything that runs on nodes with sandboxes.
pub(crate) fn node_selector(converged: bool) -> BTreeMap<String, String> {
    let label = if converged { role::MASTER_LABEL } else { kata::ROLE_LABEL };
    [(label.to_owned(), String::new())].into()
}

/// The MachineConfig that asks for the extension.
pub(crate) fn extension_config(config: &KataConfig, pool: &str, extension: &str) -> MachineConfig {
    let spec = MachineConfigSpec { extensions: Some(vec![extension.into()]), ..MachineConfigSpec::default() };
    machine_config(kata::EXTENSION_CONFIG, config, pool, spec)
}

/// The MachineConfig that asks for a layered image.
pub(crate) fn image_config(config: &KataConfig, pool: &str, image: &str, arguments: &str) -> MachineConfig {
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let spec = MachineConfigSpec {
        os_image_url: image.into(),
        kernel_arguments: (!arguments.is_empty()).then_some(arguments),
        ..MachineConfigSpec::default()
    };
    machine_config(kata::IMAGE_CONFIG, config, pool, spec)
}

fn machine_config(name: &str, config: &KataConfig, pool: &str, mut spec: MachineConfigSpec) -> MachineConfig {
    spec.config = Some(json!({"ignition": {"version": machine::IGNITION_VERSION}}));
    let mut made = MachineConfig::new(name, spec);
    let labels = made.metadata.labels.get_or_insert_default();
    labels.insert(machine::ROLE_LABEL.into(), pool.into());
    labels.insert(kata::APP_LABEL.into(), config.name_any());
    made
}

/// The pool of nodes with sandboxes. It takes what workers get, too.
pub(crate) fn pool() -> MachineConfigPool {
    let spec = MachineConfigPoolSpec {
        machine_config_selector: Some(LabelSelector::one_of(machine::ROLE_LABEL, [kata::POOL, role::WORKER])),
        node_selector: Some(LabelSelector::label(kata::ROLE_LABEL, "")),
        ..MachineConfigPoolSpec::default()
    };
    let mut pool = MachineConfigPool::new(kata::POOL, spec);
    pool.metadata.labels = Some([(machine::pool_label(kata::POOL), String::new())].into());
    pool
}

/// The object with the log level of a pool.
pub(crate) fn log_level(pool: &str, level: &str) -> ContainerRuntimeConfig {
    let spec = ContainerRuntimeConfigSpec {
        machine_config_pool_selector: Some(LabelSelector::label(machine::pool_label(pool), "")),
        container_runtime_config: Some(ContainerRuntimeSettings {
            log_level: Some(level.into()),
            ..ContainerRuntimeSettings::default()
        }),
    };
    ContainerRuntimeConfig::new(kata::LOG_LEVEL_CONFIG, spec)
}

/// RuntimeClass `kata`. It goes with its KataConfig.
pub(crate) fn runtime_class(config: &KataConfig, converged: bool) -> RuntimeClass {
    let quantity = |text: &str| Quantity(text.into());
    let overhead = [("cpu", kata::OVERHEAD_CPU), ("memory", kata::OVERHEAD_MEMORY)];
    RuntimeClass {
        metadata: ObjectMeta {
            name: Some(kata::RUNTIME_CLASS.into()),
            owner_references: config.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        handler: kata::RUNTIME_CLASS.into(),
        overhead: Some(Overhead {
            pod_fixed: Some(overhead.map(|(resource, amount)| (resource.to_owned(), quantity(amount))).into()),
        }),
        scheduling: Some(Scheduling { node_selector: Some(node_selector(converged)), tolerations: None }),
    }
}

/// Constraints under which the monitor runs.
pub(crate) fn scc(namespace: &str) -> Value {
    json!({
        "apiVersion": "security.openshift.io/v1",
        "kind": "SecurityContextConstraints",
        "metadata": {"name": kata::SCC},
        "allowHostDirVolumePlugin": true,
        "allowHostIPC": false,
        "allowHostNetwork": false,
        "allowHostPID": false,
        "allowHostPorts": false,
        "allowPrivilegedContainer": false,
        "allowPrivilegeEscalation": false,
        "allowedCapabilities": ["DAC_READ_OVERRIDE"],
        "requiredDropCapabilities": ["MKNOD", "FSETID", "KILL", "FOWNER"],
        "readOnlyRootFilesystem": false,
        "runAsUser": {"type": "MustRunAsNonRoot"},
        "seLinuxContext": {"type": "RunAsAny"},
        "fsGroup": {"type": "RunAsAny"},
        "supplementalGroups": {"type": "RunAsAny"},
        "volumes": ["*"],
        "users": [format!("system:serviceaccount:{namespace}:monitor")],
    })
}

/// The monitor on every node with sandboxes. `platform`: the one with SELinux types and CRI-O.
pub(crate) fn monitor(namespace: &str, image: &str, converged: bool, platform: bool) -> DaemonSet {
    let labels = json!({"name": kata::MONITOR});
    let endpoint = if platform { "/run/crio/crio.sock" } else { "/run/containerd/containerd.sock" };
    let socket_directory = if platform { "/run/crio/" } else { "/run/containerd/" };
    let mut security =
        json!({"runAsUser": 1001, "runAsGroup": 1001, "privileged": false, "allowPrivilegeEscalation": false});
    if platform {
        security["seLinuxOptions"] = json!({"type": "osc_monitor.process"});
    }
    let volume = |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path}});
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let made = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": kata::MONITOR, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "monitor",
                    "nodeSelector": node_selector(converged),
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "kata-monitor",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/usr/bin/kata-monitor", "--listen-address=:8090", "--log-level=debug",
                            format!("--runtime-endpoint={endpoint}")],
                        "ports": [{"name": "metrics", "containerPort": 8090, "protocol": "TCP"}],
                        "securityContext": security,
                        "volumeMounts": [mount("engine", socket_directory), mount("sandboxes", "/run/vc/sbs/")],
                    }],
                    "volumes": [volume("engine", socket_directory), volume("sandboxes", "/run/vc/sbs/")],
                },
            },
        },
    });
    serde_json::from_value(made).expect("a DaemonSet is written above")
}
