//! Stands in for the agent: as init of a guest it shows that the image boots
//! and that modules load the three ways they do in a sandbox, then powers off.

use std::{fs, process::Command};

fn main() {
    if std::env::args().any(|argument| argument == "--version") {
        println!("test-agent 1.0");
        return;
    }
    run("mount", &["-t", "proc", "proc", "/proc"]);
    run("mount", &["-t", "sysfs", "sysfs", "/sys"]);
    let list = fs::read_to_string("/lib/modules/boot.list").expect("the image has a boot list");
    for module in list.lines() {
        run("insmod", &[module]);
    }
    // By name, compressed and with a dependency; then by the kernel's request.
    run("modprobe", &["virtio_blk"]);
    run("modprobe", &["nft_compat"]);
    run("ip", &["link", "add", "link0", "type", "dummy"]);
    let loaded = fs::read_to_string("/proc/modules").expect("proc is mounted");
    for line in loaded.lines() {
        println!("LOADED {}", line.split(' ').next().unwrap_or_default());
    }
    let memory = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
    for line in memory.lines().take(3) {
        println!("MEMORY {line}");
    }
    println!("UPTIME {}", fs::read_to_string("/proc/uptime").expect("proc is mounted").trim());
    println!("GUEST-DONE");
    run("poweroff", &["-f"]);
}

fn run(applet: &str, arguments: &[&str]) {
    match Command::new("/bin/busybox").arg(applet).args(arguments).status() {
        Ok(status) if status.success() => {}
        other => println!("FAILED {applet} {arguments:?}: {other:?}"),
    }
}
