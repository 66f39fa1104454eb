//! The CRI's description of a sandbox and its containers.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use k8s_cri::v1;

use super::{
    dns, env,
    model::{Container, Pod, Security},
    resources::{self, Qos},
};
use crate::engine::Paths;

/// Labels by which every tool finds the containers of a pod.
pub mod labels {
    /// Name of the pod.
    pub const NAME: &str = "io.kubernetes.pod.name";
    /// Namespace of the pod.
    pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Identity of the pod.
    pub const UID: &str = "io.kubernetes.pod.uid";
    /// Name of the container.
    pub const CONTAINER: &str = "io.kubernetes.container.name";
    /// Annotation: file in the container that says why it ended.
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// Annotation: what stands in for that file.
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Value of [`MESSAGE_POLICY`] where the log does.
    pub const FROM_LOG: &str = "FallbackToLogsOnError";
}

/// Selects everything of one pod.
pub fn selector(uid: &str) -> HashMap<String, String> {
    HashMap::from([(labels::UID.to_owned(), uid.to_owned())])
}

/// Where a pod keeps things and who runs it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Volumes.
    pub dir: PathBuf,
    /// Logs: `<container>/<attempt>.log`.
    pub logs: PathBuf,
    /// cgroup of the pod.
    pub cgroup: PathBuf,
    /// Runtime handler.
    pub handler: String,
}

impl Place {
    /// The place of the pod of that identity. Pods of a cluster are sorted by
    /// their class, as a kubelet does it.
    pub fn new(paths: &Paths, uid: &str, full_name: &str, handler: &str, class: Option<Qos>) -> Self {
        let above = match class {
            None => "",
            Some(Qos::Guaranteed) => "kubepods",
            Some(Qos::Burstable) => "kubepods/burstable",
            Some(Qos::BestEffort) => "kubepods/besteffort",
        };
        Self {
            dir: paths.pods().join(uid),
            logs: paths.pod_logs().join(format!("{}_{uid}", full_name.replace('/', "_"))),
            cgroup: paths.cgroup().join(above).join(format!("pod{uid}")),
            handler: handler.to_owned(),
        }
    }

    /// Log of one attempt of a container.
    pub fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.logs.join(log_path(container, attempt))
    }

    /// The first attempt number without a log.
    pub fn next_attempt(&self, container: &str) -> u32 {
        let entries = std::fs::read_dir(self.logs.join(container)).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| attempt_of(&entry.path()));
        numbers.max().map_or(0, |last| last + 1)
    }
}

/// Number of the attempt a log file belongs to.
pub fn attempt_of(log: &Path) -> Option<u32> {
    log.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

fn log_path(container: &str, attempt: u32) -> PathBuf {
    Path::new(container).join(format!("{attempt}.log"))
}

/// The sandbox of a pod; `dns` tells it the names of Services.
pub fn sandbox(pod: &Pod, place: &Place, attempt: u32, dns: Option<IpAddr>) -> v1::PodSandboxConfig {
    let ports = pod.all().flat_map(|container| &container.ports).map(|port| v1::PortMapping {
        protocol: port.protocol,
        container_port: port.container.into(),
        host_port: port.host.into(),
        host_ip: port.host_ip.clone(),
    });
    let mut labels: HashMap<_, _> = pod.labels.clone().into_iter().collect();
    labels.extend(identity_labels(pod));
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt,
        }),
        hostname: if pod.host_network { String::new() } else { pod.hostname.clone() },
        log_directory: place.logs.to_string_lossy().into_owned(),
        dns_config: Some(dns::config(pod, dns)),
        port_mappings: ports.collect(),
        labels,
        annotations: pod.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: place.cgroup.to_string_lossy().into_owned(),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod)),
                supplemental_groups: groups(pod),
                privileged: pod.all().any(|container| container.security.privileged),
                seccomp: Some(seccomp(false)),
                ..Default::default()
            }),
            sysctls: pod.sysctls.clone().into_iter().collect(),
            overhead: Some(resources::sandbox_overhead(pod, &place.handler)),
            resources: Some(resources::sandbox(pod)),
        }),
        windows: None,
    }
}

/// What one attempt of a container gets that depends on where it runs.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The environment, as [`super::env::resolve`] made it.
    pub env: Vec<(String, String)>,
    /// The mounts, as [`super::volumes::mounts`] made them.
    pub mounts: Vec<v1::Mount>,
    /// Raw block devices.
    pub devices: Vec<v1::Device>,
    /// Id of the container whose processes it sees.
    pub target: Option<String>,
}

/// One attempt of a container.
pub fn container(pod: &Pod, container: &Container, attempt: u32, around: Surroundings) -> v1::ContainerConfig {
    let Surroundings { env, mounts, devices, target } = around;
    let mut labels = identity_labels(pod);
    labels.insert(labels::CONTAINER.into(), container.name.clone());
    let mut annotations = HashMap::from([(labels::MESSAGE_PATH.into(), container.message_path.clone())]);
    if container.message_from_log {
        annotations.insert(labels::MESSAGE_POLICY.into(), labels::FROM_LOG.into());
    }
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(v1::ImageSpec { image: container.image.clone(), ..Default::default() }),
        command: env::expand_all(&container.command, &env),
        args: env::expand_all(&container.args, &env),
        working_dir: container.dir.clone(),
        envs: env.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        mounts,
        devices,
        labels,
        annotations,
        log_path: log_path(&container.name, attempt).to_string_lossy().into_owned(),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::container(container, resources::qos(pod), resources::machine_memory())),
            security_context: Some(security(pod, &container.security, target)),
        }),
        ..Default::default()
    }
}

fn identity_labels(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        (labels::NAME.into(), pod.name.clone()),
        (labels::NAMESPACE.into(), pod.namespace.clone()),
        (labels::UID.into(), pod.uid.clone()),
    ])
}

fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let (pod_wide, own, node) = (0, 1, 2);
    v1::NamespaceOption {
        network: if pod.host_network { node } else { pod_wide },
        pid: match (pod.host_pid, pod.share_processes) {
            (true, _) => node,
            (false, true) => pod_wide,
            (false, false) => own,
        },
        ipc: if pod.host_ipc { node } else { pod_wide },
        ..Default::default()
    }
}

/// The volumes' group is one of every process's.
fn groups(pod: &Pod) -> Vec<i64> {
    pod.supplemental_groups.iter().copied().chain(pod.fs_group.map(i64::from)).collect()
}

fn seccomp(filtered: bool) -> v1::SecurityProfile {
    let (runtime_default, unconfined) = (0, 1);
    v1::SecurityProfile {
        profile_type: if filtered { runtime_default } else { unconfined },
        localhost_ref: String::new(),
    }
}

/// Paths of `/proc` and `/sys` that tell or change too much, as in Kubernetes.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn security(pod: &Pod, security: &Security, target: Option<String>) -> v1::LinuxContainerSecurityContext {
    let number = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    let paths = |list: &[&str]| {
        let shown = if security.privileged { &[] } else { list };
        shown.iter().map(|&path| path.to_owned()).collect()
    };
    let mut namespaces = namespaces(pod);
    if let Some(target) = target {
        namespaces.pid = v1::NamespaceMode::Target.into();
        namespaces.target_id = target;
    }
    v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: security.add.clone(),
            drop_capabilities: security.drop.clone(),
            ..Default::default()
        }),
        privileged: security.privileged,
        namespace_options: Some(namespaces),
        run_as_user: number(security.user),
        // The engine refuses a group without a user.
        run_as_group: number(security.group.filter(|_| security.user.is_some())),
        readonly_rootfs: security.read_only_root,
        supplemental_groups: groups(pod),
        no_new_privs: security.no_new_privileges,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(security.seccomp && !security.privileged)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Manifest;

    const SPEC: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {x: y}, annotations: {io.katacontainers.x: z}}
spec:
  shareProcessNamespace: true
  securityContext: {fsGroup: 7, supplementalGroups: [8], seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: c
    image: i:1
    args: [$(IP), $(NAME)]
    env:
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]
    securityContext: {runAsUser: 5, capabilities: {drop: [ALL]}, allowPrivilegeEscalation: false}
  - {name: p, image: i:1, securityContext: {privileged: true}}
";

    #[tokio::test]
    async fn everything_reaches_the_engine() {
        let pod = Manifest::read("test", SPEC).expect("good").remove(0).pod;
        let paths = Paths::new(osc_runtime::dirs::Dirs::new("/r"));
        let place = Place::new(&paths, &pod.uid, &pod.full_name(), "kata", None);
        let sandbox = sandbox(&pod, &place, 3, None);
        assert_eq!(sandbox.labels["x"], "y");
        assert_eq!(sandbox.labels[labels::UID], pod.uid);
        assert_eq!(sandbox.annotations["io.katacontainers.x"], "z");
        assert_eq!(sandbox.port_mappings.len(), 1);
        assert_eq!(sandbox.log_directory, format!("/r/var/log/pods/default_a_{}", pod.uid));
        let linux = sandbox.linux.expect("linux");
        assert!(linux.cgroup_parent.ends_with(&format!("/pod{}", pod.uid)));
        assert!(linux.security_context.expect("context").privileged);

        let addresses = ["10.0.0.9".parse().expect("address")];
        let env = env::resolve(&pod, &pod.containers[0], &addresses, None).await.expect("environment");
        let around = Surroundings { env, ..Surroundings::default() };
        let config = container(&pod, &pod.containers[0], 2, around);
        assert_eq!(config.args, ["10.0.0.9", "a"]);
        assert_eq!(config.log_path, "c/2.log");
        let context = config.linux.and_then(|linux| linux.security_context).expect("context");
        assert_eq!(context.run_as_user.map(|user| user.value), Some(5));
        assert_eq!(context.supplemental_groups, [8, 7]);
        assert!(context.no_new_privs && !context.masked_paths.is_empty());
        assert_eq!(context.seccomp.map(|profile| profile.profile_type), Some(0));
        assert_eq!(context.namespace_options.map(|options| options.pid), Some(0));

        let config = container(&pod, &pod.containers[1], 0, Surroundings::default());
        let context = config.linux.and_then(|linux| linux.security_context).expect("context");
        assert!(context.privileged && context.masked_paths.is_empty());
        assert_eq!(context.seccomp.map(|profile| profile.profile_type), Some(1));
    }
}
