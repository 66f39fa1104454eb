//! Golden command lines, one argument a line.
//!
//! `OSC_REFRESH=1 cargo test -p osc-runtime` rewrites the golden files; read the diff.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::Path,
};

use nix::fcntl::{FcntlArg, fcntl};

use super::*;
use crate::{
    config::Mib,
    qemu::spec::{Accelerator, Boot, Cpus, Memory, MemoryBackend, Nic, Root, SharedFs},
};

/// Descriptors get numbers from here on, so that they are the same everywhere.
/// Each case has its own hundred: tests run at the same time.
#[derive(Clone, Copy)]
struct Numbers(i32);

impl Numbers {
    #[allow(unsafe_code)]
    fn next(&mut self) -> OwnedFd {
        use std::os::fd::FromRawFd;
        let any = File::open("/dev/null").unwrap();
        let number = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(self.0)).unwrap();
        assert_eq!(number, self.0, "number taken");
        self.0 += 1;
        // SAFETY: the number was made by the call above and is owned by nobody.
        unsafe { OwnedFd::from_raw_fd(number) }
    }
}

fn spec() -> VmSpec {
    VmSpec {
        name: "pod1".into(),
        dir: "/run/kata/pod1".into(),
        binary: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::TCG,
        machine_accelerators: String::new(),
        cpu_features: String::new(),
        cpus: Cpus { boot: 1, max: 1 },
        memory: Memory { boot: Mib(2048), max: Mib(2048), slots: 10, backend: MemoryBackend::Memfd, prealloc: false },
        boot: Boot {
            kernel: "/guest/vmlinux".into(),
            root: Root::Initrd("/guest/initrd.img".into()),
            command_line: "console=ttyS0 quiet".into(),
        },
        firmware: None,
        vsock: None,
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

fn channels(numbers: &mut Numbers) -> Channels {
    Channels { qmp: numbers.next(), console: numbers.next(), vsock: None, share: None }
}

fn golden(name: &str, spec: VmSpec, channels: Channels) {
    golden_preloaded(name, spec, channels, None);
}

fn golden_preloaded(name: &str, mut spec: VmSpec, channels: Channels, preloaded: Option<Preloaded>) {
    let line = CommandLine::build(&mut spec, channels, preloaded).unwrap();
    let mut found = String::new();
    for arg in &line.args {
        let separator = if arg.starts_with('-') && !found.is_empty() { "\n" } else { " " };
        found.push_str(separator);
        found.push_str(arg);
    }
    let found = found.trim_start().to_owned() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/qemu/command/golden").join(name);
    if std::env::var_os("OSC_REFRESH").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert!(want == found, "{} differs from:\n{found}", path.display());
}

#[test]
fn least() {
    let mut numbers = Numbers(700);
    golden("least.txt", spec(), channels(&mut numbers));
}

#[test]
fn pod_under_emulation() {
    let mut numbers = Numbers(720);
    let mut spec = spec();
    spec.cpu_features = "pmu=off".into();
    spec.cpus.max = 4;
    spec.memory.max = Mib(8192);
    spec.bridges = 2;
    spec.entropy = Some("/dev/urandom".into());
    spec.seccomp = "on,obsolete=deny".into();
    spec.share = Some(SharedFs { socket: "/unused".into(), tag: "kataShared".into(), queue_size: 1024 });
    spec.nics.push(Nic {
        id: "network-tap0_kata".into(),
        taps: vec![numbers.next()],
        vhosts: Vec::new(),
        mac: [2, 0, 0, 0, 0, 0xff],
        mtu: Some(1450),
    });
    let channels = Channels {
        vsock: Some(VsockLink::User(numbers.next())),
        share: Some(numbers.next()),
        ..channels(&mut numbers)
    };
    let preloaded = Preloaded { memory: numbers.next().into(), stub: numbers.next().into() };
    golden_preloaded("emulated.txt", spec, channels, Some(preloaded));
}

#[test]
fn pod_under_kvm_with_everything_else() {
    let mut numbers = Numbers(740);
    let mut spec = spec();
    spec.accelerator = Accelerator::Kvm;
    spec.machine_accelerators = "nvdimm=on".into();
    spec.cpu_features = "pmu=off".into();
    spec.memory.backend = MemoryBackend::Hugepages("/dev/hugepages".into());
    spec.memory.prealloc = true;
    spec.boot.root = Root::Image("/guest/with,comma.img".into());
    spec.firmware = Some("/fw/bios.bin".into());
    spec.nics.push(Nic {
        id: "network-tap0_kata".into(),
        taps: vec![numbers.next(), numbers.next()],
        vhosts: vec![numbers.next(), numbers.next()],
        mac: [2, 0, 0, 0, 0, 1],
        mtu: None,
    });
    let vsock = Some(VsockLink::Kernel { fd: numbers.next(), cid: 7 });
    golden("kvm.txt", spec, Channels { vsock, ..channels(&mut numbers) });
}

#[test]
fn a_path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let mut spec = spec();
    spec.boot.kernel = std::ffi::OsStr::from_bytes(b"/guest/\xff").into();
    let error = CommandLine::build(&mut spec, channels(&mut Numbers(760)), None).unwrap_err();
    assert!(matches!(error, BootError::Path(_)), "{error}");
}
