//! Containers of one sandbox.

use std::{fs, path::PathBuf, time::Duration};

use osc_agent::container::SandboxNamespaces;
use osc_agent_protocol::Kind;

use crate::support::{Place, block_on, eventually, outcome, process};

const SOON: Option<Duration> = Some(Duration::from_secs(10));

#[test]
fn containers_may_share_the_pid_namespace() {
    block_on(async {
        let place = Place::new();
        let pause = place.start("pause", place.spec(&["sleep", "1000"])).await;
        let shared = SandboxNamespaces { pid: Some(pause.pid_namespace()), ..SandboxNamespaces::default() };
        let script = "cat /proc/1/cmdline | tr '\\0' ' '; echo $$; sleep 1002 & sleep 1003";
        let second = place.create_in("c", place.spec(&["sh", "-c", script]), shared).await.unwrap();
        second.start().await.unwrap();
        let seen = crate::support::read_until(&second, "", "\n").await;
        assert!(seen.starts_with("sleep 1000 ") && !seen.contains(" 1\n"), "{seen}");

        second.exec("e", process(&["ps"])).await.unwrap();
        let seen = outcome(&second, "e").await.ok();
        assert!(seen.contains("sleep 1000") && seen.contains("sleep 1003"), "{seen}");

        // Its other processes do not outlive the first one, and the first container does.
        second.signal("c", 15).unwrap();
        assert_eq!(second.wait("").await.unwrap(), 143);
        eventually("left over processes killed", || second.pids().unwrap().is_empty()).await;
        assert!(!pause.exited());
        second.remove(SOON).await.unwrap();
        pause.remove(SOON).await.unwrap();
    });
}

#[test]
fn a_pid_namespace_whose_first_process_ended_cannot_be_joined() {
    block_on(async {
        let place = Place::new();
        let pause = place.start("pause", place.spec(&["true"])).await;
        pause.wait("").await.unwrap();
        let shared = SandboxNamespaces { pid: Some(pause.pid_namespace()), ..SandboxNamespaces::default() };
        let error = place.create_in("c", place.spec(&["true"]), shared).await.unwrap_err();
        assert!(error.to_string().contains("start the process"), "{error}");
        pause.remove(SOON).await.unwrap();
    });
}

#[test]
fn ipc_and_uts_namespaces_of_the_sandbox_are_used() {
    block_on(async {
        let place = Place::new();
        let first = place.start("first", place.spec(&["sleep", "1000"])).await;
        let file = |kind: &str| Some(PathBuf::from(format!("/proc/{}/ns/{kind}", first.pid())));
        let shared = SandboxNamespaces { ipc: file("ipc"), uts: file("uts"), pid: None };
        let mut spec = place.spec(&["sh", "-c", "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; hostname"]);
        spec.Hostname = "ignored".into();
        let second = place.create_in("second", spec, shared).await.unwrap();
        second.start().await.unwrap();
        let got = outcome(&second, "").await.ok();
        let link = |kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", first.pid())).unwrap();
        assert_eq!(got, format!("{}\n{}\nbox\n", link("ipc").display(), link("uts").display()));
        second.remove(SOON).await.unwrap();
        first.remove(SOON).await.unwrap();
    });
}

#[test]
fn a_namespace_file_that_is_not_there_is_named() {
    block_on(async {
        let place = Place::new();
        let shared = SandboxNamespaces { ipc: Some("/no/such/namespace".into()), ..SandboxNamespaces::default() };
        let error = place.create_in("c", place.spec(&["true"]), shared).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("/no/such/namespace"), "{error}");
    });
}

#[test]
fn an_exec_on_its_way_in_cannot_keep_a_container() {
    block_on(async {
        let place = Place::new();
        let pause = place.start("pause", place.spec(&["sleep", "1000"])).await;
        for round in 0..10 {
            let shared = SandboxNamespaces { pid: Some(pause.pid_namespace()), ..SandboxNamespaces::default() };
            let container = place.create_in("c", place.spec(&["sleep", "1000"]), shared).await.unwrap();
            container.start().await.unwrap();
            let entering = container.clone();
            let exec = tokio::spawn(async move { entering.exec("e", process(&["sleep", "1000"])).await });
            tokio::time::sleep(Duration::from_millis(round)).await;
            container.remove(SOON).await.unwrap();
            // In time or too late: both may be.
            let _ = exec.await.unwrap();
        }
        pause.remove(SOON).await.unwrap();
    });
}
