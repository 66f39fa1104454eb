//! The same kernel and initial RAM file system as a sandbox, without one: what
//! everything else is measured against.

use std::time::{Duration, Instant};

use osc_agent_protocol::{health::CheckRequest, health_ttrpc::HealthClient, names};
use osc_runtime::{
    config::Mib,
    deadline::Deadline,
    qemu::{self, Accelerator, Boot, Cpus, Memory, MemoryBackend, Root, VmSpec},
    vsock::Vsock,
};
use tempfile::TempDir;
use ttrpc::{
    asynchronous::{Client, transport::Socket},
    context,
};

use crate::host::built;

const LIMIT: Duration = Duration::from_secs(60);

/// Boots a bare machine and tells how long it took until its agent answered.
pub async fn boot_to_agent_ready() -> Duration {
    let dir = TempDir::new().unwrap();
    let by = Deadline::after(LIMIT);
    let began = Instant::now();
    let vsock = Vsock::open(dir.path()).unwrap();
    let machine = qemu::launch(spec(&dir, &vsock), |_| Ok(())).await.unwrap().connect(by).await.unwrap();
    let stream = vsock.connect(names::AGENT_PORT, by).await.unwrap();
    let health = HealthClient::new(Client::new(Socket::new(stream)));
    health.check(context::with_duration(LIMIT), &CheckRequest::new()).await.unwrap();
    let took = began.elapsed();
    machine.stop(by).await.unwrap();
    took
}

fn spec(dir: &TempDir, vsock: &Vsock) -> VmSpec {
    let cpus = Cpus { boot: 1, max: 1 };
    VmSpec {
        name: "bare".into(),
        dir: dir.path().into(),
        binary: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::TCG,
        machine_accelerators: String::new(),
        cpu_features: "pmu=off".into(),
        cpus,
        memory: Memory { boot: Mib(2048), max: Mib(2048), slots: 0, backend: MemoryBackend::Memfd, prealloc: false },
        boot: Boot {
            kernel: built("target/guest/vmlinux"),
            root: Root::Initrd(built("target/guest/initrd.img")),
            command_line: qemu::kernel_command_line(cpus, false, ""),
        },
        firmware: None,
        vsock: Some(vsock.device().unwrap()),
        share: None,
        nics: Vec::new(),
        bridges: 0,
        entropy: None,
        seccomp: String::new(),
        netns: None,
        selinux_label: None,
        log_console: false,
    }
}
