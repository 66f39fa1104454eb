//! Limits and statistics. What needs controllers of the unified hierarchy, which
//! guests have and this machine may not, is tested in a sandbox (`e2e_pod`).

use std::time::Duration;

use osc_agent_protocol::oci;

use crate::support::{Place, block_on, read_until};

const SOON: Option<Duration> = Some(Duration::from_secs(10));

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
