//! Signals and what they leave.

use std::time::Duration;

use osc_agent_protocol::Kind;

use crate::support::{Place, block_on, eventually, outcome, process, read_until};

const SOON: Option<Duration> = Some(Duration::from_secs(10));
const TERM: i32 = 15;

#[test]
fn terminate_ends_a_first_process_that_would_not_notice() {
    block_on(async {
        let place = Place::new();
        for (args, want) in [
            (&["sleep", "1000"][..], 137),
            (&["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"][..], 3),
        ] {
            let container = place.start("c", place.spec(args)).await;
            if want == 3 {
                read_until(&container, "", "up").await;
            }
            container.signal("c", TERM).unwrap();
            assert_eq!(container.wait("").await.unwrap(), want, "{args:?}");
            container.remove(SOON).await.unwrap();
        }
    });
}

#[test]
fn a_process_that_ignores_terminate_is_left_alone() {
    block_on(async {
        let place = Place::new();
        let script = "trap '' TERM; echo up; read line; exit 6";
        let container = place.start("c", place.spec(&["sh", "-c", script])).await;
        read_until(&container, "", "up").await;
        container.signal("", TERM).unwrap();
        container.write_stdin("", b"on\n").await.unwrap();
        assert_eq!(container.wait("").await.unwrap(), 6);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn a_signal_to_an_exec_reaches_it_alone() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        for (signal, want) in [(TERM, 143), (9, 137), (1, 129)] {
            container.exec("e", process(&["sleep", "1000"])).await.unwrap();
            container.signal("e", signal).unwrap();
            assert_eq!(outcome(&container, "e").await.status, want);
        }
        assert!(!container.exited());
        assert_eq!(container.signal("nobody", 9).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(container.signal("", 4000).unwrap_err().kind(), Kind::Invalid);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn killing_everything_reaches_execs_too() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        container.exec("e", process(&["sleep", "1000"])).await.unwrap();
        container.signal("", 9).unwrap();
        assert_eq!(container.wait("").await.unwrap(), 137);
        assert_eq!(container.wait("e").await.unwrap(), 137);
        // Gone already is no failure.
        container.signal("", 9).unwrap();
        container.signal("c", TERM).unwrap();
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn signals_start_out_at_their_defaults() {
    block_on(async {
        let place = Place::new();
        let got = place.run(place.spec(&["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])).await.ok();
        assert_eq!(got, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    });
}

#[test]
fn a_paused_container_stands_still() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sh", "-c", "while read line; do echo $line; done"])).await;
        container.write_stdin("", b"one\n").await.unwrap();
        read_until(&container, "", "one").await;
        container.pause().await.unwrap();
        container.write_stdin("", b"two\n").await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(300), container.read_stdout("", 10)).await;
        assert!(silent.is_err(), "{silent:?}");
        container.resume().await.unwrap();
        read_until(&container, "", "two").await;
        container.pause().await.unwrap();
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn a_fork_bomb_can_be_killed() {
    block_on(async {
        let place = Place::new();
        let script =
            "f() { sleep 0.02; f & f & }; i=0; while [ $i -lt 6 ]; do f & i=$((i+1)); sleep 0.02; done; sleep 1000";
        let mut spec = place.spec(&["sh", "-c", script]);
        // Bounded, should the test fail to kill it.
        let limit = osc_agent_protocol::oci::POSIXRlimit {
            Type: "RLIMIT_NPROC".into(),
            Soft: 300,
            Hard: 300,
            ..Default::default()
        };
        let process = spec.Process.mut_or_insert_default();
        process.Rlimits = vec![limit];
        process.User.mut_or_insert_default().UID = 54_321;
        let container = place.start("c", spec).await;
        eventually("grown", || container.pids().unwrap().len() > 30).await;
        container.signal("", 9).unwrap();
        assert_eq!(container.wait("").await.unwrap(), 137);
        container.remove(SOON).await.unwrap();
    });
}
