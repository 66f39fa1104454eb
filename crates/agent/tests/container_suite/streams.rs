//! Standard streams and terminals.

use std::time::{Duration, Instant};

use osc_agent_protocol::{Kind, oci};

use crate::support::{Place, block_on, outcome, process, read_all, read_until};

const SOON: Option<Duration> = Some(Duration::from_secs(10));

#[test]
fn sixteen_mebibytes_pass_through_cat() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["cat"])).await;
        let data: Vec<u8> = (0..16u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let feed = async {
            for chunk in data.chunks(1 << 20) {
                assert_eq!(container.write_stdin("", chunk).await.unwrap(), chunk.len());
            }
            container.close_stdin("").unwrap();
        };
        let ((), back) = tokio::join!(feed, read_all(&container, "", true));
        assert!(back == data, "{} of {} bytes, or others", back.len(), data.len());
        assert_eq!(container.wait("").await.unwrap(), 0);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn empty_data_closes_standard_input() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["cat"])).await;
        container.write_stdin("", b"end").await.unwrap();
        container.write_stdin("", b"").await.unwrap();
        assert_eq!(outcome(&container, "").await.stdout, "end");
        assert_eq!(container.write_stdin("", b"more").await.unwrap_err().kind(), Kind::Unavailable);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn output_ends_although_a_descendant_holds_it() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        container.exec("e", process(&["sh", "-c", "sleep 1000 & echo done"])).await.unwrap();
        let start = Instant::now();
        let got = outcome(&container, "e").await;
        assert_eq!((got.stdout.as_str(), got.status), ("done\n", 0));
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn what_was_written_before_the_end_is_read_after_the_window() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sh", "-c", "seq 1 5000; sleep 1000 &"])).await;
        container.wait("").await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let text = String::from_utf8(read_all(&container, "", true).await).unwrap();
        assert_eq!(text.lines().count(), 5000);
        container.remove(SOON).await.unwrap();
    });
}

fn on_terminal(place: &Place, args: &[&str]) -> oci::Spec {
    let mut spec = place.spec(args);
    let process = spec.Process.mut_or_insert_default();
    process.Terminal = true;
    process.ConsoleSize = Some(oci::Box { Height: 30, Width: 100, ..oci::Box::default() }).into();
    spec
}

#[test]
fn a_terminal_is_one_from_the_inside() {
    block_on(async {
        let place = Place::new();
        let script =
            "tty; stty size; test -c /dev/console && echo console; echo err >&2; ls -l /dev/console | grep -c 136";
        let container = place.start("c", on_terminal(&place, &["sh", "-c", script])).await;
        let text = String::from_utf8(read_all(&container, "", true).await).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["/dev/pts/0", "30 100", "console", "err", "1"]);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn a_terminal_controls_its_session_and_can_be_resized() {
    block_on(async {
        let place = Place::new();
        let script = "trap 'exit 9' INT; echo ready; while read line; do stty size; done; echo bye; sleep 1000";
        let container = place.start("c", on_terminal(&place, &["sh", "-c", script])).await;
        read_until(&container, "", "ready").await;
        container.resize("", 40, 120).unwrap();
        container.write_stdin("", b"x\n").await.unwrap();
        read_until(&container, "", "40 120").await;
        container.write_stdin("", b"\x04").await.unwrap();
        read_until(&container, "", "bye").await;
        // Again and again: a shell that is just starting its child misses one.
        let status = loop {
            container.write_stdin("", b"\x03").await.unwrap();
            if let Ok(status) = tokio::time::timeout(Duration::from_millis(200), container.wait("")).await {
                break status.unwrap();
            }
        };
        assert_eq!(status, 9);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn an_exec_may_have_a_terminal_of_its_own() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        let mut shell = process(&["sh", "-c", "tty; echo to-err >&2; exit 5"]);
        shell.Terminal = true;
        container.exec("e", shell).await.unwrap();
        container.resize("e", 10, 20).unwrap();
        let got = outcome(&container, "e").await;
        let all = got.stdout + &got.stderr;
        assert!(all.contains("/dev/pts/0") && all.contains("to-err"), "{all:?}");
        assert_eq!(got.status, 5);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn without_a_terminal_there_is_no_size() {
    block_on(async {
        let place = Place::new();
        let container = place.start("c", place.spec(&["sleep", "1000"])).await;
        assert_eq!(container.resize("", 1, 1).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(container.resize("nobody", 1, 1).unwrap_err().kind(), Kind::NotFound);
        container.remove(SOON).await.unwrap();
    });
}

#[test]
fn a_user_may_reopen_its_streams() {
    block_on(async {
        let place = Place::new();
        let mut spec = place.spec(&["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"]);
        spec.Process.mut_or_insert_default().User = Some(oci::User { UID: 33, GID: 33, ..oci::User::default() }).into();
        spec.Process.mut_or_insert_default().Capabilities = Some(oci::LinuxCapabilities::default()).into();
        let got = place.run(spec).await;
        assert_eq!((got.stdout.as_str(), got.stderr.as_str(), got.status), ("out\n", "err\n", 0));
    });
}
