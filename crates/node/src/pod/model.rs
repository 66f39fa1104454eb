//! A pod whose every value has been checked. Only [`super::check`] builds one.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

/// A pod to run.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Identity; derived from namespace and name where the manifest has none.
    pub uid: String,
    /// Name within the namespace.
    pub name: String,
    /// Namespace; only a prefix of names here.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations; those of the runtime reach it.
    pub annotations: BTreeMap<String, String>,
    /// Runtime handler named by `runtimeClassName`.
    pub handler: Option<String>,
    /// What happens to containers that end.
    pub restart: Restart,
    /// Time between asking and killing.
    pub grace: Duration,
    /// The pod fails when it runs longer.
    pub active_deadline: Option<Duration>,
    /// Host name inside.
    pub hostname: String,
    /// Whether the pod uses the network of the host.
    pub host_network: bool,
    /// Whether containers see each other's processes.
    pub share_processes: bool,
    /// Name resolution.
    pub dns: Dns,
    /// Extra lines of `/etc/hosts`.
    pub host_aliases: Vec<(IpAddr, Vec<String>)>,
    /// Group of volumes that are made for the pod.
    pub fs_group: Option<u32>,
    /// Groups of every process.
    pub supplemental_groups: Vec<i64>,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Volumes the containers may mount.
    pub volumes: Vec<Volume>,
    /// Run one after the other before the others start.
    pub init: Vec<Container>,
    /// The containers proper, at least one.
    pub containers: Vec<Container>,
    /// What the sandbox itself costs, if the manifest says so.
    pub overhead: Option<Amounts>,
    /// Fields that are set but have no effect on one machine.
    pub ignored: Vec<String>,
}

impl Pod {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Init containers and containers, in start order.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Container> {
        self.init.iter().chain(&self.containers)
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all().find(|container| container.name == name)
    }
}

/// `restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Whatever the exit code.
    Always,
    /// On an exit code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

/// Name resolution.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    /// Whether the host's resolver configuration is the base.
    pub from_host: bool,
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options, `name` or `name:value`.
    pub options: Vec<String>,
}

/// One container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Name within the pod.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// When to fetch it.
    pub pull: Pull,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub dir: String,
    /// Environment, in order: later values may refer to earlier ones.
    pub env: Vec<(String, EnvValue)>,
    /// Volumes it sees.
    pub mounts: Vec<VolumeMount>,
    /// Ports to forward from the host.
    pub ports: Vec<Port>,
    /// Guaranteed amounts.
    pub requests: Amounts,
    /// Largest amounts.
    pub limits: Amounts,
    /// User, capabilities and the like, merged with the pod's.
    pub security: Security,
    /// Whether standard input stays open.
    pub stdin: bool,
    /// Whether the first client's end of input is the container's.
    pub stdin_once: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Run after its start.
    pub post_start: Option<Hook>,
    /// Run before its end.
    pub pre_stop: Option<Hook>,
    /// An init container that keeps running beside the others.
    pub sidecar: bool,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Before every start.
    Always,
    /// When it is not here.
    IfNotPresent,
    /// Never.
    Never,
}

/// Value of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// Text with `$(NAME)` references.
    Text(String),
    /// Known before the sandbox exists.
    Known(String),
    /// The pod's address.
    PodIp,
}

/// CPU and memory; what is absent is not limited or asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// Security context of one container.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// User id.
    pub user: Option<i64>,
    /// Group id.
    pub group: Option<i64>,
    /// Refuse to run as user 0.
    pub non_root: bool,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Root file system without writes.
    pub read_only_root: bool,
    /// Set-user-id programs have no effect.
    pub no_new_privileges: bool,
    /// Capabilities to add, without `CAP_`.
    pub add: Vec<String>,
    /// Capabilities to drop, without `CAP_`.
    pub drop: Vec<String>,
    /// Whether the engine's system call filter applies.
    pub seccomp: bool,
}

/// A port forwarded from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// 0 TCP, 1 UDP, 2 SCTP, as in the CRI.
    pub protocol: i32,
    /// Port in the pod.
    pub container: u16,
    /// Port on the host.
    pub host: u16,
    /// Address on the host; empty for all.
    pub host_ip: String,
}

/// What a hook does.
#[derive(Clone, Debug)]
pub enum Hook {
    /// Runs a command in the container.
    Exec(Vec<String>),
    /// Waits.
    Sleep(Duration),
}

/// A named volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Name within the pod.
    pub name: String,
    /// Where its content comes from.
    pub source: Source,
}

/// Where a volume's content comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory that lives as long as the pod.
    EmptyDir,
    /// The same in memory, of at most so many bytes.
    Memory(Option<u64>),
    /// A path of the host.
    HostPath(PathBuf, HostPathType),
}

/// `hostPath.type`: what must be at the path, or is made there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathType {
    /// Anything, or nothing.
    Unchecked,
    /// A directory, made if missing.
    DirectoryOrCreate,
    /// A directory.
    Directory,
    /// A file, made if missing.
    FileOrCreate,
    /// A file.
    File,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Where a container sees a volume.
#[derive(Clone, Debug)]
pub struct VolumeMount {
    /// The volume's name.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// Path within the volume, without `..`.
    pub sub_path: PathBuf,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Propagation as in the CRI: 0 private, 1 from the host, 2 both ways.
    pub propagation: i32,
}
