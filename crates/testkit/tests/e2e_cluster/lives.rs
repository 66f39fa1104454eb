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
    cluster.kubectl(&["apply", "-f", "-"], &deployment(2, "one")).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"], "").ok();
    let first = pods(&cluster);
    assert_eq!((first.len(), cluster.processes("qemu-system").len()), (2, 2), "one machine a pod");
    let name = first[0]["metadata"]["name"].as_str().unwrap();
    let inside = cluster.kubectl(&["exec", name, "--", "uname", "-r"], "").ok().text();
    let outside = nix::sys::utsname::uname().unwrap();
    assert_ne!(inside, outside.release().to_str().unwrap());
    assert_eq!(cluster.kubectl(&["logs", name], "").ok().text(), "one");
    assert_eq!(cluster.kubectl(&["exec", name, "--", "sh", "-c", "exit 3"], "").code, 3);

    // A machine: its pod gets another one, and says that it was started again.
    kill_9(cluster.processes("qemu-system")[0]);
    cluster.eventually("pod runs again", || {
        let now = pods(&cluster);
        restarts(&now) == 1 && now.iter().all(ready) && identities(&now) == identities(&first)
    });

    // The engine, then the cluster itself: nobody else notices.
    let machines = cluster.processes("qemu-system");
    cluster.processes("containerd --config").into_iter().for_each(kill_9);
    cluster.eventually("exec works again", || cluster.kubectl(&["exec", name, "--", "true"], "").code == 0);
    kill_9(cluster.pid());
    cluster.eventually("nobody serves", || cluster.osc(&["status"]).code == 1);
    cluster.again();
    cluster.eventually("node is ready again", || pods(&cluster).iter().all(ready));
    assert_eq!(cluster.kubectl(&["exec", name, "--", "true"], "").code, 0);
    assert_eq!((restarts(&pods(&cluster)), cluster.processes("qemu-system")), (1, machines));

    // A new version replaces all pods; deleting the Deployment ends every machine.
    cluster.kubectl(&["apply", "-f", "-"], &deployment(2, "two")).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"], "").ok();
    cluster.eventually("only new pods", || {
        let now = pods(&cluster);
        now.len() == 2 && now.iter().all(|pod| !identities(&first).contains(&pod["metadata"]["uid"].as_str().unwrap()))
    });
    cluster.kubectl(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=60s"], "").ok();
    cluster.eventually("machines are gone", || cluster.processes("qemu-system").is_empty());
    cluster.end();
}

#[test]
fn a_second_start_changes_nothing_and_conflicts_are_named() {
    let cluster = Cluster::up();
    let pid = cluster.pid();
    cluster.again();
    assert_eq!(cluster.pid(), pid);
    let more = cluster.osc(&["up", "--workers", "2"]);
    assert_eq!(more.code, 75);
    assert!(more.errors().contains("osc down"), "{}", more.errors());

    let unknown = cluster.kubectl(&["apply", "-f", "-"], &deployment(1, "x").replace("replicas", "replicaz"));
    assert!(unknown.code != 0 && unknown.errors().contains("replicaz"), "{}", unknown.errors());
    let strange = deployment(1, "x").replace("\"kata\"", "\"nobody\"");
    cluster.kubectl(&["apply", "-f", "-"], &strange).ok();
    cluster.eventually("the missing class is named", || {
        cluster.kubectl(&["get", "events"], "").text().contains("RuntimeClass \"nobody\" not found")
    });
    cluster.end();
}
