//! A KataConfig makes the nodes of a cluster able to run sandboxes, with real engines:
//! what users see of it, and what must not happen.

mod alone;
mod failing;
mod kills;
pub mod nodes;
mod timeline;
mod watching;

use std::{fs::File, path::PathBuf};

use nix::fcntl::{Flock, FlockArg};
use osc_testkit::{cluster::Cluster, command::until, host::LIMIT, processes::kill_9};
use serde_json::{Value, json};

pub const CONFIG: &str = "example-kataconfig";

/// A KataConfig for all workers but those labelled `sandboxes=no`: a node that joins
/// is selected, and a label is enough to take one out.
fn apply(cluster: &Cluster) {
    let config = json!({
        "apiVersion": "kataconfiguration.openshift.io/v1",
        "kind": "KataConfig",
        "metadata": {"name": CONFIG},
        "spec": {"kataConfigPoolSelector": {
            "matchExpressions": [{"key": "sandboxes", "operator": "NotIn", "values": ["no"]}],
        }},
    });
    cluster.kubectl(&["apply", "-f", "-"], &config.to_string()).ok();
}

fn pod(name: &str, node: &str, sandboxed: bool) -> String {
    let container = json!({
        "name": "main",
        "image": "localhost/busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "100000"],
    });
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [container],
    });
    if sandboxed {
        spec["runtimeClassName"] = "kata".into();
    }
    let metadata = json!({"name": name, "labels": {"app": name}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
}

/// Runs a pod and waits until it is ready.
fn run(cluster: &Cluster, name: &str, node: &str, sandboxed: bool) {
    cluster.kubectl(&["apply", "-f", "-"], &pod(name, node, sandboxed)).ok();
    let pod = format!("pod/{name}");
    let ready = cluster.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=90s"], "");
    assert_eq!(ready.code, 0, "{}", cluster.kubectl(&["describe", &pod], "").text());
}

/// Container and restarts of a pod: equal as long as nobody started it again.
fn identity(cluster: &Cluster, name: &str) -> (Value, Value) {
    let pod = cluster.get(&["pod", name]);
    let container = &pod["status"]["containerStatuses"][0];
    (container["containerID"].clone(), container["restartCount"].clone())
}

/// Kernel a pod runs on.
fn kernel(cluster: &Cluster, name: &str) -> String {
    cluster.kubectl(&["exec", name, "--", "uname", "-r"], "").ok().text()
}

/// A condition of the KataConfig: status, reason, message.
pub fn condition(config: &Value, type_: &str) -> [String; 3] {
    let conditions = config["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default();
    ["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default().to_owned())
}

/// Waits until nothing goes on and exactly these nodes run sandboxes.
#[track_caller]
pub fn installed(cluster: &Cluster, nodes: &[&str]) {
    let count = nodes.len();
    let wanted = format!("idle {count}/{count} installed={}", nodes.join(","));
    eventually(cluster, &wanted);
}

/// Waits until the KataConfig is in this state, as [`watching::state`] says it.
#[track_caller]
fn eventually(cluster: &Cluster, wanted: &str) {
    let mut last = String::new();
    cluster.eventually(&format!("KataConfig {wanted:?}"), || {
        let now = watching::state(&cluster.get(&["kataconfig", CONFIG]));
        if now != last {
            eprintln!("KataConfig is {now:?}");
            last = now;
        }
        last == wanted
    });
}

/// What `kubectl describe` prints about the KataConfig; it has all of `words`.
#[track_caller]
fn described(cluster: &Cluster, words: &[&str]) {
    let text = cluster.kubectl(&["describe", "kataconfig"], "").ok().text();
    // Lines are aligned with blanks, how many depends on the neighbours.
    let text: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for word in words {
        assert!(text.iter().any(|line| line.contains(word)), "no {word:?} in {text:#?}");
    }
}

/// What `osc status` prints, which has all of `words`, and what it says as JSON.
#[track_caller]
fn told(cluster: &Cluster, words: &[&str]) -> Value {
    let text = cluster.osc(&["status"]).ok().text();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    serde_json::from_slice(&cluster.osc(&["status", "--json"]).ok().stdout).unwrap()
}

/// Where the cluster's process says who it is; locked for as long as it lives.
fn instance(cluster: &Cluster) -> PathBuf {
    cluster.root.join("run/sandboxed-containers/cluster.json")
}

/// Kills the cluster's process and waits until it is one no more.
fn kill(cluster: &Cluster, pid: i32) {
    kill_9(pid);
    let is_free = || {
        let file = File::options().write(true).open(instance(cluster)).unwrap();
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
    };
    assert!(until(LIMIT, is_free), "process {pid} stays");
}

/// Deletes the KataConfig and waits until it is gone.
fn uninstalled(cluster: &Cluster) {
    cluster.kubectl(&["delete", "kataconfig", CONFIG, "--wait=false"], "").ok();
    gone(cluster);
}

/// Waits until the KataConfig is gone, with everything that belongs to it in the API.
pub fn gone(cluster: &Cluster) {
    cluster.eventually("it is gone", || {
        let left = cluster.kubectl(&["get", "kataconfig", CONFIG], "");
        left.code != 0 && left.errors().contains("NotFound")
    });
    let nodes = cluster.kubectl(&["get", "nodes", "--show-labels"], "").ok().text();
    assert!(!nodes.contains("kata-oc"), "{nodes}");
    cluster.eventually("its RuntimeClass is gone", || cluster.get(&["runtimeclasses"])["items"] == json!([]));
    assert_eq!(cluster.get(&["ctrcfg"])["items"], json!([]));
    assert_eq!(names(cluster, "mcp"), ["master", "worker"]);
}

/// Names of all objects of a kind, in order.
fn names(cluster: &Cluster, kind: &str) -> Vec<String> {
    let all = cluster.get(&[kind]);
    let names = all["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}
