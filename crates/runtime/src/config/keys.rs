//! Every key of `configuration.toml`.
//!
//! The sections and names are those of Kata Containers, both its Go and its Rust
//! runtime, plus our own `accelerator` and `tcg_tb_size`.

/// A value as far as the table needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'static str),
    List(&'static [&'static str]),
}

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Float,
    Text,
    List,
}

/// What a key does here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// Read and obeyed, with this default.
    Obeyed(Value),
    /// Read and obeyed; unset means something else than any value, most often this one.
    Optional(Value),
    /// Its feature does not exist here: only these values are accepted.
    Only(&'static [Value]),
    /// Tunes a feature that another key can only leave off: any value of the type.
    Idle,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Type,
    pub usage: Use,
    /// For the shipped file; empty for keys it does not show.
    pub doc: &'static str,
}

impl Key {
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

impl Value {
    const fn kind(self) -> Type {
        match self {
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
            Self::Text(_) => Type::Text,
            Self::List(_) => Type::List,
        }
    }

    pub fn to_toml(self) -> toml::Value {
        match self {
            Self::Bool(v) => v.into(),
            Self::Int(v) => v.into(),
            Self::Float(v) => v.into(),
            Self::Text(v) => v.into(),
            Self::List(v) => v.iter().map(|v| toml::Value::from(*v)).collect::<Vec<_>>().into(),
        }
    }
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Text => "text in quotes",
            Self::List => "a list of texts",
        }
    }
}

/// The row of `path`, such as `hypervisor.qemu.kernel`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let (section, name) = path.rsplit_once('.')?;
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Whether some key lives below the table `path`.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter()
        .any(|key| key.section == path || key.section.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

const fn set(section: &'static str, name: &'static str, default: Value, doc: &'static str) -> Key {
    Key { section, name, kind: default.kind(), usage: Use::Obeyed(default), doc }
}

const fn optional(section: &'static str, name: &'static str, shown: Value, doc: &'static str) -> Key {
    Key { section, name, kind: shown.kind(), usage: Use::Optional(shown), doc }
}

const fn only(section: &'static str, name: &'static str, values: &'static [Value]) -> Key {
    Key { section, name, kind: values[0].kind(), usage: Use::Only(values), doc: "" }
}

const fn idle(section: &'static str, name: &'static str, kind: Type) -> Key {
    Key { section, name, kind, usage: Use::Idle, doc: "" }
}

use Value::{Bool, Float, Int, List, Text};

pub(super) const QEMU: &str = "hypervisor.qemu";
pub(super) const QEMU_FACTORY: &str = "hypervisor.qemu.factory";
pub(super) const FACTORY: &str = "factory";
pub(super) const AGENT: &str = "agent.kata";
pub(super) const MEM_AGENT: &str = "agent.kata.mem_agent";
pub(super) const RUNTIME: &str = "runtime";

const OFF: &[Value] = &[Bool(false)];
const EITHER: &[Value] = &[Bool(false), Bool(true)];
const ZERO: &[Value] = &[Int(0)];
const EMPTY: &[Value] = &[Text("")];
const EMPTY_LIST: &[Value] = &[List(&[])];

/// All keys, those of one section together and in the order of the shipped file.
pub(super) const KEYS: &[Key] = &[
    set(QEMU, "path", Text("/usr/bin/qemu-system-x86_64"), "QEMU binary."),
    set(QEMU, "kernel", Text(""), "Guest kernel, uncompressed. Empty: the installed guest image."),
    set(
        QEMU,
        "initrd",
        Text(""),
        "Guest initial RAM file system. Empty: the installed guest image, unless image is set.",
    ),
    set(QEMU, "image", Text(""), "Guest root disk instead of an initrd; one of the two."),
    set(QEMU, "rootfs_type", Text("ext4"), "File system of image: ext4, xfs or erofs."),
    set(
        QEMU,
        "accelerator",
        Text("auto"),
        "What executes guest instructions: kvm, tcg (software emulation), or auto: kvm where it proves able to\n\
         boot the guest kernel, tcg otherwise.",
    ),
    set(QEMU, "tcg_tb_size", Int(28), "Translation buffer of software emulation in MiB; 0 leaves it to QEMU."),
    set(QEMU, "machine_type", Text("q35"), "Emulated machine."),
    set(QEMU, "machine_accelerators", Text(""), "Options added to the machine type, comma-separated."),
    set(QEMU, "cpu_features", Text("pmu=off"), "CPU options, comma-separated."),
    set(QEMU, "kernel_params", Text(""), "Words added to the guest kernel's command line."),
    set(QEMU, "firmware", Text(""), "Firmware file. Empty: QEMU's own."),
    set(
        QEMU,
        "default_vcpus",
        Float(1.0),
        "Virtual CPUs of a sandbox without limits; below 0: as many as the host has, never more than it has.",
    ),
    set(QEMU, "default_maxvcpus", Int(0), "Most virtual CPUs of a sandbox; 0: as many as the host has."),
    set(QEMU, "default_memory", Int(2048), "Memory in MiB of a sandbox without limits."),
    set(QEMU, "default_maxmemory", Int(0), "Most memory of a sandbox in MiB; 0: as much as the host has."),
    set(QEMU, "memory_slots", Int(10), "How often memory can be added to a sandbox."),
    set(QEMU, "overhead_vcpus", Float(0.2), "Virtual CPUs added to the limits of a statically sized sandbox."),
    set(
        QEMU,
        "overhead_memory",
        Int(128),
        "Memory in MiB added to the limits of a statically sized sandbox: what guest kernel and agent need.",
    ),
    set(QEMU, "default_bridges", Int(1), "PCI bridges for hot-plugged devices, 30 devices each: 1 to 5."),
    only(QEMU, "shared_fs", &[Text("virtio-fs")]),
    set(QEMU, "virtio_fs_daemon", Text("/usr/libexec/virtiofsd"), "Daemon that serves the shared file system."),
    set(
        QEMU,
        "virtio_fs_cache",
        Text("auto"),
        "What the guest caches of the shared file system: never, metadata, auto, always.",
    ),
    set(QEMU, "virtio_fs_queue_size", Int(1024), "Entries of a request queue: a power of two from 2 to 1024."),
    set(
        QEMU,
        "virtio_fs_extra_args",
        List(&["--thread-pool-size=1", "--announce-submounts"]),
        "Further arguments of the daemon.",
    ),
    set(QEMU, "enable_hugepages", Bool(false), "Back guest memory with huge pages; the host must have reserved them."),
    set(QEMU, "enable_mem_prealloc", Bool(false), "Take all guest memory from the host before the guest starts."),
    set(QEMU, "entropy_source", Text("/dev/urandom"), "Host source of the guest's entropy device."),
    set(QEMU, "disable_vhost_net", Bool(false), "Keep network queues in QEMU even when the host has vhost-net."),
    set(
        QEMU,
        "seccompsandbox",
        Text("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        "Argument of QEMU's -sandbox. Empty: no system call filter.",
    ),
    set(QEMU, "guest_hook_path", Text(""), "Directory of OCI hooks inside the guest."),
    set(QEMU, "enable_debug", Bool(false), "Debug output of QEMU, guest kernel and guest console."),
    set(
        QEMU,
        "enable_annotations",
        List(&["enable_iommu", "kernel_params", "kernel_verity_params", "default_vcpus", "default_memory"]),
        "Annotations io.katacontainers.config.hypervisor.NAME a pod may use: regular expressions that must match\n\
         the whole of NAME.",
    ),
    set(QEMU, "valid_hypervisor_paths", List(&[]), "Values the annotation path may take: glob(3) patterns."),
    set(
        QEMU,
        "valid_virtio_fs_daemon_paths",
        List(&[]),
        "Values the annotation virtio_fs_daemon may take: glob(3) patterns.",
    ),
    set(
        QEMU,
        "valid_entropy_sources",
        List(&["/dev/urandom", "/dev/random"]),
        "Values the annotation entropy_source may take: glob(3) patterns.",
    ),
    // Features of others, at the values their stock files carry.
    only(QEMU, "firmware_volume", EMPTY),
    only(QEMU, "kernel_verity_params", EMPTY),
    only(QEMU, "pflashes", EMPTY_LIST),
    only(QEMU, "confidential_guest", OFF),
    only(QEMU, "sev_snp_guest", OFF),
    only(QEMU, "rootless", OFF),
    only(QEMU, "enable_virtio_mem", OFF),
    only(QEMU, "reclaim_guest_freed_memory", OFF),
    only(QEMU, "memory_offset", ZERO),
    only(QEMU, "virtio_fs_cache_size", ZERO),
    only(QEMU, "enable_iothreads", OFF),
    only(QEMU, "indep_iothreads", ZERO),
    only(QEMU, "enable_iommu", OFF),
    only(QEMU, "enable_iommu_platform", OFF),
    only(QEMU, "enable_numa", OFF),
    only(QEMU, "numa_mapping", EMPTY_LIST),
    only(QEMU, "hot_plug_vfio", &[Text("no-port"), Text("")]),
    only(QEMU, "cold_plug_vfio", &[Text("no-port"), Text("")]),
    only(QEMU, "hotplug_vfio_on_root_bus", OFF),
    only(QEMU, "pcie_root_port", ZERO),
    only(QEMU, "pcie_switch_port", ZERO),
    only(QEMU, "rx_rate_limiter_max_rate", ZERO),
    only(QEMU, "tx_rate_limiter_max_rate", ZERO),
    only(QEMU, "network_queues", &[Int(1)]),
    only(QEMU, "guest_memory_dump_path", EMPTY),
    only(QEMU, "enable_guest_swap", OFF),
    only(QEMU, "extra_monitor_socket", EMPTY),
    only(QEMU, "enable_vhost_user_store", OFF),
    only(QEMU, "file_mem_backend", EMPTY),
    only(QEMU, "hugepage_type", &[Text("hugetlbfs"), Text("")]),
    only(QEMU, "use_legacy_serial", EITHER),
    only(QEMU, "disable_selinux", EITHER),
    only(QEMU, "disable_guest_selinux", &[Bool(true)]),
    only(QEMU, "disable_block_device_use", EITHER),
    only(QEMU, "guest_extension_images", EMPTY_LIST),
    only(QEMU, "cc_init_data", EMPTY),
    only(QEMU, "default_gpus", ZERO),
    only(QEMU, "default_gpu_model", EMPTY),
    only(QEMU, "prefetch_list_path", EMPTY),
    idle(QEMU, "vm_rootfs_driver", Type::Text),
    idle(QEMU, "disable_image_nvdimm", Type::Bool),
    idle(QEMU, "disable_nesting_checks", Type::Bool),
    idle(QEMU, "virtio_fs_inode_file_handles", Type::Text),
    idle(QEMU, "block_device_driver", Type::Text),
    idle(QEMU, "block_device_aio", Type::Text),
    idle(QEMU, "block_device_cache_set", Type::Bool),
    idle(QEMU, "block_device_cache_direct", Type::Bool),
    idle(QEMU, "block_device_cache_noflush", Type::Bool),
    idle(QEMU, "block_device_logical_sector_size", Type::Int),
    idle(QEMU, "block_device_physical_sector_size", Type::Int),
    idle(QEMU, "block_device_num_queues", Type::Int),
    idle(QEMU, "block_device_queue_size", Type::Int),
    idle(QEMU, "queue_size", Type::Int),
    idle(QEMU, "num_queues", Type::Int),
    idle(QEMU, "vhost_user_store_path", Type::Text),
    idle(QEMU, "vhost_user_reconnect_timeout_sec", Type::Int),
    idle(QEMU, "valid_vhost_user_store_paths", Type::List),
    idle(QEMU, "valid_file_mem_backends", Type::List),
    idle(QEMU, "valid_jailer_paths", Type::List),
    idle(QEMU, "jailer_path", Type::Text),
    idle(QEMU, "msize_9p", Type::Int),
    idle(QEMU, "guest_memory_dump_paging", Type::Bool),
    idle(QEMU, "guest_swap_path", Type::Text),
    idle(QEMU, "guest_swap_size_percent", Type::Int),
    idle(QEMU, "guest_swap_create_threshold_secs", Type::Int),
    idle(QEMU, "snp_guest_policy", Type::Int),
    idle(QEMU, "snp_id_block", Type::Text),
    idle(QEMU, "snp_id_auth", Type::Text),
    idle(QEMU, "tdx_quote_generation_service_socket_port", Type::Int),
    idle(QEMU, "log_level", Type::Text),
    // Where the Rust runtime has it: wins over the other.
    optional(QEMU_FACTORY, "enable_template", Bool(true), ""),
    optional(QEMU_FACTORY, "template_path", Text(""), ""),
    set(
        FACTORY,
        "enable_template",
        Bool(true),
        "Let a sandbox go on from a machine of the same shape that has booted before, instead of booting its own.\n\
         Has an effect on emulated machines with an initrd; the shim's log says why a sandbox boots in spite of it.",
    ),
    set(
        FACTORY,
        "template_path",
        Text(""),
        "Directory the booted machines are kept in, at most four. Empty: templates beside the installed guest image.",
    ),
    only(FACTORY, "vm_cache_number", ZERO),
    idle(FACTORY, "vm_cache_endpoint", Type::Text),
    set(AGENT, "enable_debug", Bool(false), "Debug messages of the agent."),
    set(AGENT, "debug_console_enabled", Bool(false), "Serve a shell inside the guest on the debug console port."),
    set(
        AGENT,
        "kernel_modules",
        List(&[]),
        "Modules loaded in the guest when a sandbox starts, each with its parameters: \"name key=value\".",
    ),
    set(AGENT, "policy", Text(""), "Policy given to the agent of every sandbox."),
    set(AGENT, "container_pipe_size", Int(0), "Size of the pipes of container streams in bytes; 0: the guest's."),
    set(AGENT, "server_port", Int(1024), "vsock port of the agent."),
    set(AGENT, "log_port", Int(1025), "vsock port of the agent's log stream."),
    optional(AGENT, "dial_timeout", Int(45), "Seconds until the agent of a starting sandbox must answer."),
    optional(AGENT, "reconnect_timeout_ms", Int(45_000), ""),
    idle(AGENT, "dial_timeout_ms", Type::Int),
    set(AGENT, "request_timeout_ms", Int(60_000), "Milliseconds an ordinary request to the agent may take."),
    set(AGENT, "health_check_request_timeout_ms", Int(90_000), "Milliseconds a health check of the agent may take."),
    optional(AGENT, "create_container_timeout", Int(60), ""),
    idle(AGENT, "cdh_api_timeout", Type::Int),
    idle(AGENT, "cdh_api_timeout_ms", Type::Int),
    idle(AGENT, "passfd_listener_port", Type::Int),
    only(AGENT, "enable_tracing", OFF),
    only(MEM_AGENT, "mem_agent_enable", OFF),
    only(MEM_AGENT, "enable", OFF),
    idle(MEM_AGENT, "memcg_disable", Type::Bool),
    idle(MEM_AGENT, "memcg_swap", Type::Bool),
    idle(MEM_AGENT, "memcg_swappiness_max", Type::Int),
    idle(MEM_AGENT, "memcg_period_secs", Type::Int),
    idle(MEM_AGENT, "memcg_period_psi_percent_limit", Type::Int),
    idle(MEM_AGENT, "memcg_eviction_psi_percent_limit", Type::Int),
    idle(MEM_AGENT, "memcg_eviction_run_aging_count_min", Type::Int),
    idle(MEM_AGENT, "compact_disable", Type::Bool),
    idle(MEM_AGENT, "compact_period_secs", Type::Int),
    idle(MEM_AGENT, "compact_period_psi_percent_limit", Type::Int),
    idle(MEM_AGENT, "compact_psi_percent_limit", Type::Int),
    idle(MEM_AGENT, "compact_sec_max", Type::Int),
    idle(MEM_AGENT, "compact_order", Type::Int),
    idle(MEM_AGENT, "compact_threshold", Type::Int),
    idle(MEM_AGENT, "compact_force_times", Type::Int),
    set(RUNTIME, "enable_debug", Bool(false), "Debug messages of the runtime."),
    set(
        RUNTIME,
        "internetworking_model",
        Text("tcfilter"),
        "How the pod's network interfaces reach the guest: tcfilter, macvtap or none.",
    ),
    set(
        RUNTIME,
        "disable_new_netns",
        Bool(false),
        "Do not use a network namespace; needs internetworking_model = \"none\".",
    ),
    set(RUNTIME, "disable_guest_seccomp", Bool(true), "Do not apply seccomp profiles inside the guest."),
    set(
        RUNTIME,
        "sandbox_cgroup_only",
        Bool(true),
        "Run all that serves a sandbox in the pod's cgroup, so that its memory is accounted to the pod. The\n\
         overhead of the runtime class must cover it.",
    ),
    set(
        RUNTIME,
        "static_sandbox_resource_mgmt",
        Bool(true),
        "Size the virtual machine from the pod's limits before it boots, instead of growing it with each container.",
    ),
    set(
        RUNTIME,
        "sandbox_bind_mounts",
        List(&[]),
        "Host directories every sandbox sees below sandbox-mounts, read-only unless they end in \":rw\".",
    ),
    set(
        RUNTIME,
        "disable_guest_empty_dir",
        Bool(true),
        "Keep emptyDir volumes on the host and share them, instead of making them inside the guest.",
    ),
    set(RUNTIME, "kubelet_root_dir", Text("/var/lib/kubelet"), "Where kubelet keeps its pods."),
    optional(RUNTIME, "create_container_timeout", Int(60), "Seconds the creation of a container may take."),
    only(RUNTIME, "name", &[Text("virt_container"), Text("")]),
    only(RUNTIME, "hypervisor_name", &[Text("qemu"), Text("")]),
    only(RUNTIME, "agent_name", &[Text("kata"), Text("")]),
    only(RUNTIME, "enable_vcpus_pinning", OFF),
    only(RUNTIME, "guest_selinux_label", EMPTY),
    only(RUNTIME, "enable_tracing", OFF),
    only(RUNTIME, "experimental", EMPTY_LIST),
    only(RUNTIME, "experimental_force_guest_pull", OFF),
    only(RUNTIME, "enable_pprof", OFF),
    only(RUNTIME, "emptydir_mode", &[Text("shared-fs")]),
    only(RUNTIME, "pod_resource_api_sock", EMPTY),
    only(RUNTIME, "keep_abnormal", OFF),
    only(RUNTIME, "shared_mounts", EMPTY_LIST),
    only(RUNTIME, "use_passfd_io", OFF),
    only(RUNTIME, "disable_guest_network", OFF),
    idle(RUNTIME, "vfio_mode", Type::Text),
    idle(RUNTIME, "jaeger_endpoint", Type::Text),
    idle(RUNTIME, "jaeger_user", Type::Text),
    idle(RUNTIME, "jaeger_password", Type::Text),
    idle(RUNTIME, "dan_conf", Type::Text),
    idle(RUNTIME, "log_level", Type::Text),
];
