//! Commands that talk to a running container: logs, exec, cp, port-forward.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use osc_testkit::{
    command::{Background, until},
    host::LIMIT,
    kubectl::Kubectl,
    terminal::Terminal,
};

/// Bytes that go through `cp` and `port-forward`.
const LARGE: usize = 1 << 20;
/// Answers with files: on port 8000 to everybody, on port 8080 to callers on the
/// pod's own loopback address only.
pub const SERVER: &str = "mkdir -p /www; echo hello > /www/index.html; httpd -p 8000 -h /www; \
                          httpd -p 127.0.0.1:8080 -h /www; echo up; exec sleep 100000";

/// Everything that can be done with a running pod that runs [`SERVER`].
pub fn work(kubectl: &Kubectl<'_>, pod: &str) {
    let failed = kubectl.run(&format!("exec {pod} --"), &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((failed.code, failed.text().as_str()), (3, "out"));
    assert!(failed.errors().contains("err") && !failed.errors().contains("out"), "{}", failed.errors());
    assert_eq!(kubectl.with(&format!("exec -i {pod} -- cat"), "to and fro").ok().text(), "to and fro");
    assert_eq!(kubectl.ok(&format!("logs {pod}")), "up");
    a_terminal(kubectl, pod);
    copies(kubectl, pod);
    ports(kubectl, pod);
}

/// Prompt, size, resize, end of input.
fn a_terminal(kubectl: &Kubectl<'_>, pod: &str) {
    let mut terminal = Terminal::start(&kubectl.command(&format!("exec -it {pod} -- sh"), &[]), 33, 111);
    terminal.expect("# ", LIMIT);
    terminal.type_in("stty size\n");
    terminal.expect("33 111", LIMIT);
    terminal.resize(44, 122);
    // The size arrives some time after it was changed.
    terminal.type_in("until stty size | grep -q '44 122'; do :; done; echo grown to $((40 + 4))\n");
    terminal.expect("grown to 44", LIMIT);
    // Only at the prompt does the shell take it for the end.
    let prompted = || terminal.shown().split("grown to 44").nth(1).is_some_and(|rest| rest.contains("# "));
    assert!(until(LIMIT, prompted), "{:?}", terminal.shown());
    terminal.type_in("\u{4}");
    assert_eq!(terminal.code(LIMIT), 0);
}

fn copies(kubectl: &Kubectl<'_>, pod: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    let bytes: Vec<u8> = (0..LARGE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&there, &bytes).unwrap();
    kubectl.run("cp", &[there.to_str().unwrap(), &format!("{pod}:/www/large")]).ok();
    kubectl.run("cp", &[&format!("{pod}:/www/large"), back.to_str().unwrap()]).ok();
    assert!(fs::read(&back).unwrap() == bytes, "the bytes differ");
}

/// Many requests at a time, and one to a port nobody listens on.
fn ports(kubectl: &Kubectl<'_>, pod: &str) {
    let forward = kubectl.start(&format!("port-forward pod/{pod} :8080"), &[]);
    let port = local_port(&forward);
    let ask = move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer.len()
    };
    let answers: Vec<_> = (0..8).map(|_| thread::spawn(ask)).collect();
    for answer in answers {
        let length = answer.join().unwrap();
        assert!((LARGE..LARGE + 1024).contains(&length), "{length}: {}", forward.shown());
    }
    drop(forward);

    let refused = kubectl.start(&format!("port-forward pod/{pod} :8081"), &[]);
    let mut stream = TcpStream::connect(("127.0.0.1", local_port(&refused))).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    refused.expect("error forwarding port 8081", LIMIT);
}

fn local_port(forward: &Background) -> u16 {
    forward.expect("Forwarding from 127.0.0.1:", LIMIT);
    let shown = forward.shown();
    let rest = shown.split("127.0.0.1:").nth(1).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// A log that is followed to its end, and the one of the run before.
pub fn logs(kubectl: &Kubectl<'_>) {
    let script = "for n in 1 2 3 4 5 6; do echo line $n; done; until [ -e /scratch/end ]; do sleep 0.1; done; rm /scratch/end; echo last";
    let mut pod = super::manifests::pod("talker", script, false);
    pod["spec"]["restartPolicy"] = "OnFailure".into();
    pod["spec"]["containers"][0]["command"][2] =
        format!("{script}; test -e /scratch/over || {{ touch /scratch/over; exit 1; }}").into();
    kubectl.says("apply -f -", &pod.to_string(), "created");
    kubectl.ok("wait pod/talker --for=condition=Ready --timeout=60s");
    let follow = kubectl.start("logs -f talker", &[]);
    follow.expect("line 6", LIMIT);
    kubectl.ok("exec talker -- touch /scratch/end");
    follow.expect("last", LIMIT);
    assert_eq!(follow.code(Duration::from_secs(20)), 0, "the end of the container ends the log");
    kubectl.eventually("get pod talker -o jsonpath={.status.containerStatuses[0].restartCount}", "1");
    assert_eq!(kubectl.ok("logs talker --previous --tail=2"), "line 6\nlast");
    kubectl.eventually("logs talker", "line 6");
    kubectl.ok("exec talker -- touch /scratch/end");
    kubectl.eventually("get pod talker", "Completed");
    kubectl.says("delete pod talker", "", "deleted");
}
