//! Limits and statistics. What needs controllers of the unified hierarchy is
//! only checked where the machine has them there, as guests do.

use std::{fs, path::Path, time::Duration};

use osc_agent_protocol::oci;
use tokio::sync::mpsc;

use crate::support::{Place, block_on, read_until};

const SOON: Option<Duration> = Some(Duration::from_secs(10));

/// Whether the unified hierarchy has the memory controller; says so if not.
fn controllers_here() -> bool {
    let here = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|list| list.contains("memory"));
    if !here {
        eprintln!("skipped: no memory controller in the unified hierarchy of this machine");
    }
    here
}

fn limits(memory: i64, pids: i64) -> oci::LinuxResources {
    oci::LinuxResources {
        Memory: Some(oci::LinuxMemory { Limit: memory, ..oci::LinuxMemory::default() }).into(),
        CPU: Some(oci::LinuxCPU { Shares: 512, Quota: 50_000, Period: 100_000, ..oci::LinuxCPU::default() }).into(),
        Pids: Some(oci::LinuxPids { Limit: pids, ..oci::LinuxPids::default() }).into(),
        ..oci::LinuxResources::default()
    }
}

#[test]
fn time_used_is_counted() {
    block_on(async {
        let place = Place::new();
        let script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo done; read x";
        let container = place.start("c", place.spec(&["sh", "-c", script])).await;
        read_until(&container, "", "done").await;
        let stats = container.stats().unwrap();
        assert!(stats.cgroup_stats.cpu_stats.cpu_usage.total_usage > 1_000_000, "{stats:?}");
        assert_eq!(container.pids().unwrap(), [container.pid()]);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn limits_without_their_controller_do_not_keep_a_container_from_running() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["true"]);
        spec.Linux.mut_or_insert_default().Resources = Some(limits(64 << 20, 100)).into();
        place.run(spec).await.ok();
    });
}

#[test]
fn limits_are_set_and_can_be_changed() {
    if !controllers_here() {
        return;
    }
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sleep", "1000"]);
        spec.Linux.mut_or_insert_default().Resources = Some(limits(64 << 20, 100)).into();
        let container = place.start("c", spec).await;
        let dir = container.cgroup().dir().unwrap();
        let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
        let seen = ["memory.max", "pids.max", "cpu.max", "cpu.weight"].map(|file| read(dir, file));
        assert_eq!(seen, ["67108864", "100", "50000 100000", "20"]);
        container.update(&limits(32 << 20, -1)).unwrap();
        assert_eq!(["memory.max", "pids.max"].map(|file| read(dir, file)), ["33554432", "max"]);
        let stats = container.stats().unwrap();
        assert_eq!(stats.cgroup_stats.memory_stats.usage.limit, 32 << 20);
        assert!(stats.cgroup_stats.memory_stats.usage.usage > 0);
        assert_eq!(stats.cgroup_stats.pids_stats.current, 1);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn want_of_memory_is_reported() {
    if !controllers_here() {
        return;
    }
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sh", "-c", "read x; tail -c 200m /dev/zero; sleep 1000"]);
        spec.Linux.mut_or_insert_default().Resources = Some(limits(32 << 20, 0)).into();
        let container = place.start("c", spec).await;
        let (sender, mut events) = mpsc::channel(4);
        container.watch_oom(sender);
        container.write_stdin("", b"go\n").await.unwrap();
        assert_eq!(events.recv().await.unwrap(), "c");
        container.remove(SOON).await.unwrap();
    });
}

fn device_rule(allow: bool, kind: &str, major: i64, minor: i64) -> oci::LinuxDeviceCgroup {
    oci::LinuxDeviceCgroup {
        Allow: allow,
        Type: kind.into(),
        Major: major,
        Minor: minor,
        Access: "rwm".into(),
        ..oci::LinuxDeviceCgroup::default()
    }
}

#[test]
fn device_rules_are_enforced_when_there_are_any() {
    block_on(async {
        let place = Place::new();
        // Opened for writing only, the kernel log asks for no capability.
        let script = "mknod /dev/msg c 1 11; true > /dev/msg; head -c 1 /dev/zero | wc -c";
        let free = place.sh(script).await;
        assert_eq!((free.stdout.as_str(), free.stderr.as_str()), ("1\n", ""));
        for (rule, denied) in [(device_rule(true, "c", 1, 11), false), (device_rule(true, "c", 1, 12), true)] {
            let mut spec = place.spec(&["sh", "-c", script]);
            let resources = spec.Linux.mut_or_insert_default().Resources.mut_or_insert_default();
            resources.Devices = vec![device_rule(false, "a", -1, -1), rule];
            let got = place.run(spec).await;
            assert_eq!(got.stdout, "1\n");
            assert_eq!(got.stderr.contains("Operation not permitted"), denied, "{got:?}");
        }
    });
}
