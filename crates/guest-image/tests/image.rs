//! Builds the real image from the distribution's packages, twice, and boots it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use osc_guest_image::{DEFAULT_KERNEL_PACKAGE, INITRD, KERNEL, MANIFEST, Manifest, Recipe, build};

/// Emulated boots take about three seconds; machines under load take longer.
const BOOT: Duration = Duration::from_secs(120);

#[test]
fn an_image_is_reproducible_and_boots() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        agent: static_agent(dir.path()),
        kernel_package: DEFAULT_KERNEL_PACKAGE.to_owned(),
        extra_modules: vec!["wireguard".to_owned()],
        // Shared by test runs, so that the mirror is asked once.
        cache: Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages"),
    };
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    for out in [&first, &second] {
        let manifest = build(&recipe, out, &|step| eprintln!("{step}")).unwrap();
        manifest.verify(out).unwrap();
        assert_eq!(Manifest::read(out).unwrap(), manifest);
        assert_eq!(manifest.agent.version.as_deref(), Some("test-agent 1.0"));
        assert!(manifest.on_demand_modules.contains(&"wireguard".to_owned()));
    }
    for file in [KERNEL, INITRD, MANIFEST] {
        let same = fs::read(first.join(file)).unwrap() == fs::read(second.join(file)).unwrap();
        assert!(same, "{file} differs between two builds");
    }

    let console = boot(&first);
    let loaded: Vec<&str> = console.lines().filter_map(|line| line.trim().strip_prefix("LOADED ")).collect();
    for module in Manifest::read(&first).unwrap().boot_modules.iter().map(String::as_str) {
        assert!(loaded.contains(&module), "{module} is not loaded:\n{console}");
    }
    for module in ["virtio_blk", "nft_compat", "dummy"] {
        assert!(loaded.contains(&module), "{module} did not load on demand:\n{console}");
    }
    assert!(!console.contains("FAILED"), "{console}");
}

/// Compiles the program beside this file the way the agent is built.
fn static_agent(dir: &Path) -> PathBuf {
    let out = dir.join("agent");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/main.rs");
    let mut compile = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    compile.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=s", "-C", "strip=symbols"]);
    let status = compile.arg("-o").arg(&out).arg(&source).status().unwrap();
    assert!(status.success());
    out
}

/// Boots the image until it powers off; what it wrote on its console.
fn boot(image: &Path) -> String {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512M", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1 reboot=t"])
        .arg("-kernel")
        .arg(image.join(KERNEL))
        .arg("-initrd")
        .arg(image.join(INITRD))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = qemu.stdout.take().unwrap();
    let (send, receive) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut console = Vec::new();
        let _ = stdout.read_to_end(&mut console);
        let _ = send.send(String::from_utf8_lossy(&console).into_owned());
    });
    let console = receive.recv_timeout(BOOT);
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    let console = console.expect("the guest did not power off in time");
    assert!(console.contains("GUEST-DONE"), "the guest did not get far:\n{console}");
    eprintln!("{console}");
    console
}
