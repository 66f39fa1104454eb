//! The vsock device under a real guest: QEMU in software emulation with the
//! guest image of `OSC_GUEST_DIR`, by default `target/guest` of this repository.
//!
//! `OSC_VSOCK_BOOTS` is how often the guest is booted while it is dialled
//! without patience, by default twice.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::support::guest;
use futures::future::join_all;
use osc_agent_protocol::{
    Kind,
    agent::CopyFileRequest,
    agent_ttrpc::AgentServiceClient,
    health::{CheckRequest, health_check_response::ServingStatus},
    health_ttrpc::HealthClient,
    names::{AGENT_PORT, GUEST_RUN_DIR},
};
use osc_runtime::{
    config::Mib,
    deadline::Deadline,
    qemu::{self, Accelerator, Boot, Cpus, Machine, Memory, MemoryBackend, Root, Running, VmSpec},
    vsock::{Address, Vsock, dial},
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use ttrpc::{
    asynchronous::{Client, transport::Socket},
    context,
};

/// Software emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn by() -> Deadline {
    Deadline::after(LIMIT)
}

async fn boot(guest: &Path, dir: &Path, vsock: &Vsock) -> Machine<Running> {
    let cpus = Cpus { boot: 1, max: 1 };
    let spec = VmSpec {
        name: "vsock".into(),
        dir: dir.into(),
        binary: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::TCG,
        machine_accelerators: String::new(),
        cpu_features: "pmu=off".into(),
        cpus,
        memory: Memory { boot: Mib(256), max: Mib(256), slots: 0, backend: MemoryBackend::Memfd, prealloc: false },
        boot: Boot {
            kernel: guest.join("vmlinux"),
            root: Root::Initrd(guest.join("initrd.img")),
            command_line: qemu::kernel_command_line(cpus, false, ""),
        },
        firmware: None,
        vsock: Some(vsock.device().unwrap()),
        share: None,
        nics: Vec::new(),
        bridges: 0,
        entropy: Some("/dev/urandom".into()),
        seccomp: String::new(),
        netns: None,
        selinux_label: None,
        log_console: false,
    };
    qemu::launch(spec, |_| Ok(())).await.unwrap().connect(by()).await.unwrap()
}

async fn client(vsock: &Vsock) -> Client {
    Client::new(Socket::new(vsock.connect(AGENT_PORT, by()).await.unwrap()))
}

async fn assert_serving(client: Client) {
    let answer = HealthClient::new(client).check(context::with_duration(LIMIT), &CheckRequest::new()).await.unwrap();
    assert_eq!(answer.status.enum_value(), Ok(ServingStatus::SERVING));
}

/// Gives up within milliseconds and dials again, until somebody answers.
async fn dial_without_patience(address: Address) {
    let patience = by();
    while dial(&address, Deadline::after(Duration::from_millis(3))).await.is_err() {
        assert!(!patience.passed(), "{address} never answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_dialled_from_its_first_moment_always_answers() {
    let guest = guest();
    let boots = std::env::var("OSC_VSOCK_BOOTS").map_or(2, |boots| boots.parse().unwrap());
    for boot_number in 0..boots {
        let dir = TempDir::new().unwrap();
        let vsock = Vsock::open(dir.path()).unwrap();
        let impatient: Vec<_> =
            (0..4).map(|_| tokio::spawn(dial_without_patience(vsock.address(AGENT_PORT)))).collect();
        let began = Instant::now();
        let machine = boot(&guest, dir.path(), &vsock).await;
        assert_serving(client(&vsock).await).await;
        println!("boot {boot_number}: answered after {:?}", began.elapsed());
        for dialler in impatient {
            dialler.await.unwrap();
        }
        machine.stop(by()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_many_large_and_survive_a_pause_but_not_the_machine() {
    let guest = guest();
    let temporary = TempDir::new().unwrap();
    // Socket paths longer than `sun_path`.
    let dir = temporary.path().join("d".repeat(120));
    std::fs::create_dir(&dir).unwrap();
    let vsock = Vsock::open(&dir).unwrap();
    let machine = boot(&guest, &dir, &vsock).await;

    let clients = join_all((0..100).map(|_| client(&vsock))).await;
    join_all(clients.iter().cloned().map(assert_serving)).await;
    copy_16_mib(&clients[0]).await;

    machine.pause(by()).await.unwrap();
    machine.resume(by()).await.unwrap();
    join_all(clients.into_iter().map(assert_serving)).await;

    let mut open = vsock.connect(AGENT_PORT, by()).await.unwrap();
    assert_eq!(vsock.connect(4, Deadline::after(Duration::from_millis(200))).await.unwrap_err().kind(), Kind::Timeout);
    machine.stop(by()).await.unwrap();
    assert_eq!(by().run(open.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    assert_eq!(vsock.connect(AGENT_PORT, by()).await.unwrap_err().kind(), Kind::Unavailable);
    drop(vsock);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

/// In pieces, because the agent takes no frame beyond 4 MiB.
async fn copy_16_mib(client: &Client) {
    const PIECE: usize = 2 << 20;
    let agent = AgentServiceClient::new(client.clone());
    let path = format!("{GUEST_RUN_DIR}/shared/containers/large");
    for piece in 0..8 {
        let request = CopyFileRequest {
            path: path.clone(),
            file_size: 8 * PIECE as i64,
            file_mode: 0o100_644,
            dir_mode: 0o755,
            offset: (piece * PIECE) as i64,
            data: vec![piece as u8; PIECE],
            ..Default::default()
        };
        agent.copy_file(context::with_duration(LIMIT), &request).await.unwrap();
    }
}
