//! What the guest is told of a specification.
//!
//! Much of what an engine writes is about the host: cgroups, namespaces, labels,
//! hooks. Passing it on would fail in the guest or tell it what it need not know.

use osc_agent_protocol::oci as proto;
use protobuf::MessageField;

use super::kind::PodKind;

/// What decides which parts go to the guest.
#[derive(Clone, Debug)]
pub struct GuestRules<'r> {
    /// What the container is.
    pub kind: &'r PodKind,
    /// Bundle directory on the host, told for diagnosis.
    pub bundle: &'r str,
    /// Where the root file system is in the guest.
    pub rootfs: String,
    /// Mounts as the guest is to make them, instead of those of the specification.
    pub mounts: Vec<proto::Mount>,
    /// Whether seccomp profiles apply in the guest: wanted by the configuration and known to
    /// the agent.
    pub seccomp: bool,
}

/// A specification for the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct ForGuest {
    /// The specification.
    pub spec: proto::Spec,
    /// Whether the container joins the pod's process namespace instead of having its own.
    pub sandbox_pidns: bool,
}

/// Annotations that would tell the guest its own policy or initial data.
const WITHHELD: [&str; 2] =
    ["io.katacontainers.config.agent.policy", "io.katacontainers.config.hypervisor.cc_init_data"];

/// Turns a converted specification into one for the guest.
pub fn for_guest(mut spec: proto::Spec, rules: GuestRules<'_>) -> ForGuest {
    // Prestart, createRuntime and poststop run on the host; the guest has its own.
    spec.Hooks = MessageField::none();
    spec.Mounts = rules.mounts;
    if let Some(root) = spec.Root.as_mut() {
        root.Path = rules.rootfs;
    }
    // The guest kernel has no SELinux policy that could know these labels.
    if let Some(process) = spec.Process.as_mut() {
        process.SelinuxLabel.clear();
    }
    let mut sandbox_pidns = false;
    if let Some(linux) = spec.Linux.as_mut() {
        linux.MountLabel.clear();
        if !rules.seccomp {
            linux.Seccomp = MessageField::none();
        }
        strip_resources(linux);
        sandbox_pidns = strip_namespaces(linux);
    }
    for name in WITHHELD {
        spec.Annotations.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        spec.Annotations.insert(format!("io.katacontainers.pkg.oci.{name}"), value.to_owned());
    };
    add("container_type", rules.kind.as_str());
    add("bundle_path", rules.bundle);
    ForGuest { spec, sandbox_pidns }
}

/// Keeps what limits a container inside its pod: CPU time and memory. Processors and memory
/// nodes are numbered differently in the guest, devices are other devices.
fn strip_resources(linux: &mut proto::Linux) {
    let Some(resources) = linux.Resources.as_mut() else { return };
    resources.Devices.clear();
    resources.Pids = MessageField::none();
    resources.BlockIO = MessageField::none();
    resources.Network = MessageField::none();
    if let Some(cpu) = resources.CPU.as_mut() {
        cpu.Cpus.clear();
        cpu.Mems.clear();
    }
}

/// Drops namespaces the guest makes or shares by itself and host paths of the rest; returns
/// whether the process namespace is the pod's.
fn strip_namespaces(linux: &mut proto::Linux) -> bool {
    let mut sandbox_pidns = false;
    linux.Namespaces.retain_mut(|namespace| match namespace.Type.as_str() {
        "network" | "cgroup" | "time" => false,
        "pid" => {
            sandbox_pidns = !namespace.Path.is_empty();
            false
        }
        _ => {
            namespace.Path.clear();
            true
        }
    });
    sandbox_pidns
}
