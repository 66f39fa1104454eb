//! Whatever is wrong, a start ends in time with one error that names the thing
//! and the cure, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, path::Path, process::Command, time::Duration};

use osc_testkit::{
    command, guest,
    host::{Host, built},
};

/// Every failing start is over by then: boot, agent and clean-up deadlines together.
const DEADLINE: Duration = Duration::from_secs(75);

/// Starts a sandbox that cannot start and checks what is said about it.
#[track_caller]
fn refused(host: &Host, options: &[&str], words: &[&str]) {
    let idle = host.snapshot();
    let id = host.name();
    let outcome = command::run(host.run_command(&id, options, &["true"]), b"", DEADLINE);
    assert_ne!(outcome.code, 0);
    for word in words {
        assert!(outcome.errors().contains(word), "no {word:?} in: {}", outcome.errors());
    }
    host.ctr(&["tasks", "delete", "--force", &id]);
    host.ctr(&["containers", "delete", &id]);
    idle.nothing_new(&host.root, Duration::from_secs(10));
}

/// Writes a drop-in beside the configuration.
fn drop_in(host: &Host, text: &str) {
    let dir = host.configuration().with_file_name("config.d");
    fs::write(dir.join("50-test.toml"), text).unwrap();
}

fn qemu(host: &Host, line: &str) {
    drop_in(host, &format!("[hypervisor.qemu]\n{line}\n"));
}

fn path(key: &str, file: &Path) -> String {
    format!("{key} = {:?}", file.to_str().unwrap())
}

#[test]
fn parts_that_are_missing_or_refuse_are_named() {
    let host = Host::start();
    qemu(&host, "kernel = \"/nowhere/vmlinux\"");
    refused(&host, &[], &["/nowhere/vmlinux", "kernel"]);
    qemu(&host, "path = \"/nowhere/qemu\"");
    refused(&host, &[], &["/nowhere/qemu"]);
    qemu(&host, "virtio_fs_daemon = \"/nowhere/virtiofsd\"");
    refused(&host, &[], &["/nowhere/virtiofsd"]);
    qemu(&host, "cpu_features = \"no-such-feature=on\"");
    refused(&host, &[], &["no-such-feature"]);
    fs::remove_file(host.configuration().with_file_name("config.d").join("50-test.toml")).unwrap();
    assert_eq!(host.run(&[], &["true"]).code, 0);
    host.end();
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    let host = Host::start();
    drop_in(
        &host,
        "[hypervisor.qemu]\ndefault_memory = \"lots\"\nno_such_key = 1\n[runtime]\ninternetworking_model = \"wire\"\n",
    );
    refused(&host, &[], &["default_memory", "no_such_key", "internetworking_model", "tcfilter"]);
    drop_in(&host, "[hypervisor.qemu\n");
    refused(&host, &[], &["50-test.toml"]);
    host.end();
}

#[test]
fn annotations_are_checked() {
    let host = Host::start();
    let annotation = |name: &str, value: &str| format!("io.katacontainers.config.hypervisor.{name}={value}");
    refused(&host, &["--annotation", &annotation("cpu_features", "pmu=off")], &["cpu_features", "enable_annotations"]);
    refused(&host, &["--annotation", &annotation("default_memory", "much")], &["default_memory", "much"]);
    qemu(&host, "enable_annotations = [\"cpu_features\"]");
    assert_eq!(host.run(&["--annotation", &annotation("cpu_features", "pmu=off")], &["true"]).code, 0);
    host.end();
}

#[test]
fn a_guest_that_does_not_come_up_shows_its_console() {
    let host = Host::start();
    let broken = host.root.join("broken.img");
    fs::write(&broken, vec![0x5a; 1 << 20]).unwrap();
    qemu(&host, &path("initrd", &broken));
    refused(&host, &[], &["Kernel panic"]);

    let silent =
        guest::initrd_with_init(b"#!/bin/sh\necho nobody is at home\nexec /bin/busybox sleep 100000\n", &host.root);
    drop_in(&host, &format!("[hypervisor.qemu]\n{}\n[agent.kata]\ndial_timeout = 8\n", path("initrd", &silent)));
    refused(&host, &[], &["agent", "nobody is at home"]);
    host.end();
}

#[test]
fn an_agent_that_answers_rubbish_is_given_up() {
    let host = Host::start();
    let agent = guest::fixture("rubbish_agent", &host.root);
    let initrd = guest::initrd_with_init(&agent, &host.root);
    for kind in ["noise", "frame"] {
        let lines = format!("{}\nkernel_params = \"rubbish={kind}\"", path("initrd", &initrd));
        drop_in(
            &host,
            &format!("[hypervisor.qemu]\n{lines}\n[agent.kata]\ndial_timeout = 10\nrequest_timeout_ms = 8000\n"),
        );
        refused(&host, &[], &["agent"]);
    }
    host.end();
}

#[test]
fn a_full_disk_is_named() {
    let host = Host::start();
    let dir = host.root.join("run/kata");
    fs::create_dir_all(&dir).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "none"]).arg(&dir).status();
    assert!(mount.unwrap().success());
    refused(&host, &[], &["No space left", "run/kata"]);
    assert!(Command::new("umount").arg(&dir).status().unwrap().success());
    assert_eq!(host.run(&[], &["true"]).code, 0);
    host.end();
}

#[test]
fn a_root_file_system_that_vanishes_is_named_and_deletable() {
    let host = Host::start();
    let rootfs = host.root.join("rootfs");
    let shim = built("target/release/containerd-shim-kata-v2");
    let id = host.name();
    let idle = host.snapshot();
    let mut command = host.ctr_command(&["run", "--runtime", shim.to_str().unwrap(), "--runtime-config-path"]);
    command.arg(host.configuration()).args(["--rootfs", rootfs.to_str().unwrap(), &id, "true"]);
    let outcome = command::run(command, b"", DEADLINE);
    assert_ne!(outcome.code, 0);
    assert!(outcome.errors().contains(rootfs.to_str().unwrap()), "{}", outcome.errors());
    host.ctr(&["containers", "delete", &id]);
    idle.nothing_new(&host.root, Duration::from_secs(10));
    host.end();
}
