//! Whatever dies, the engine learns of it, `delete` succeeds and nothing is left.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod templates;

use std::{thread, time::Duration};

use osc_testkit::{
    command::{self, until},
    host::{Host, LIMIT},
    leftovers::Snapshot,
    pod::Pod,
    processes::{self, kill_9},
};

/// On the shim's own command line, and not on that of a client that asks for it.
const SHIM: &str = "containerd-shim-kata-v2 -namespace";

fn stopped(host: &Host, id: &str) -> bool {
    let list = host.ctr(&["tasks", "list"]).text();
    !list.lines().any(|line| line.starts_with(id) && line.contains("RUNNING"))
}

/// Processes of one sandbox with `word` on the command line. The short-lived one that
/// starts the shim is the engine's: who kills it takes the engine's answer away.
fn of_sandbox(host: &Host, word: &str) -> Vec<i32> {
    let all = processes::of_sandboxes(&[word, host.root.to_str().unwrap()]).into_iter();
    all.filter(|process| !process.command.trim_end().ends_with(" start")).map(|process| process.pid).collect()
}

fn clean_after_delete(host: &Host, id: &str, idle: &Snapshot) {
    host.ctr(&["tasks", "delete", "--force", id]);
    host.ctr(&["containers", "delete", id]).ok();
    idle.nothing_new(&host.root, LIMIT);
}

#[test]
fn the_engine_learns_when_a_process_of_a_running_sandbox_is_killed() {
    let host = Host::start();
    let idle = host.snapshot();
    for victim in ["qemu-system", "virtiofsd", SHIM] {
        let id = host.detach(&["sleep", "100000"]);
        for pid in of_sandbox(&host, victim) {
            kill_9(pid);
        }
        assert!(until(LIMIT, || stopped(&host, &id)), "{victim} killed, and the task still counts as running");
        clean_after_delete(&host, &id, &idle);
    }
    host.end();
}

#[test]
fn a_waiting_client_gets_an_exit_code_when_the_machine_dies() {
    let host = Host::start();
    let id = host.name();
    let run = host.run_command(&id, &["--rm"], &["sleep", "100000"]);
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| command::run(run, b"", LIMIT));
        assert!(until(LIMIT, || !stopped(&host, &id) && host.ctr(&["tasks", "list"]).text().contains(&id)));
        of_sandbox(&host, "qemu-system").into_iter().for_each(kill_9);
        run.join().unwrap()
    });
    assert_eq!(outcome.code, 255, "{}", outcome.errors());
    host.end();
}

#[test]
fn the_agent_may_die_too() {
    let host = Host::start();
    let pod = Pod::start(&host, |config| {
        config.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
    });
    let container = pod.add("root", &["sleep", "100000"], |config| {
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
    });
    // Nobody in a container can signal the first process of the guest; its kernel takes it along.
    pod.add("crash", &["sh", "-c", "sleep 1; echo c > /proc/sysrq-trigger; sleep 100"], |config| {
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
    });
    assert_eq!(pod.exit_code(&container), 255);
    pod.delete();
    host.end();
}

#[test]
fn kills_at_any_moment_of_a_start_leave_nothing() {
    let host = Host::start();
    host.run(&[], &["true"]).ok();
    let idle = host.snapshot();
    let moments = [0, 50, 150, 300, 600, 1000, 1500, 2000].map(Duration::from_millis);
    for victim in ["qemu-system", "virtiofsd", SHIM] {
        for moment in moments {
            let id = host.name();
            let start = host.run_command(&id, &["--detach"], &["sleep", "100000"]);
            thread::scope(|scope| {
                let start = scope.spawn(|| command::run(start, b"", LIMIT));
                assert!(until(LIMIT, || start.is_finished() || !of_sandbox(&host, victim).is_empty()));
                until(moment, || false);
                of_sandbox(&host, victim).into_iter().for_each(kill_9);
                let outcome = start.join().unwrap();
                // A start that was over before the kill has succeeded; any other says why it failed.
                assert!(outcome.code == 0 || !outcome.errors().is_empty(), "{victim} after {moment:?}");
            });
            clean_after_delete(&host, &id, &idle);
        }
    }
    host.end();
}

#[test]
fn questions_are_answered_while_the_machine_boots() {
    let host = Host::start();
    let idle = host.snapshot();
    let id = host.name();
    let start = host.run_command(&id, &["--detach"], &["sleep", "100000"]);
    thread::scope(|scope| {
        let start = scope.spawn(|| command::run(start, b"", LIMIT));
        assert!(until(LIMIT, || !of_sandbox(&host, "qemu-system").is_empty()));
        let list = host.ctr(&["tasks", "list"]);
        assert!(list.took < Duration::from_secs(2), "the list took {:?} while a machine booted", list.took);
        let kill = host.ctr(&["tasks", "kill", "--signal", "KILL", &id]);
        assert!(kill.took < Duration::from_secs(5), "the kill took {:?} while a machine booted", kill.took);
        start.join().unwrap();
    });
    clean_after_delete(&host, &id, &idle);
    host.end();
}
