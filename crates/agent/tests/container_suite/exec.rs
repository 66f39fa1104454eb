//! Processes added to a running container.

use std::time::Duration;

use osc_agent_protocol::{Kind, oci};

use crate::support::{Place, block_on, eventually, outcome, process};

const SOON: Option<Duration> = Some(Duration::from_secs(10));

#[test]
fn an_exec_sees_the_container() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        let script = "hostname; cat /proc/1/cmdline | tr '\\0' ' '; ls /bin/busybox; cat /proc/self/cgroup; echo $PATH";
        container.exec("e", process(&["sh", "-c", script])).await.unwrap();
        let got = outcome(&container, "e").await.ok();
        assert_eq!(got, "box\nsleep 1000 /bin/busybox\n0::/\n/bin\n".replace("0::/\n", &unified_lines(&got)));
        container.remove(SOON).await.unwrap();
    });
}

/// Hosts with version 1 hierarchies list those too; only the unified one is ours.
fn unified_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| line.contains(":/")).collect();
    assert!(lines.contains(&"0::/"), "not at the root of its control group namespace: {text}");
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn an_exec_that_cannot_run_says_why() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        let error = container.exec("e", process(&["no-such"])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("exec: \"no-such\": executable file not found in $PATH"), "{error}");
        let mut lost = process(&["true"]);
        lost.Cwd = "/no/such/directory".into();
        let error = container.exec("e", lost).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/directory"), "{error}");
        assert_eq!(container.wait("e").await.unwrap_err().kind(), Kind::NotFound);
        container.exec("e", process(&["true"])).await.unwrap();
        assert_eq!(outcome(&container, "e").await.status, 0);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn capabilities_come_from_the_container_unless_given() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        let mut inherit = process(&["grep", "CapEff", "/proc/self/status"]);
        inherit.Capabilities = None.into();
        container.exec("a", inherit).await.unwrap();
        assert_eq!(outcome(&container, "a").await.ok().trim(), "CapEff:\t00000000080000e3");
        let mut none = process(&["grep", "CapEff", "/proc/self/status"]);
        none.Capabilities = Some(oci::LinuxCapabilities::default()).into();
        container.exec("b", none).await.unwrap();
        assert_eq!(outcome(&container, "b").await.ok().trim(), "CapEff:\t0000000000000000");
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn names_are_unique_while_in_use_and_free_afterwards() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        container.exec("e", process(&["cat"])).await.unwrap();
        for taken in ["e", "c", ""] {
            let error = container.exec(taken, process(&["true"])).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Busy, "{taken:?}");
        }
        container.close_stdin("e").unwrap();
        assert_eq!(outcome(&container, "e").await.status, 0);
        assert_eq!(container.wait("e").await.unwrap_err().kind(), Kind::NotFound);
        container.exec("e", process(&["true"])).await.unwrap();
        assert_eq!(outcome(&container, "e").await.status, 0);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn output_may_be_read_after_the_wait() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        container.exec("e", process(&["echo", "late"])).await.unwrap();
        assert_eq!(container.wait("e").await.unwrap(), 0);
        assert_eq!(container.read_stdout("e", 100).await.unwrap(), b"late\n");
        assert!(container.read_stdout("e", 100).await.unwrap().is_empty());
        assert!(container.read_stderr("e", 100).await.unwrap().is_empty());
        assert_eq!(container.read_stdout("e", 100).await.unwrap_err().kind(), Kind::NotFound);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn only_running_containers_take_execs() {
    block_on(async {
        let place = Place::new();
        let container = place.create("c", place.spec(&["true"])).await.unwrap();
        assert_eq!(container.exec("e", process(&["true"])).await.unwrap_err().kind(), Kind::Busy);
        container.start().await.unwrap();
        container.wait("").await.unwrap();
        assert_eq!(container.exec("e", process(&["true"])).await.unwrap_err().kind(), Kind::Busy);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn many_execs_at_once() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        let execs = (0..20).map(|n| {
            let container = &container;
            async move {
                let id = format!("e{n}");
                container.exec(&id, process(&["sh", "-c", &format!("echo {n}; exit {n}")])).await.unwrap();
                let got = outcome(container, &id).await;
                assert_eq!((got.status, got.stdout), (n, format!("{n}\n")));
            }
        });
        futures::future::join_all(execs).await;
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn orphans_of_an_exec_belong_to_the_container() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sh", "-c", "while :; do sleep 0.05; done"])).await;
        container.exec("e", process(&["sh", "-c", "(sleep 0.3 &) ; exit 0"])).await.unwrap();
        assert_eq!(outcome(&container, "e").await.status, 0);
        eventually("orphan gone", || container.pids().unwrap().len() <= 2).await;
        container.remove(SOON).await.unwrap();
    });
}
