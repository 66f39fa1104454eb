//! Many sandboxes at once, and many one after another.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, thread, time::Duration};

use osc_testkit::{
    command,
    host::{Host, LIMIT},
    processes,
};

#[test]
fn twenty_pods_started_at_once_all_run() {
    let host = Host::start();
    let idle = host.snapshot();
    // Twenty boots share two emulated cores.
    let limit = Duration::from_secs(300);
    let ids: Vec<String> = (0..20).map(|_| host.name()).collect();
    thread::scope(|scope| {
        for id in &ids {
            let start = host.run_command(id, &["--detach"], &["sleep", "100000"]);
            scope.spawn(move || command::run(start, b"", limit).ok());
        }
    });
    let listed = host.ctr(&["tasks", "list"]).ok().text();
    assert_eq!(listed.matches("RUNNING").count(), 20, "{listed}");
    assert_eq!(processes::of_sandboxes(&["qemu-system", host.root.to_str().unwrap()]).len(), 20);
    for id in &ids {
        host.delete(id);
    }
    idle.nothing_new(&host.root, LIMIT);
    host.end();
}

/// Descriptors, threads and memory of the engine, which outlives all sandboxes.
fn engine_size(host: &Host) -> (usize, u64) {
    let engine = processes::with(&["containerd", host.root.to_str().unwrap(), "--config"]).remove(0);
    let descriptors = fs::read_dir(format!("/proc/{}/fd", engine.pid)).unwrap().count();
    (descriptors, processes::pss_kib(engine.pid).unwrap())
}

#[test]
fn a_hundred_cycles_leave_nothing_and_nothing_grows() {
    let host = Host::start();
    host.run(&[], &["true"]).ok();
    let idle = host.snapshot();
    let (descriptors, _) = engine_size(&host);
    for round in 0..50 {
        // Two at a time: the machine has two cores.
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(host.run(&[], &["sh", "-c", "exit 3"]).code, 3, "round {round}"));
            }
        });
    }
    idle.nothing_new(&host.root, Duration::from_secs(10));
    let (after, _) = engine_size(&host);
    assert!(after <= descriptors + 4, "engine descriptors grew from {descriptors} to {after}");
    host.end();
}
