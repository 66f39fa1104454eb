//! A pod whose every value has been checked. Only [`super::check`] builds one.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use super::probe::Probe;

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
    /// Its name in the cluster's DNS, where a Service may give it one.
    pub full_hostname: Option<String>,
    /// Whether the pod uses the network of the host.
    pub host_network: bool,
    /// Whether the pod sees the processes of the host.
    pub host_pid: bool,
    /// Whether the pod shares System V IPC with the host.
    pub host_ipc: bool,
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
    /// Put into the pod while it runs, to look around; never restarted, and of no
    /// account for how the pod is.
    pub ephemeral: Vec<Container>,
    /// The account whose tokens it may have.
    pub service_account: String,
    /// Whether services of the namespace appear in the environment.
    pub service_links: bool,
    /// Secrets with credentials of registries.
    pub pull_secrets: Vec<String>,
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
        self.all().chain(&self.ephemeral).find(|container| container.name == name)
    }

    /// Whether the container of that name is an ephemeral one.
    pub fn is_ephemeral(&self, name: &str) -> bool {
        self.ephemeral.iter().any(|container| container.name == name)
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
    /// Whether names of the cluster come first, where there is a cluster that has them.
    pub from_cluster: bool,
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
    /// Whole objects that become variables, before those of `env`.
    pub env_from: Vec<EnvFrom>,
    /// Environment, in order: later values may refer to earlier ones.
    pub env: Vec<(String, EnvValue)>,
    /// Volumes it sees.
    pub mounts: Vec<VolumeMount>,
    /// Raw block devices it sees: the volume, and the path in the container.
    pub devices: Vec<(String, String)>,
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
    /// The container whose processes it sees, other than its own.
    pub target: Option<String>,
    /// An init container that keeps running beside the others.
    pub sidecar: bool,
    /// Has to succeed before the container counts as started.
    pub startup: Option<Probe>,
    /// The container is restarted when it fails.
    pub liveness: Option<Probe>,
    /// The container is ready while it succeeds.
    pub readiness: Option<Probe>,
    /// File in the container whose content says why it ended.
    pub message_path: String,
    /// Whether the end of the log stands in for an empty message.
    pub message_from_log: bool,
}

impl Container {
    /// Whether it is ever asked how it is.
    pub fn has_probes(&self) -> bool {
        [&self.startup, &self.liveness, &self.readiness].into_iter().any(Option::is_some)
    }
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
    /// All addresses of the pod, separated by commas.
    PodIps,
    /// The node's address.
    HostIp,
    /// The node's name.
    NodeName,
    /// A key of an object.
    Key(Object, String),
}

/// A ConfigMap or Secret of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Which of the two.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// Whether the pod can do without it.
    pub optional: bool,
}

/// Kinds whose data pods can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// `ConfigMap`.
    ConfigMap,
    /// `Secret`.
    Secret,
}

impl ObjectKind {
    /// In lower case, as messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// An object all of whose keys become variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFrom {
    /// The object.
    pub object: Object,
    /// Put before every key.
    pub prefix: String,
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
    /// Asks the container by HTTP.
    Http(HttpGet),
}

/// An HTTP request to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// Whether by TLS; certificates are not verified.
    pub tls: bool,
    /// Where to; the pod's address where it is empty.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path with query.
    pub path: String,
    /// Additional headers.
    pub headers: Vec<(String, String)>,
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
    /// A directory that lives as long as the pod. A pod of a cluster that puts more
    /// bytes into it is evicted.
    EmptyDir(Option<u64>),
    /// The same in memory, of at most so many bytes.
    Memory(Option<u64>),
    /// A path of the host.
    HostPath(PathBuf, HostPathType),
    /// A claim of the pod's namespace.
    Claim(String),
    /// Files made of objects, kept up to date.
    Files(Files),
}

/// A volume of files made of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Directory name of this kind of volume, such as `kubernetes.io~secret`.
    pub plugin: &'static str,
    /// Where the files come from, later ones win.
    pub sources: Vec<FileSource>,
    /// Mode of files that have none of their own.
    pub mode: u32,
}

impl Files {
    /// Whether anything in it must not reach the disk.
    pub fn is_secret(&self) -> bool {
        self.sources.iter().any(|source| match source {
            FileSource::Object { object, .. } => object.kind == ObjectKind::Secret,
            FileSource::Token { .. } => true,
            FileSource::Fields(_) => false,
        })
    }
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSource {
    /// Keys of an object: all, or those listed.
    Object {
        /// The object.
        object: Object,
        /// Keys, and what becomes of them; empty for all.
        items: Vec<Item>,
    },
    /// Fields of the pod itself.
    Fields(Vec<FieldFile>),
    /// A token of the pod's account.
    Token {
        /// Whom it is for; empty for the API.
        audience: String,
        /// How long it is good for.
        lifetime: Duration,
        /// Its file.
        path: PathBuf,
    },
}

/// One key of an object as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: String,
    /// The file.
    pub path: PathBuf,
    /// Its mode.
    pub mode: Option<u32>,
}

/// A field of the pod as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFile {
    /// The file.
    pub path: PathBuf,
    /// Its mode.
    pub mode: Option<u32>,
    /// What is in it.
    pub field: Field,
}

/// A field of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// All labels, one line each.
    Labels,
    /// All annotations, one line each.
    Annotations,
    /// One label.
    Label(String),
    /// One annotation.
    Annotation(String),
    /// Never changes.
    Known(String),
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
    /// The same with `$(NAME)` references, instead.
    pub sub_path_expr: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Propagation as in the CRI: 0 private, 1 from the host, 2 both ways.
    pub propagation: i32,
}
