//! Creating, starting, waiting, removing.

use std::{fs, time::Duration};

use osc_agent_protocol::Kind;

use crate::support::{Place, block_on, eventually, outcome};

const SOON: Option<Duration> = Some(Duration::from_secs(10));

#[test]
fn the_exit_status_is_that_of_the_program() {
    block_on(async {
        let place = Place::new();
        for (script, want) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; kill -SEGV $$", 139), ("no-such", 127)] {
            // The first process of a pid namespace cannot kill itself, so the signal is one it cannot avoid.
            let script = if want == 139 { "sh -c 'kill -SEGV $$'; exit $?" } else { script };
            assert_eq!(place.sh(script).await.status, want, "{script}");
        }
    });
}

#[test]
fn both_outputs_arrive_whole() {
    block_on(async {
        let place = Place::new();
        let got = place.sh("seq 1 100000; echo oops >&2").await;
        assert_eq!((got.stdout.lines().count(), got.stderr.as_str(), got.status), (100_000, "oops\n", 0));
    });
}

#[test]
fn a_program_that_cannot_run_fails_create_and_leaves_nothing() {
    block_on(async {
        let place = Place::new();
        fs::write(place.image().join("etc/data"), "x").unwrap();
        for (program, kind, text) in [
            ("no-such", Kind::NotFound, "exec: \"no-such\": executable file not found in $PATH"),
            ("/no/such", Kind::NotFound, "exec: \"/no/such\": no such file or directory"),
            ("/etc/data", Kind::Denied, "exec: \"/etc/data\": permission denied"),
        ] {
            let error = place.create("c", place.spec(&[program])).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
            place.assert_clean();
        }
    });
}

#[test]
fn a_script_without_its_interpreter_fails_start() {
    block_on(async {
        let place = Place::new();
        let script = place.image().join("bin/script");
        fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let container = place.create("c", place.spec(&["script"])).await.unwrap();
        let error = container.start().await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert_eq!(container.wait("").await.unwrap(), 127);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn nothing_runs_before_start_and_start_works_once() {
    block_on(async {
        let place = Place::new();
        let container = place.create("c", place.spec(&["touch", "/tmp/ran"])).await.unwrap();
        let mark = place.image().join("tmp/ran");
        assert!(!mark.exists() && !container.exited());
        container.start().await.unwrap();
        assert_eq!(container.wait("c").await.unwrap(), 0);
        assert!(mark.exists());
        assert_eq!(container.start().await.unwrap_err().kind(), Kind::Busy);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn the_first_process_can_be_waited_for_again_and_by_many() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sh", "-c", "read x; exit 4"])).await;
        let (other, another) = (container.clone(), container.clone());
        let waits =
            [tokio::spawn(async move { other.wait("").await }), tokio::spawn(async move { another.wait("c").await })];
        container.write_stdin("", b"go\n").await.unwrap();
        for wait in waits {
            assert_eq!(wait.await.unwrap().unwrap(), 4);
        }
        assert_eq!(container.wait("").await.unwrap(), 4);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn removal_ends_whatever_runs() {
    block_on(async {
        let place = Place::new();
        let spec = place.spec(&["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1001 & echo up; wait"]);
        let container = place.start("c", spec).await;
        crate::support::read_until(&container, "", "up").await;
        container.remove(SOON).await.unwrap();
        assert_eq!(container.wait("").await.unwrap(), 137);
        assert!(container.pids().is_err() || container.pids().unwrap().is_empty());
    });
}

#[test]
fn a_container_never_started_can_be_removed() {
    block_on(async {
        let place = Place::new();
        let container = place.create("c", place.spec(&["true"])).await.unwrap();
        container.remove(SOON).await.unwrap();
        assert_eq!(container.start().await.unwrap_err().kind(), Kind::Busy);
        // A second removal finds nothing left to do.
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn a_caller_that_goes_away_leaves_no_container() {
    block_on(async {
        let place = Place::new();
        let create = place.create("c", place.spec(&["sleep", "1000"]));
        assert!(tokio::time::timeout(Duration::from_millis(1), create).await.is_err(), "too fast to be cut short");
        let bundle = place.dir.join("run/c");
        eventually("bundle made", || bundle.exists()).await;
        eventually("bundle gone", || !bundle.exists()).await;
        place.assert_clean();
    });
}

#[test]
fn start_and_kill_may_race() {
    block_on(async {
        let place = Place::new();
        for round in 0..20 {
            let container = place.create("c", place.spec(&["sleep", "1000"])).await.unwrap();
            let (starting, killing) = (container.clone(), container.clone());
            let start = tokio::spawn(async move { starting.start().await });
            let kill = tokio::spawn(async move { killing.signal("", 9) });
            kill.await.unwrap().unwrap();
            // Killed before or after its program ran: both may be.
            let _ = start.await.unwrap();
            assert_eq!(container.wait("").await.unwrap(), 137, "round {round}");
            container.remove(SOON).await.unwrap();
        }
    });
}

#[test]
fn many_containers_at_once() {
    block_on(async {
        let place = Place::new();
        let runs = (0..8).map(|n| {
            let place = &place;
            async move {
                let id = format!("c{n}");
                let container = place.start(&id, place.spec(&["sh", "-c", &format!("echo {n}; exit {n}")])).await;
                let got = outcome(&container, "").await;
                container.remove(SOON).await.unwrap();
                assert_eq!((got.status, got.stdout), (n, format!("{n}\n")));
            }
        });
        futures::future::join_all(runs).await;
    });
}

#[test]
fn the_bundle_holds_configuration_and_root() {
    block_on(async {
        let place = Place::new();
        let container = place.create("c", place.spec(&["true"])).await.unwrap();
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(container.bundle().join("config.json")).unwrap()).unwrap();
        assert_eq!(config["process"]["args"][0], "true");
        assert!(container.bundle().join("rootfs/bin/busybox").exists());
        container.remove(SOON).await.unwrap();
        assert!(place.image().join("bin/busybox").exists(), "the image was deleted through the bundle");
    });
}
