//! The machine a configuration and a size ask for.

use std::path::PathBuf;

use osc_agent_protocol::names;

use super::{Request, error::SandboxError};
use crate::{
    config::GuestRoot,
    qemu::{Accelerator, Boot, Cpus, Memory, MemoryBackend, Nic, Root, SharedFs, VmSpec, kernel_command_line},
    spec::Size,
    vsock::Vsock,
};

/// Where huge pages are mounted by convention.
const HUGEPAGES: &str = "/dev/hugepages";

/// What is decided before the machine.
#[derive(Debug)]
pub(super) struct Parts {
    pub accelerator: Accelerator,
    pub size: Size,
    pub nics: Vec<Nic>,
    pub netns: Option<PathBuf>,
    pub share: SharedFs,
}

/// The specification of the machine of `request`.
pub(super) fn describe(request: &Request, vsock: &Vsock, parts: Parts) -> Result<VmSpec, SandboxError> {
    let hypervisor = &request.config.hypervisor;
    let size = parts.size;
    let cpus = Cpus { boot: size.vcpus, max: size.max_vcpus };
    let root = match &hypervisor.root {
        GuestRoot::Initrd(path) => Root::Initrd(path.clone()),
        GuestRoot::Image { path, .. } => Root::Image(path.clone()),
    };
    let backend = if hypervisor.hugepages { MemoryBackend::Hugepages(HUGEPAGES.into()) } else { MemoryBackend::Memfd };
    let linux = request.spec.process().as_ref().and_then(|process| process.selinux_label().clone());
    Ok(VmSpec {
        name: request.id.to_string(),
        dir: request.dirs.sandbox(&request.id),
        binary: hypervisor.path.clone(),
        accelerator: parts.accelerator,
        machine_accelerators: hypervisor.machine_accelerators.clone(),
        cpu_features: hypervisor.cpu_features.clone(),
        cpus,
        memory: Memory {
            boot: size.memory,
            max: size.max_memory,
            slots: u8::try_from(hypervisor.memory_slots).unwrap_or(u8::MAX),
            backend,
            prealloc: hypervisor.mem_prealloc,
        },
        boot: Boot {
            kernel: hypervisor.kernel.clone(),
            root,
            command_line: kernel_command_line(cpus, hypervisor.debug, &kernel_words(request)),
        },
        firmware: hypervisor.firmware.clone(),
        vsock: Some(vsock.device()?),
        share: Some(parts.share),
        nics: parts.nics,
        bridges: u8::try_from(hypervisor.bridges).unwrap_or(u8::MAX),
        entropy: Some(hypervisor.entropy_source.clone()),
        seccomp: hypervisor.seccomp_sandbox.clone(),
        netns: parts.netns,
        selinux_label: linux.filter(|label| !label.is_empty()),
        log_console: hypervisor.debug,
    })
}

/// Words of the kernel command line this runtime adds, the configured ones last so
/// that they win.
fn kernel_words(request: &Request) -> String {
    let config = &request.config;
    let agent = &config.agent;
    let mut words = Vec::new();
    if let GuestRoot::Image { fs, .. } = &config.hypervisor.root {
        words.push(format!("root=/dev/vda1 rootfstype={fs} ro"));
    }
    if agent.debug {
        words.push(format!("agent.log=debug agent.log_vport={}", agent.log_port));
    }
    if agent.debug_console {
        words.push(format!("agent.debug_console agent.debug_console_vport={}", names::DEBUG_CONSOLE_PORT));
    }
    if agent.container_pipe_size > 0 {
        words.push(format!("agent.container_pipe_size={}", agent.container_pipe_size));
    }
    if agent.server_port != names::AGENT_PORT {
        words.push(format!("agent.server_addr=vsock://-1:{}", agent.server_port));
    }
    words.push(config.hypervisor.kernel_params.clone());
    words.join(" ")
}
