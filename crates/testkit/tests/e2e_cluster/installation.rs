//! A KataConfig makes the nodes of the cluster able to run sandboxes, and its end
//! makes them as they were.

use osc_testkit::cluster::Cluster;
use serde_json::{Value, json};

const CONFIG: &str = "example-kataconfig";

fn kataconfig(selector: &Value) -> String {
    json!({
        "apiVersion": "kataconfiguration.openshift.io/v1",
        "kind": "KataConfig",
        "metadata": {"name": CONFIG},
        "spec": {"kataConfigPoolSelector": selector},
    })
    .to_string()
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
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// Reason of what is in progress, and the nodes that are ready.
fn state(cluster: &Cluster) -> (String, Vec<Value>) {
    let config = cluster.get(&["kataconfig", CONFIG]);
    let conditions = config["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let progress = conditions.iter().find(|condition| condition["type"] == "InProgress");
    let reason = progress.and_then(|condition| condition["reason"].as_str()).unwrap_or("none");
    (reason.to_owned(), config["status"]["kataNodes"]["installed"].as_array().cloned().unwrap_or_default())
}

fn installed(cluster: &Cluster, nodes: &[&str]) {
    let wanted = (String::new(), nodes.iter().map(|&node| Value::from(node)).collect());
    cluster.eventually(&format!("sandboxes on {nodes:?}"), || state(cluster) == wanted);
}

#[test]
fn a_kataconfig_installs_moves_and_removes_sandboxes() {
    let cluster = Cluster::up_with(&["--workers", "2"]);
    cluster.kubectl(&["apply", "-f", "-"], &pod("plain", "worker-1", false)).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/plain", "--timeout=60s"], "").ok();
    let started = cluster.get(&["pod", "plain"])["status"]["containerStatuses"][0]["containerID"].clone();
    cluster.kubectl(&["label", "node", "worker-1", "sandboxes=yes"], "").ok();

    cluster.kubectl(&["apply", "-f", "-"], &kataconfig(&json!({"matchLabels": {"sandboxes": "yes"}}))).ok();
    installed(&cluster, &["worker-1"]);
    let pools = cluster.kubectl(&["get", "mcp", "kata-oc"], "").ok().text();
    assert!(pools.contains("rendered-kata-oc-"), "{pools}");
    cluster.kubectl(&["apply", "-f", "-"], &pod("sandboxed", "worker-1", true)).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/sandboxed", "--timeout=90s"], "").ok();
    let inside = cluster.kubectl(&["exec", "sandboxed", "--", "uname", "-r"], "").ok().text();
    assert_ne!(inside, nix::sys::utsname::uname().unwrap().release().to_str().unwrap());
    let now = cluster.get(&["pod", "plain"])["status"]["containerStatuses"][0].clone();
    assert_eq!((&now["containerID"], &now["restartCount"]), (&started, &json!(0)), "its engine was restarted, not it");

    cluster.kubectl(&["label", "node", "worker-2", "sandboxes=yes"], "").ok();
    installed(&cluster, &["worker-1", "worker-2"]);
    let status = cluster.osc(&["status"]).ok().text();
    assert!(status.contains("2 of 2 nodes can run sandboxes"), "{status}");

    cluster.kubectl(&["delete", "kataconfig", CONFIG, "--wait=false"], "").ok();
    cluster.eventually("the pod is in the way", || state(&cluster).0 == "BlockedByExistingKataPods");
    cluster.kubectl(&["delete", "pod", "sandboxed"], "").ok();
    cluster.eventually("it is gone", || cluster.kubectl(&["get", "kataconfig", CONFIG], "").code != 0);
    let nodes = cluster.kubectl(&["get", "nodes", "--show-labels"], "").ok().text();
    assert!(!nodes.contains("kata-oc"), "{nodes}");
    assert_eq!(cluster.get(&["runtimeclasses"])["items"], json!([]));
    let left = |node: &str| {
        cluster.root.join("var/lib/sandboxed-containers/nodes").join(node).join("opt/sandboxed-containers/current")
    };
    cluster.eventually("no payload", || !["worker-1", "worker-2"].iter().any(|node| left(node).exists()));
    cluster.end();
}
