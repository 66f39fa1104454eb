//! Real machines: QEMU in software emulation with the guest image of
//! `OSC_GUEST_DIR`, by default `target/guest` of this repository.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::{fs, os::fd::OwnedFd, path::Path, process::Command, time::Duration};

use crate::support::guest;
use osc_agent_protocol::Kind;
use osc_runtime::{
    config::Mib,
    deadline::Deadline,
    qemu::{
        self, Accelerator, Boot, BootError, Cpus, Disk, Exit, HotplugError, Machine, Memory, MemoryBackend, Nic, Root,
        RunState, Running, VmSpec,
    },
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::UnixStream};

/// Software emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn by() -> Deadline {
    Deadline::after(LIMIT)
}

/// A first process that does what the console says, line by line.
const SHELL: &str = "panic=-1 rdinit=/bin/busybox -- sh -c \
    \"mount -t proc none /proc; mount -t sysfs none /sys; stty -echo; echo ready; while read -r l; do eval $l; done\"";

/// A machine whose first process is a shell on the console.
fn spec(guest: &Path, dir: &Path) -> VmSpec {
    let cpus = Cpus { boot: 1, max: 2 };
    VmSpec {
        name: "test".into(),
        dir: dir.into(),
        binary: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::TCG,
        machine_accelerators: String::new(),
        cpu_features: "pmu=off".into(),
        cpus,
        memory: Memory { boot: Mib(256), max: Mib(1024), slots: 2, backend: MemoryBackend::Memfd, prealloc: false },
        boot: Boot {
            kernel: guest.join("vmlinux"),
            root: Root::Initrd(guest.join("initrd.img")),
            command_line: qemu::kernel_command_line(cpus, false, SHELL),
        },
        firmware: None,
        vsock: None,
        share: None,
        nics: Vec::new(),
        bridges: 2,
        entropy: Some("/dev/urandom".into()),
        seccomp: "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
        netns: None,
        selinux_label: None,
        log_console: false,
    }
}

async fn boot(spec: VmSpec) -> Machine<Running> {
    qemu::launch(spec, |_| Ok(())).await.unwrap().connect(by()).await.unwrap()
}

/// Types into the guest's console.
struct Shell {
    console: UnixStream,
    tail: osc_runtime::lines::Tail,
    commands: u32,
}

impl Shell {
    async fn of(machine: &Machine<Running>, dir: &Path) -> Self {
        let console = UnixStream::connect(dir.join("console.sock")).await.unwrap();
        let tail = machine.console();
        by().run(tail.wait_for("ready")).await.unwrap();
        Self { console, tail, commands: 0 }
    }

    /// Output of a command.
    async fn run(&mut self, command: &str) -> String {
        self.commands += 1;
        let number = self.commands;
        let (begin, end) = (format!("begin-{number}"), format!("end-{number}"));
        let line = format!("echo {begin}; {command}; echo {end}\n");
        self.console.write_all(line.as_bytes()).await.unwrap();
        if by().run(self.tail.wait_for(&end)).await.is_err() {
            panic!("no answer to {command}: {:#?}", self.tail.lines());
        }
        let lines = self.tail.lines();
        let from = lines.iter().rposition(|line| *line == begin).unwrap_or_else(|| panic!("{lines:#?}"));
        lines[from + 1..].iter().take_while(|line| **line != end).cloned().collect::<Vec<_>>().join("\n")
    }

    /// Repeats a command until its output is as wanted.
    async fn until(&mut self, command: &str, want: &str) {
        let patience = by();
        loop {
            let found = self.run(command).await;
            if found == want {
                return;
            }
            assert!(!patience.passed(), "{command}: {found:?}, not {want:?}");
        }
    }
}

#[tokio::test]
async fn a_machine_runs_pauses_and_ends_without_a_trace() {
    let guest = guest();
    let temporary = TempDir::new().unwrap();
    // Socket paths longer than `sun_path`.
    let dir = temporary.path().join("d".repeat(120));
    fs::create_dir(&dir).unwrap();
    let placed = std::sync::Arc::new(std::sync::atomic::AtomicI32::new(0));
    let seen = placed.clone();
    let place = move |pid| {
        seen.store(pid, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    let machine = qemu::launch(spec(&guest, &dir), place).await.unwrap().connect(by()).await.unwrap();
    let pid = machine.pid();
    assert_eq!(placed.load(std::sync::atomic::Ordering::Relaxed), pid);
    assert_eq!(fs::read_to_string(dir.join("pid")).unwrap().trim(), pid.to_string());
    for _ in 0..2 {
        assert_eq!(machine.status(by()).await.unwrap(), RunState::Running);
        machine.pause(by()).await.unwrap();
        assert_eq!(machine.status(by()).await.unwrap(), RunState::Paused);
        machine.resume(by()).await.unwrap();
    }
    let exited = machine.exited();
    assert_eq!(machine.stop(by()).await.unwrap(), Exit::Signal(9));
    assert_eq!(*exited.borrow(), Some(Exit::Signal(9)));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[tokio::test]
async fn a_dying_guest_is_noticed_and_leaves_its_last_words() {
    let guest = guest();
    let dir = TempDir::new().unwrap();
    let mut spec = spec(&guest, dir.path());
    spec.boot.command_line = qemu::kernel_command_line(spec.cpus, false, "panic=-1 rdinit=/bin/busybox -- true");
    let machine = boot(spec).await;
    let mut exited = machine.exited();
    by().run(exited.wait_for(Option::is_some)).await.unwrap().unwrap();
    let lines = machine.console().lines();
    assert!(lines.iter().any(|line| line.contains("Attempted to kill init! exitcode=0x00000000")), "{lines:#?}");
    assert_eq!(machine.status(by()).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(machine.stop(by()).await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn a_refused_option_is_shown_with_what_qemu_says() {
    let guest = guest();
    let dir = TempDir::new().unwrap();
    let mut spec = spec(&guest, dir.path());
    spec.cpu_features = "no-such-feature=on".into();
    let spawned = qemu::launch(spec, |_| Ok(())).await.unwrap();
    let pid = spawned.pid();
    let error = spawned.connect(by()).await.unwrap_err();
    let BootError::Ended { exit: Exit::Code(1), evidence, .. } = &error else { panic!("{error}") };
    assert!(evidence.stderr.iter().any(|line| line.contains("no-such-feature")), "{error}");
    assert!(error.to_string().contains("cpu_features"), "{error}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn missing_files_are_named_before_anything_starts() {
    let guest = guest();
    let dir = TempDir::new().unwrap();
    type Change = fn(&mut VmSpec);
    let change: [(&str, Change); 3] = [
        ("guest kernel /no/kernel", |spec| spec.boot.kernel = "/no/kernel".into()),
        ("guest root /no/root", |spec| spec.boot.root = Root::Initrd("/no/root".into())),
        ("QEMU /no/qemu", |spec| spec.binary = "/no/qemu".into()),
    ];
    for (want, change) in change {
        let mut spec = spec(&guest, dir.path());
        change(&mut spec);
        let error = qemu::launch(spec, |_| Ok(())).await.unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{want}");
    }
}

#[tokio::test]
async fn processors_and_memory_arrive_in_the_guest() {
    let guest = guest();
    let dir = TempDir::new().unwrap();
    let mut machine = boot(spec(&guest, dir.path())).await;
    let mut shell = Shell::of(&machine, dir.path()).await;
    assert_eq!(shell.run("ls -d /sys/devices/system/cpu/cpu[0-9]*").await.lines().count(), 1);
    let blocks = "ls -d /sys/devices/system/memory/memory* | wc -l";
    assert_eq!(shell.run(blocks).await, "2");

    assert_eq!(machine.add_cpus(1, by()).await.unwrap(), 2);
    let more = machine.add_cpus(1, by()).await.unwrap_err();
    assert!(matches!(more, HotplugError::Cpus { wanted: 1, left: 0 }), "{more}");
    shell.until("ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l", "2").await;
    shell.run("echo 1 > /sys/devices/system/cpu/cpu1/online").await;
    shell.until("cat /sys/devices/system/cpu/online", "0-1").await;

    assert_eq!(machine.add_memory(Mib(100), by()).await.unwrap(), Mib(128));
    assert_eq!(machine.add_memory(Mib(4096), by()).await.unwrap(), Mib(640));
    assert_eq!(machine.memory(), Mib(1024));
    let more = machine.add_memory(Mib(1), by()).await.unwrap_err();
    assert!(matches!(more, HotplugError::Memory { left: Mib(0), slots: 0, .. }), "{more}");
    shell.until(blocks, "8").await;

    assert_eq!(machine.remove_cpus(1, by()).await.unwrap(), 2, "emulated processors stay");
    assert_eq!(machine.status(by()).await.unwrap(), RunState::Running);
    machine.stop(by()).await.unwrap();
}

#[tokio::test]
async fn devices_come_and_go_where_they_are_said_to_be() {
    let guest = guest();
    let dir = TempDir::new().unwrap();
    let mut machine = boot(spec(&guest, dir.path())).await;
    let mut shell = Shell::of(&machine, dir.path()).await;

    let image = dir.path().join("disk.img");
    fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let disk = Disk { id: "drive-0".into(), path: image, read_only: false, direct: false };
    let path = machine.add_disk(disk.clone(), by()).await.unwrap();
    assert_eq!(path.to_string(), "02/01");
    let again = machine.add_disk(disk.clone(), by()).await.unwrap_err();
    assert!(matches!(again, HotplugError::Present(_)), "{again}");

    let path = machine.add_nic(nic(), by()).await.unwrap();
    assert_eq!(path.to_string(), "02/02");

    // Class codes by bridge slot and device slot, as the paths say.
    let classes = "for slot in 1 2; do cat /sys/devices/pci0000:00/0000:00:02.0/*:0$slot.0/class; done";
    shell.until(classes, "0x010000\n0x020000").await;

    for id in ["drive-0", "network-tap9_kata"] {
        machine.remove(id, by()).await.unwrap();
        let again = machine.remove(id, by()).await.unwrap_err();
        assert!(matches!(again, HotplugError::Absent(_)), "{again}");
    }
    shell.until("ls -d /sys/devices/pci0000:00/0000:00:02.0/*:0?.0 2>/dev/null | wc -l", "0").await;

    let missing = Disk { path: "/no/disk".into(), ..disk.clone() };
    let error = machine.add_disk(missing, by()).await.unwrap_err();
    assert!(matches!(error, HotplugError::Qmp { .. }), "{error}");
    assert_eq!(machine.add_disk(disk, by()).await.unwrap().to_string(), "02/01", "the failed one left nothing");
    machine.stop(by()).await.unwrap();
}

/// A card on a tap device of a network namespace that is gone by now.
fn nic() -> Nic {
    let name = format!("qemu-nic-{}", std::process::id());
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success());
    ip(&["netns", "add", &name]);
    let namespace = fs::File::open(format!("/run/netns/{name}")).unwrap();
    let tap = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        open_tap()
    });
    let tap = tap.join().unwrap();
    ip(&["netns", "delete", &name]);
    Nic {
        id: "network-tap9_kata".into(),
        taps: vec![tap],
        vhosts: Vec::new(),
        mac: [2, 0, 0, 0, 0, 9],
        mtu: Some(1400),
    }
}

#[allow(unsafe_code)]
fn open_tap() -> OwnedFd {
    nix::ioctl_write_int!(tun_set_iff, b'T', 202);
    let tun = fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    request[..9].copy_from_slice(b"tap9_kata");
    // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
    request[16..18].copy_from_slice(&0x5002_u16.to_ne_bytes());
    // SAFETY: the request is a `struct ifreq` of 40 bytes that outlives the call.
    unsafe { tun_set_iff(std::os::fd::AsRawFd::as_raw_fd(&tun), request.as_ptr() as u64) }.unwrap();
    tun.into()
}
