//! The checked configuration.

use std::{fmt, path::PathBuf, time::Duration};

use regex_lite::Regex;

/// A configuration that passed every check; made by [`Config::load`] and
/// [`Config::annotated`] only.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[hypervisor.qemu]`
    pub hypervisor: Hypervisor,
    /// `[agent.kata]`
    pub agent: Agent,
    /// `[runtime]`
    pub runtime: Runtime,
    /// The merged settings this was made from, so that annotations can change
    /// them and pass the same check again.
    pub(super) settings: toml::Table,
    /// Files the settings came from, for messages.
    pub(super) files: Vec<PathBuf>,
    pub(super) host: super::Host,
}

/// A number of mebibytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mib(pub u64);

impl Mib {
    /// The same amount in bytes, saturating.
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(1 << 20)
    }

    /// The smallest number of whole mebibytes that holds `bytes`.
    pub fn holding(bytes: u64) -> Self {
        Self(bytes.div_ceil(1 << 20))
    }
}

/// Less than this no guest kernel with an agent starts.
pub const LEAST_MEMORY: Mib = Mib(64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// An enum whose values are words of the configuration file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value with its word.
            pub const ALL: &[($name, &str)] = &[$(($name::$variant, $word),)+];

            /// The word the configuration file uses.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words!(
    /// What executes guest instructions.
    Accelerator {
        /// KVM when it proves itself on this host, software emulation otherwise.
        Auto = "auto",
        /// KVM or failure.
        Kvm = "kvm",
        /// Software emulation.
        Tcg = "tcg",
    }
);
words!(
    /// The emulated machine.
    MachineType {
        /// PCI Express machine with hot-plug.
        Q35 = "q35",
    }
);
words!(
    /// What the guest may cache of the shared file system.
    CacheMode {
        /// Nothing.
        Never = "never",
        /// Metadata and names, without expiry.
        Metadata = "metadata",
        /// Metadata for a second, data while a file is open.
        Auto = "auto",
        /// Everything, without expiry.
        Always = "always",
    }
);
words!(
    /// How the pod's network interfaces reach the guest.
    NetworkModel {
        /// Traffic redirected between interface and tap by `tc` filters.
        TcFilter = "tcfilter",
        /// A macvtap on top of the interface.
        MacVtap = "macvtap",
        /// Not at all.
        None = "none",
    }
);

/// `[hypervisor.qemu]`
#[derive(Clone, Debug)]
pub struct Hypervisor {
    /// QEMU binary.
    pub path: PathBuf,
    /// What executes guest instructions.
    pub accelerator: Accelerator,
    /// Bound of the translation buffer of software emulation; `None` leaves it to QEMU.
    pub tcg_tb_size: Option<Mib>,
    /// The emulated machine.
    pub machine_type: MachineType,
    /// Machine options appended to the machine type, comma-separated.
    pub machine_accelerators: String,
    /// CPU options, comma-separated.
    pub cpu_features: String,
    /// Uncompressed guest kernel.
    pub kernel: PathBuf,
    /// What the guest boots into.
    pub root: GuestRoot,
    /// Extra words of the kernel command line.
    pub kernel_params: String,
    /// Firmware file; `None` is QEMU's own.
    pub firmware: Option<PathBuf>,
    /// Virtual CPUs of a sandbox without limits.
    pub vcpus: f32,
    /// Most virtual CPUs a sandbox may grow to; at least `vcpus` rounded up.
    pub max_vcpus: u32,
    /// Memory of a sandbox without limits.
    pub memory: Mib,
    /// Most memory a sandbox may grow to; at least `memory`.
    pub max_memory: Mib,
    /// How often memory can be added.
    pub memory_slots: u32,
    /// Virtual CPUs added to the limits of a statically sized sandbox.
    pub overhead_vcpus: f32,
    /// Memory added to the limits of a statically sized sandbox.
    pub overhead_memory: Mib,
    /// PCI bridges for hot-plugged devices, 1 to 5.
    pub bridges: u32,
    /// The shared file system.
    pub virtio_fs: VirtioFs,
    /// Back guest memory with huge pages.
    pub hugepages: bool,
    /// Touch all guest memory before the guest starts.
    pub mem_prealloc: bool,
    /// Host source of the guest's entropy device.
    pub entropy_source: PathBuf,
    /// Use vhost-net when the host has it.
    pub vhost_net: bool,
    /// Argument of QEMU's `-sandbox`; empty for none.
    pub seccomp_sandbox: String,
    /// Directory of OCI hooks inside the guest; empty for none.
    pub guest_hook_path: String,
    /// Debug output of QEMU, guest kernel and console.
    pub debug: bool,
    /// Machines that have booted before.
    pub templates: Templates,
    /// Which annotations below `io.katacontainers.config.hypervisor.` a pod may use.
    pub(super) enable_annotations: Vec<Regex>,
    /// The same expressions as written, for messages.
    pub(super) enable_annotations_text: Vec<String>,
    /// Values the `path` annotation may take, as glob(3) patterns.
    pub(super) valid_hypervisor_paths: Vec<String>,
    pub(super) valid_virtio_fs_daemon_paths: Vec<String>,
    pub(super) valid_entropy_sources: Vec<String>,
}

/// What the guest boots into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestRoot {
    /// An initial RAM file system that is also the final one.
    Initrd(PathBuf),
    /// A disk image with a root file system of the named type.
    Image {
        /// The image file.
        path: PathBuf,
        /// `ext4`, `xfs` or `erofs`.
        fs: String,
    },
}

/// `[factory]`: machines that have booted before, which sandboxes go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates {
    /// Whether they are made and used.
    pub enabled: bool,
    /// Where they are kept.
    pub dir: PathBuf,
}

/// The shared file system's daemon and device.
#[derive(Clone, Debug)]
pub struct VirtioFs {
    /// The virtiofsd binary.
    pub daemon: PathBuf,
    /// What the guest may cache.
    pub cache: CacheMode,
    /// Entries of each request queue: a power of two up to 1024.
    pub queue_size: u32,
    /// Further arguments of the daemon; never those the runtime sets itself.
    pub extra_args: Vec<String>,
}

/// `[agent.kata]`
#[derive(Clone, Debug)]
pub struct Agent {
    /// Debug messages of the agent.
    pub debug: bool,
    /// Serve a shell on the debug console port.
    pub debug_console: bool,
    /// Modules loaded when the sandbox is created, in order.
    pub kernel_modules: Vec<KernelModule>,
    /// Policy given to the agent before anything else.
    pub policy: Option<String>,
    /// Size of the pipes of container streams in bytes; 0 is the guest's default.
    pub container_pipe_size: u32,
    /// vsock port of the agent.
    pub server_port: u32,
    /// vsock port of the agent's log stream, served with `debug` only.
    pub log_port: u32,
    /// From the start of the virtual machine until the agent answers.
    pub dial_timeout: Duration,
    /// Any request without a limit of its own.
    pub request_timeout: Duration,
    /// A health check.
    pub health_check_timeout: Duration,
    /// Creation of a container.
    pub create_container_timeout: Duration,
}

/// A kernel module and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelModule {
    /// Module name.
    pub name: String,
    /// `key=value` words.
    pub parameters: Vec<String>,
}

/// `[runtime]`
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Debug messages of the runtime.
    pub debug: bool,
    /// How the pod's network reaches the guest.
    pub network: NetworkModel,
    /// Whether a pod network namespace is wanted at all.
    pub new_netns: bool,
    /// Do not pass seccomp profiles into the guest.
    pub disable_guest_seccomp: bool,
    /// Run everything that serves the sandbox inside the pod's cgroup.
    pub sandbox_cgroup_only: bool,
    /// Size the virtual machine from the pod's limits before boot, never after.
    pub static_sizing: bool,
    /// Host directories every sandbox sees below `sandbox-mounts`.
    pub bind_mounts: Vec<BindMount>,
    /// Keep disk emptyDir volumes on the host and share them.
    pub disable_guest_empty_dir: bool,
    /// Where kubelet keeps pods; emptyDir volumes are recognised by it.
    pub kubelet_root: PathBuf,
}

/// A host directory exposed to every sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// Host path, absolute; its last component names it in the guest.
    pub path: PathBuf,
    /// Whether the guest may write.
    pub read_only: bool,
}
