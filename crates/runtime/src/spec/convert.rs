//! The OCI Runtime Specification as messages of the agent protocol (package `grpc`,
//! file `oci.proto`), field by field and without judgement.

use std::path::Path;

use oci_spec::runtime as oci;
use osc_agent_protocol::oci as proto;
use protobuf::MessageField;
use serde::Serialize;

use super::seccomp::seccomp;

/// A whole specification. What the protocol has no field for is left out: other
/// operating systems, memory policies, network devices.
pub fn spec_to_proto(spec: &oci::Spec) -> proto::Spec {
    proto::Spec {
        Version: spec.version().clone(),
        Process: spec.process().as_ref().map(process_to_proto).into(),
        Root: spec.root().as_ref().map(root).into(),
        Hostname: text(spec.hostname()),
        Mounts: each(spec.mounts(), mount_to_proto),
        Hooks: spec.hooks().as_ref().map(hooks).into(),
        Annotations: spec.annotations().clone().unwrap_or_default(),
        Linux: spec.linux().as_ref().map(linux).into(),
        ..proto::Spec::default()
    }
}

/// A process: the first of a container, or one of an exec request.
pub fn process_to_proto(process: &oci::Process) -> proto::Process {
    let user = process.user();
    proto::Process {
        Terminal: process.terminal().unwrap_or_default(),
        ConsoleSize: process.console_size().as_ref().map(console).into(),
        User: MessageField::some(proto::User {
            UID: user.uid(),
            GID: user.gid(),
            AdditionalGids: list(user.additional_gids()),
            Username: text(user.username()),
            ..proto::User::default()
        }),
        Args: list(process.args()),
        Env: list(process.env()),
        Cwd: path(process.cwd()),
        Capabilities: process.capabilities().as_ref().map(capabilities).into(),
        Rlimits: each(process.rlimits(), |limit| proto::POSIXRlimit {
            Type: word(&limit.typ()),
            Hard: limit.hard(),
            Soft: limit.soft(),
            ..proto::POSIXRlimit::default()
        }),
        NoNewPrivileges: process.no_new_privileges().unwrap_or_default(),
        ApparmorProfile: text(process.apparmor_profile()),
        OOMScoreAdj: process.oom_score_adj().unwrap_or_default().into(),
        SelinuxLabel: text(process.selinux_label()),
        ..proto::Process::default()
    }
}

/// Limits of a container, from its specification or an update request.
pub fn resources_to_proto(resources: &oci::LinuxResources) -> proto::LinuxResources {
    proto::LinuxResources {
        Devices: each(resources.devices(), |rule| proto::LinuxDeviceCgroup {
            Allow: rule.allow(),
            Type: rule.typ().as_ref().map(word).unwrap_or_default(),
            // The specification's "any" is the protocol's -1.
            Major: rule.major().unwrap_or(-1),
            Minor: rule.minor().unwrap_or(-1),
            Access: text(rule.access()),
            ..proto::LinuxDeviceCgroup::default()
        }),
        Memory: resources.memory().as_ref().map(memory).into(),
        CPU: resources.cpu().as_ref().map(cpu).into(),
        Pids: resources.pids().as_ref().map(pids).into(),
        BlockIO: resources.block_io().as_ref().map(block_io).into(),
        HugepageLimits: each(resources.hugepage_limits(), |limit| proto::LinuxHugepageLimit {
            Pagesize: limit.page_size().clone(),
            Limit: u64::try_from(limit.limit()).unwrap_or_default(),
            ..proto::LinuxHugepageLimit::default()
        }),
        Network: resources.network().as_ref().map(network).into(),
        ..proto::LinuxResources::default()
    }
}

/// A mount.
pub fn mount_to_proto(mount: &oci::Mount) -> proto::Mount {
    proto::Mount {
        destination: path(mount.destination()),
        source: mount.source().as_deref().map(path).unwrap_or_default(),
        type_: text(mount.typ()),
        options: list(mount.options()),
        ..proto::Mount::default()
    }
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

fn list<T: Clone>(items: &Option<Vec<T>>) -> Vec<T> {
    items.clone().unwrap_or_default()
}

fn each<T, U>(items: &Option<Vec<T>>, convert: impl Fn(&T) -> U) -> Vec<U> {
    items.iter().flatten().map(convert).collect()
}

/// JSON text is UTF-8, so nothing is lost.
fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The word the specification uses for an enumerated value.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn console(size: &oci::Box) -> proto::Box {
    proto::Box {
        Height: u32::try_from(size.height()).unwrap_or(u32::MAX),
        Width: u32::try_from(size.width()).unwrap_or(u32::MAX),
        ..proto::Box::default()
    }
}

fn root(root: &oci::Root) -> proto::Root {
    proto::Root { Path: path(root.path()), Readonly: root.readonly().unwrap_or_default(), ..proto::Root::default() }
}

fn capabilities(sets: &oci::LinuxCapabilities) -> proto::LinuxCapabilities {
    // Sets have no order; messages should not differ from run to run.
    let sorted = |set: &Option<oci::Capabilities>| {
        let mut words: Vec<_> = set.iter().flatten().map(word).collect();
        words.sort();
        words
    };
    proto::LinuxCapabilities {
        Bounding: sorted(sets.bounding()),
        Effective: sorted(sets.effective()),
        Inheritable: sorted(sets.inheritable()),
        Permitted: sorted(sets.permitted()),
        Ambient: sorted(sets.ambient()),
        ..proto::LinuxCapabilities::default()
    }
}

#[allow(deprecated)] // Prestart hooks are deprecated, and still in use.
fn hooks(hooks: &oci::Hooks) -> proto::Hooks {
    let all = |hooks: &Option<Vec<oci::Hook>>| {
        each(hooks, |hook| proto::Hook {
            Path: path(hook.path()),
            Args: list(hook.args()),
            Env: list(hook.env()),
            Timeout: hook.timeout().unwrap_or_default(),
            ..proto::Hook::default()
        })
    };
    proto::Hooks {
        Prestart: all(hooks.prestart()),
        Poststart: all(hooks.poststart()),
        Poststop: all(hooks.poststop()),
        CreateRuntime: all(hooks.create_runtime()),
        CreateContainer: all(hooks.create_container()),
        StartContainer: all(hooks.start_container()),
        ..proto::Hooks::default()
    }
}

fn linux(linux: &oci::Linux) -> proto::Linux {
    proto::Linux {
        UIDMappings: each(linux.uid_mappings(), id_mapping),
        GIDMappings: each(linux.gid_mappings(), id_mapping),
        Sysctl: linux.sysctl().clone().unwrap_or_default(),
        Resources: linux.resources().as_ref().map(resources_to_proto).into(),
        CgroupsPath: linux.cgroups_path().as_deref().map(path).unwrap_or_default(),
        Namespaces: each(linux.namespaces(), |namespace| proto::LinuxNamespace {
            Type: word(&namespace.typ()),
            Path: namespace.path().as_deref().map(path).unwrap_or_default(),
            ..proto::LinuxNamespace::default()
        }),
        Devices: each(linux.devices(), device),
        Seccomp: linux.seccomp().as_ref().map(seccomp).into(),
        RootfsPropagation: text(linux.rootfs_propagation()),
        MaskedPaths: list(linux.masked_paths()),
        ReadonlyPaths: list(linux.readonly_paths()),
        MountLabel: text(linux.mount_label()),
        IntelRdt: linux.intel_rdt().as_ref().map(intel_rdt).into(),
        ..proto::Linux::default()
    }
}

fn id_mapping(mapping: &oci::LinuxIdMapping) -> proto::LinuxIDMapping {
    proto::LinuxIDMapping {
        HostID: mapping.host_id(),
        ContainerID: mapping.container_id(),
        Size: mapping.size(),
        ..proto::LinuxIDMapping::default()
    }
}

fn device(device: &oci::LinuxDevice) -> proto::LinuxDevice {
    proto::LinuxDevice {
        Path: path(device.path()),
        Type: word(&device.typ()),
        Major: device.major(),
        Minor: device.minor(),
        FileMode: device.file_mode().unwrap_or_default(),
        UID: device.uid().unwrap_or_default(),
        GID: device.gid().unwrap_or_default(),
        ..proto::LinuxDevice::default()
    }
}

fn intel_rdt(rdt: &oci::LinuxIntelRdt) -> proto::LinuxIntelRdt {
    proto::LinuxIntelRdt { L3CacheSchema: text(rdt.l3_cache_schema()), ..proto::LinuxIntelRdt::default() }
}

#[allow(deprecated)] // Kernel memory limits are deprecated; the protocol still carries them.
fn memory(memory: &oci::LinuxMemory) -> proto::LinuxMemory {
    proto::LinuxMemory {
        Limit: memory.limit().unwrap_or_default(),
        Reservation: memory.reservation().unwrap_or_default(),
        Swap: memory.swap().unwrap_or_default(),
        Kernel: memory.kernel().unwrap_or_default(),
        KernelTCP: memory.kernel_tcp().unwrap_or_default(),
        Swappiness: memory.swappiness().unwrap_or_default(),
        DisableOOMKiller: memory.disable_oom_killer().unwrap_or_default(),
        ..proto::LinuxMemory::default()
    }
}

fn cpu(cpu: &oci::LinuxCpu) -> proto::LinuxCPU {
    proto::LinuxCPU {
        Shares: cpu.shares().unwrap_or_default(),
        Quota: cpu.quota().unwrap_or_default(),
        Period: cpu.period().unwrap_or_default(),
        RealtimeRuntime: cpu.realtime_runtime().unwrap_or_default(),
        RealtimePeriod: cpu.realtime_period().unwrap_or_default(),
        Cpus: text(cpu.cpus()),
        Mems: text(cpu.mems()),
        ..proto::LinuxCPU::default()
    }
}

fn pids(pids: &oci::LinuxPids) -> proto::LinuxPids {
    proto::LinuxPids { Limit: pids.limit(), ..proto::LinuxPids::default() }
}

fn block_io(io: &oci::LinuxBlockIo) -> proto::LinuxBlockIO {
    let throttles = |rows: &Option<Vec<oci::LinuxThrottleDevice>>| {
        each(rows, |row| proto::LinuxThrottleDevice {
            Major: row.major(),
            Minor: row.minor(),
            Rate: row.rate(),
            ..proto::LinuxThrottleDevice::default()
        })
    };
    proto::LinuxBlockIO {
        Weight: io.weight().unwrap_or_default().into(),
        LeafWeight: io.leaf_weight().unwrap_or_default().into(),
        WeightDevice: each(io.weight_device(), |row| proto::LinuxWeightDevice {
            Major: row.major(),
            Minor: row.minor(),
            Weight: row.weight().unwrap_or_default().into(),
            LeafWeight: row.leaf_weight().unwrap_or_default().into(),
            ..proto::LinuxWeightDevice::default()
        }),
        ThrottleReadBpsDevice: throttles(io.throttle_read_bps_device()),
        ThrottleWriteBpsDevice: throttles(io.throttle_write_bps_device()),
        ThrottleReadIOPSDevice: throttles(io.throttle_read_iops_device()),
        ThrottleWriteIOPSDevice: throttles(io.throttle_write_iops_device()),
        ..proto::LinuxBlockIO::default()
    }
}

fn network(network: &oci::LinuxNetwork) -> proto::LinuxNetwork {
    proto::LinuxNetwork {
        ClassID: network.class_id().unwrap_or_default(),
        Priorities: each(network.priorities(), |row| proto::LinuxInterfacePriority {
            Name: row.name().clone(),
            Priority: row.priority(),
            ..proto::LinuxInterfacePriority::default()
        }),
        ..proto::LinuxNetwork::default()
    }
}
