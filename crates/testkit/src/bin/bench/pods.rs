//! A sandboxed pod of the cluster from its creation to running, beside `osc run`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

use osc_testkit::{
    cluster::Cluster,
    host::{BUSYBOX, built},
};
use serde_json::json;

use crate::{ROUNDS, Times};

/// What one watch over all pods prints: a line for each change.
struct Changes {
    kubectl: Child,
    lines: BufReader<ChildStdout>,
}

impl Changes {
    fn watch(cluster: &Cluster) -> Self {
        let mut command = Command::new("kubectl");
        command.args(["get", "pods", "--watch", "--output", "jsonpath={.metadata.name} {.status.phase}{\"\\n\"}"]);
        command.env("KUBECONFIG", cluster.root.join("kubeconfig")).env("HOME", &cluster.root);
        let mut kubectl = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(kubectl.stdout.take().unwrap());
        Self { kubectl, lines }
    }

    /// When the watch first said `want`.
    fn seen(&mut self, want: &str) -> Instant {
        let mut line = String::new();
        while line.trim_end() != want {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the watch ended before {want:?}");
        }
        Instant::now()
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// Both ways in turn. The first round warms caches.
pub fn times(times: &mut Times) {
    let cluster = Cluster::up();
    let archive = built("target/images/busybox.tar");
    let mut changes = Changes::watch(&cluster);
    for round in 0..=ROUNDS {
        let name = format!("pod-{round}");
        let spec = json!({"spec": {"runtimeClassName": "kata", "terminationGracePeriodSeconds": 0}}).to_string();
        let image = format!("--image={BUSYBOX}");
        let overrides = format!("--overrides={spec}");
        let run = ["run", &name, &image, "--image-pull-policy=IfNotPresent", &overrides];
        cluster.kubectl(&[&run[..], &["--command", "--", "sleep", "100000"]].concat(), "").ok();
        let created = changes.seen(&format!("{name} Pending"));
        let running = changes.seen(&format!("{name} Running"));
        cluster.kubectl(&["delete", "pod", &name], "").ok();

        let began = Instant::now();
        let mut osc = Command::new(built("target/release/osc"));
        osc.arg("run");
        if round == 0 {
            osc.arg("--image-archive").arg(&archive);
        }
        osc.args([BUSYBOX, "echo", "up"]);
        let osc = osc.env("SANDBOXED_CONTAINERS_ROOT", &cluster.root).stdout(Stdio::piped()).spawn();
        let mut osc = osc.unwrap();
        let mut line = String::new();
        BufReader::new(osc.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let up = began.elapsed();
        assert!(osc.wait().unwrap().success() && line == "up\n", "osc run said {line:?}");
        if round > 0 {
            times.add("pod start", running - created);
            times.add("osc run", up);
        }
    }
    drop(changes);
    cluster.end();
}
