//! Sandboxed pods, and whatever dies.

use osc_testkit::{cluster::Cluster, processes::kill_9};
use serde_json::{Value, json};

/// A Deployment of sandboxed pods that say who they are and stay.
fn deployment(replicas: u32, word: &str) -> String {
    let container = json!({
        "name": "main",
        "image": "localhost/busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", format!("echo {word}; exec sleep 100000")],
    });
    let labels = json!({"app": "web"});
    let spec = json!({
        "runtimeClassName": "kata",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
    .to_string()
}

fn pods(cluster: &Cluster) -> Vec<Value> {
    cluster.get(&["pods", "-l", "app=web"])["items"].as_array().unwrap().clone()
}

fn ready(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["ready"] == true && pod["metadata"]["deletionTimestamp"].is_null()
}

fn restarts(pods: &[Value]) -> u64 {
    pods.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum()
}

fn identities(pods: &[Value]) -> Vec<&str> {
    let mut all: Vec<&str> = pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_deployment_of_sandboxes_outlives_whatever_dies() {
    let cluster = Cluster::up();
    cluster.kubectl(&["apply", "-f", "-"], &deployment(3, "one")).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"], "").ok();
    let first = pods(&cluster);
    assert_eq!((first.len(), cluster.processes("qemu-system").len()), (3, 3), "one machine a pod");
    let name = first[0]["metadata"]["name"].as_str().unwrap();
    let inside = cluster.kubectl(&["exec", name, "--", "uname", "-r"], "").ok().text();
    let outside = nix::sys::utsname::uname().unwrap();
    assert_ne!(inside, outside.release().to_str().unwrap());
    assert_eq!(cluster.kubectl(&["logs", name], "").ok().text(), "one");
    assert_eq!(cluster.kubectl(&["exec", name, "--", "sh", "-c", "exit 3"], "").code, 3);

    a_machine_dies_twice(&cluster, &first);

    // The engine, then the cluster itself: nobody else notices.
    let machines = cluster.processes("qemu-system");
    cluster.processes("containerd --config").into_iter().for_each(kill_9);
    cluster.eventually("exec works again", || cluster.kubectl(&["exec", name, "--", "true"], "").code == 0);
    kill_9(cluster.pid());
    cluster.eventually("nobody serves", || cluster.osc(&["status"]).code == 1);
    cluster.again();
    cluster.eventually("node is ready again", || pods(&cluster).iter().all(ready));
    assert_eq!(cluster.kubectl(&["exec", name, "--", "true"], "").code, 0);
    assert_eq!((restarts(&pods(&cluster)), cluster.processes("qemu-system")), (2, machines));

    // A new version replaces all pods; deleting the Deployment ends every machine.
    cluster.kubectl(&["apply", "-f", "-"], &deployment(3, "two")).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"], "").ok();
    cluster.eventually("only new pods", || {
        let now = pods(&cluster);
        now.len() == 3 && now.iter().all(|pod| !identities(&first).contains(&pod["metadata"]["uid"].as_str().unwrap()))
    });
    cluster.kubectl(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=60s"], "").ok();
    cluster.eventually("machines are gone", || cluster.processes("qemu-system").is_empty());
    cluster.end();
}

/// The pod of a machine that dies gets another one at once, and says that it was started
/// again; when that dies, too, it has to wait for the next, and says so.
fn a_machine_dies_twice(cluster: &Cluster, first: &[Value]) {
    let again = |count| {
        let now = pods(cluster);
        restarts(&now) == count && now.iter().all(ready) && identities(&now) == identities(first)
    };
    let before = cluster.processes("qemu-system");
    kill_9(before[0]);
    cluster.eventually("the pod runs again", || again(1));
    let fresh = cluster.processes("qemu-system").into_iter().find(|machine| !before.contains(machine)).unwrap();
    kill_9(fresh);
    cluster.eventually("the pod backs off", || {
        let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        let mut all = pods(cluster).into_iter();
        all.any(|pod| waiting(&pod)["message"].as_str().is_some_and(|text| text.contains("back-off 10s restarting")))
    });
    assert_eq!(cluster.processes("qemu-system").len(), 2, "no machine for a pod that waits");
    let events = cluster.kubectl(&["get", "events", "--field-selector=reason=BackOff"], "").ok().text();
    assert!(events.contains("Back-off restarting failed container main"), "{events}");
    cluster.eventually("the pod runs once more", || again(2));
}

#[test]
fn a_second_start_changes_nothing_and_conflicts_are_named() {
    let cluster = Cluster::up();
    let pid = cluster.pid();
    cluster.again();
    assert_eq!(cluster.pid(), pid);
    cluster.osc(&["up", "--sandboxes", "--workers", "2"]).ok();
    assert_eq!((cluster.pid(), cluster.get(&["nodes"])["items"].as_array().unwrap().len()), (pid, 2), "it has grown");
    let fewer = cluster.osc(&["up", "--workers", "1"]);
    assert_eq!(fewer.code, 75);
    assert!(fewer.errors().contains("osc down"), "{}", fewer.errors());

    let unknown = cluster.kubectl(&["apply", "-f", "-"], &deployment(1, "x").replace("replicas", "replicaz"));
    assert!(unknown.code != 0 && unknown.errors().contains("replicaz"), "{}", unknown.errors());
    let strange = deployment(1, "x").replace("\"kata\"", "\"nobody\"");
    cluster.kubectl(&["apply", "-f", "-"], &strange).ok();
    cluster.eventually("the missing class is named", || {
        cluster.kubectl(&["get", "events"], "").text().contains("RuntimeClass \"nobody\" not found")
    });
    cluster.end();
}

#[test]
fn a_part_that_does_not_start_ends_the_others() {
    let cluster = Cluster::prepared(&["--workers", "2"]);
    // The first node starts, the second has no place for what it keeps.
    let nodes = cluster.root.join("var/lib/sandboxed-containers/nodes");
    std::fs::create_dir_all(&nodes).unwrap();
    std::fs::write(nodes.join("worker-2"), "").unwrap();
    let failed = cluster.start();
    assert!(failed.code != 0 && failed.errors().contains("control-plane.log"), "{}", failed.errors());
    assert_eq!(cluster.osc(&["status"]).code, 1, "nobody serves");

    // With the cause gone it starts, engine of the first node included.
    std::fs::remove_file(nodes.join("worker-2")).unwrap();
    cluster.again();
    assert_eq!(cluster.get(&["nodes"])["items"].as_array().unwrap().len(), 2);
    cluster.end();
}
