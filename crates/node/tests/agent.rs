//! The node agent between a real API server and a real engine.

mod cluster;

use std::{path::Path, time::Duration};

use cluster::{Cluster, IMAGE, NODE, registry::Registry};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, api::Patch};
use osc_node::agent::{AccessError, Wanted};
use serde_json::{Value, json};

fn condition(status: &Value, kind: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn ready(status: &Value) -> bool {
    condition(status, "Ready")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_registered_and_alive() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let node = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let node = nodes.get_opt(NODE).await.expect("node").map(|node| json!(node)).unwrap_or_default();
            if condition(&node["status"], "Ready") {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let node = node.await.expect("ready");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], NODE);
    let status = &node["status"];
    assert!(status["nodeInfo"]["containerRuntimeVersion"].as_str().expect("version").starts_with("containerd://1."));
    assert_eq!(status["capacity"]["pods"], "110");
    assert!(node["spec"]["podCIDR"].as_str().expect("range").ends_with(".0/24"));
    let lease = leases.get(NODE).await.expect("lease").spec.expect("spec");
    assert_eq!(lease.holder_identity.as_deref(), Some(NODE));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_what_the_api_has_for_it() {
    let cluster = Cluster::start().await;
    cluster.config_map("settings", json!({"color": "green", "file.conf": "from-map"})).await;
    cluster.secret("keys", "Opaque", json!({"password": "hidden"})).await;
    let script = "echo $COLOR $PASSWORD $NODE_NAME $POD_IP; cat /conf/file.conf; echo; cat /all/app /all/secret; \
                  echo; stat -c %s -L /all/token; touch /tmp/up; trap 'echo bye; exit 0' TERM; while true; do sleep 0.1; done";
    let env = json!([
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]);
    let all = json!({"sources": [
        {"downwardAPI": {"items": [{"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}},
        {"secret": {"name": "keys", "items": [{"key": "password", "path": "secret"}]}},
        {"serviceAccountToken": {"path": "token"}},
    ]});
    let spec = json!({
        "terminationGracePeriodSeconds": 60,
        "volumes": [{"name": "conf", "configMap": {"name": "settings"}}, {"name": "all", "projected": all}],
        "containers": [{
            "name": "main", "image": IMAGE, "command": ["sh", "-c", script],
            "env": env, "envFrom": [{"prefix": "X_", "configMapRef": {"name": "settings"}}],
            "volumeMounts": [{"name": "conf", "mountPath": "/conf"}, {"name": "all", "mountPath": "/all"}],
            "readinessProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1},
        }],
    });
    cluster.create("everything", spec).await;
    let pod = cluster.until("everything", ready).await;
    let status = &pod["status"];
    let ip = status["podIP"].as_str().expect("address");
    let logs = cluster.logs(&pod, "main", false).await;
    let lines: Vec<&str> = logs.lines().collect();
    assert_eq!(lines[..3], [&*format!("green hidden {NODE} {ip}"), "from-map", "everythinghidden"], "{logs}");
    assert!(lines[3].parse::<u32>().expect("a size") > 100, "{logs}");
    let container = &status["containerStatuses"][0];
    assert_eq!(
        (&container["ready"], &container["started"], &container["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert!(container["containerID"].as_str().expect("id").starts_with("containerd://"));
    assert!(!container["imageID"].as_str().expect("id").is_empty());
    assert_eq!((&status["phase"], &status["qosClass"]), (&json!("Running"), &json!("BestEffort")));
    for reason in ["Pulled", "Created", "Started"] {
        cluster.event("everything", reason, "").await;
    }

    let uid = pod["metadata"]["uid"].as_str().expect("uid").to_owned();
    let wanted = Wanted { stdout: true, ..Wanted::default() };
    let url = cluster.access().exec(&uid, "main", vec!["true".into()], wanted).await.expect("exec");
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let nobody = cluster.access().exec(&uid, "other", vec!["true".into()], wanted).await;
    assert!(matches!(nobody, Err(AccessError::NoContainer { .. })), "{nobody:?}");

    let dir = cluster.agent().engine().paths().pods().join(&uid);
    assert!(dir.exists());
    let took = cluster.delete("everything").await;
    assert!(took < Duration::from_secs(50), "it ends when it is asked to, not when its time is up: {took:?}");
    assert!(!dir.exists());
    cluster.event("everything", "Killing", "Stopping container main").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_and_tried_again() {
    let cluster = Cluster::start().await;
    let crash = json!({"containers": [
        {"name": "c", "image": IMAGE, "command": ["sh", "-c", "echo run; echo why > /dev/termination-log; exit 3"]},
    ]});
    cluster.create("crash", crash).await;
    let missing = json!({"containers": [
        {"name": "c", "image": IMAGE, "command": ["sleep", "1000"], "envFrom": [{"configMapRef": {"name": "later"}}]},
    ], "terminationGracePeriodSeconds": 0});
    cluster.create("missing", missing).await;
    let unmounted = json!({
        "volumes": [{"name": "v", "secret": {"secretName": "later"}}],
        "containers": [{"name": "c", "image": IMAGE}],
    });
    cluster.create("unmounted", unmounted).await;
    let classless = json!({"runtimeClassName": "nowhere", "containers": [{"name": "c", "image": IMAGE}]});
    let refused = tokio::spawn({
        let pods = cluster.pods();
        let mut spec = classless;
        spec["nodeName"] = NODE.into();
        let pod = cluster::from(json!({"metadata": {"name": "classless"}, "spec": spec}));
        async move { pods.create(&Default::default(), &pod).await }
    });
    assert!(refused.await.expect("no panic").is_err(), "the API knows no such class");

    let waiting = |status: &Value, reason: &str| status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
    let pod = cluster
        .until("crash", |s| waiting(s, "CrashLoopBackOff") && s["containerStatuses"][0]["restartCount"] == 1)
        .await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["message"]), (&json!(3), &json!("why\n")));
    assert_eq!(cluster.logs(&pod, "c", true).await, "run\n");
    cluster.event("crash", "BackOff", "Back-off restarting failed container c").await;

    cluster.until("missing", |status| waiting(status, "CreateContainerConfigError")).await;
    cluster.config_map("later", json!({})).await;
    cluster.until("missing", ready).await;
    cluster.event("unmounted", "FailedMount", "secret \"later\" not found").await;
    for pod in ["crash", "missing", "unmounted"] {
        cluster.delete(pod).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_restart_containers() {
    let cluster = Cluster::start().await;
    let probe = json!({"exec": {"command": ["cat", "/tmp/well"]}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1});
    let spec = json!({
        "terminationGracePeriodSeconds": 0,
        "initContainers": [{"name": "side", "image": IMAGE, "command": ["sleep", "1000"], "restartPolicy": "Always"}],
        "containers": [
            {"name": "sick", "image": IMAGE, "command": ["sleep", "1000"], "livenessProbe": probe},
            {"name": "web", "image": IMAGE, "command": ["sh", "-c", "while true; do printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n' | nc -l -p 8080; done"],
             "ports": [{"name": "web", "containerPort": 8080}],
             "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1}},
        ],
    });
    cluster.create("probed", spec).await;
    let web_ready = |status: &Value| status["containerStatuses"][1]["ready"] == true;
    cluster.until("probed", |s| s["containerStatuses"][0]["restartCount"] == 1 && web_ready(s)).await;
    cluster.event("probed", "Unhealthy", "Liveness probe failed").await;
    cluster.event("probed", "Killing", "Container sick failed liveness probe, will be restarted").await;
    let pod = cluster.until("probed", |s| s["initContainerStatuses"][0]["ready"] == true).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    cluster.delete("probed").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_and_stay_until_they_are_deleted() {
    let cluster = Cluster::start().await;
    let one = |command: &str| json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", command]});
    cluster.create("good", json!({"restartPolicy": "Never", "containers": [one("echo done")]})).await;
    cluster.create("bad", json!({"restartPolicy": "Never", "containers": [one("exit 2")]})).await;
    let late = json!({"restartPolicy": "Never", "activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 0, "containers": [one("sleep 1000")]});
    cluster.create("late", late).await;
    let good = cluster.until("good", |status| status["phase"] == "Succeeded").await;
    assert_eq!(good["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(cluster.logs(&good, "c", false).await, "done\n");
    cluster.until("bad", |status| status["phase"] == "Failed").await;
    let late = cluster.until("late", |status| status["phase"] == "Failed").await;
    assert_eq!(late["status"]["reason"], "DeadlineExceeded");
    // Told only when it was so.
    assert_eq!(late["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    for pod in ["good", "bad", "late"] {
        cluster.delete(pod).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_from_files_and_containers_put_into_pods_run() {
    let cluster = Cluster::start().await;
    let manifests = cluster.dir(&format!("{NODE}/etc/kubernetes/manifests"));
    let manifest = |command: &str| {
        let container = json!({"name": "c", "image": IMAGE, "command": ["sleep", command]});
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "static"}, "spec": spec}).to_string()
    };
    std::fs::write(manifests.join("static.json"), manifest("1000")).expect("write");
    let full = json!({
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
        "containers": [{"name": "c", "image": IMAGE, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "command": ["sh", "-c", "head -c 2097152 /dev/zero > /v/file; sleep 1000"]}],
    });
    cluster.create("full", full).await;
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": IMAGE, "command": ["sleep", "31415"]},
    ]});
    cluster.create("debugged", spec).await;

    cluster.until("debugged", ready).await;
    let debugger = |name: &str, target: Value| json!({"name": name, "image": IMAGE, "command": ["sh", "-c", "ps | grep [3]1415 && sleep 1"], "targetContainerName": target});
    let debuggers = [debugger("near", json!("c")), debugger("far", Value::Null)];
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": debuggers}}));
    let pods = cluster.pods();
    pods.patch_ephemeral_containers("debugged", &Default::default(), &patch).await.expect("patched");
    let exit = |status: &Value, name: &str| {
        let statuses = status["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
        let status = statuses.into_iter().find(|status| status["name"] == name).unwrap_or_default();
        status["state"]["terminated"]["exitCode"].as_i64()
    };
    let debugged =
        cluster.until("debugged", |status| exit(status, "near").is_some() && exit(status, "far").is_some()).await;
    let status = &debugged["status"];
    assert_eq!((exit(status, "near"), exit(status, "far")), (Some(0), Some(1)), "{status:#}");
    assert!(ready(status) && status["phase"] == "Running");
    assert!(cluster.logs(&debugged, "near", false).await.contains("31415"));

    let name = format!("static-{NODE}");
    cluster.appears(&name).await;
    let first = cluster.until(&name, ready).await;
    assert_eq!(first["metadata"]["ownerReferences"][0]["kind"], "Node");
    std::fs::write(manifests.join("static.json"), manifest("2000")).expect("write");
    cluster.replaced(&first).await;
    cluster.until(&name, ready).await;
    std::fs::remove_file(manifests.join("static.json")).expect("remove");
    cluster.disappears(&name).await;

    let full = cluster.until("full", |status| status["phase"] == "Failed").await;
    assert_eq!(full["status"]["reason"], "Evicted");
    assert!(full["status"]["message"].as_str().expect("message").contains("\"v\" exceeds"));
    assert_eq!(full["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    for pod in ["full", "debugged"] {
        cluster.delete(pod).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_agent_and_engine() {
    let mut cluster = Cluster::start().await;
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": IMAGE, "command": ["sleep", "1000"], "readinessProbe": probe},
    ]});
    cluster.create("kept", spec.clone()).await;
    cluster.create("dropped", spec).await;
    let before = cluster.until("kept", ready).await;
    let dropped = cluster.until("dropped", ready).await;
    let paths = cluster.agent().engine().paths().clone();
    cluster.stop_agent().await;
    let pid = std::fs::read_to_string(paths.pid_file()).expect("pid");
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
    let now = kube::api::DeleteParams::default().grace_period(0);
    cluster.pods().delete("dropped", &now).await.expect("delete");
    cluster.start_agent().await;

    let uid = dropped["metadata"]["uid"].as_str().expect("uid");
    let left = paths.pods().join(uid);
    tokio::time::timeout(Duration::from_secs(30), async {
        while Path::new(&left).exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("what was deleted meanwhile goes");
    // Killed while the agent runs, the engine comes back by itself.
    let pid = std::fs::read_to_string(paths.pid_file()).expect("pid");
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": IMAGE, "command": ["true"]}]});
    cluster.create("after", spec).await;
    cluster.until("after", |status| status["phase"] == "Succeeded").await;

    let after = cluster.until("kept", ready).await;
    let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(container(&before), container(&after));
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    for pod in ["kept", "after"] {
        cluster.delete(pod).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_nodes_reach_each_other() {
    let cluster = Cluster::start().await;
    let other = cluster.node("node2").await;
    let serve = json!({"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": IMAGE, "command": ["nc", "-l", "-p", "8080", "-e", "echo", "hello"]},
    ]});
    cluster.create("server", serve).await;
    let server = cluster.until("server", ready).await;
    let ip = server["status"]["podIP"].as_str().expect("address");
    let ask = json!({"restartPolicy": "Never", "nodeName": "node2", "containers": [
        {"name": "c", "image": IMAGE, "command": ["sh", "-c", format!("sleep 1000 | nc -w 10 {ip} 8080 | head -n 1")]},
    ], "terminationGracePeriodSeconds": 0});
    cluster.create("client", ask).await;
    let uid = cluster.until("client", |status| status["phase"] != "Pending").await["metadata"]["uid"].clone();
    let said = async {
        while cluster.read(&other.access(), uid.as_str().expect("uid"), "c").await != "hello\n" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), said).await.expect("an answer");
    for pod in ["server", "client"] {
        cluster.delete(pod).await;
    }
    let engine = other.engine().clone();
    other.stop().await;
    engine.stop(true).await.expect("stop");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_needs_the_right_secret() {
    let cluster = Cluster::start().await;
    let registry = Registry::start(&cluster.dir("registry"));
    let kind = "kubernetes.io/dockerconfigjson";
    cluster.secret("right", kind, json!({".dockerconfigjson": registry.credentials("secret")})).await;
    cluster.secret("wrong", kind, json!({".dockerconfigjson": registry.credentials("guess")})).await;
    let spec = |secret: &str| {
        json!({"restartPolicy": "Never", "imagePullSecrets": [{"name": secret}], "containers": [
            {"name": "c", "image": registry.image(), "command": ["true"], "imagePullPolicy": "Always"},
        ]})
    };
    cluster.create("wrong", spec("wrong")).await;
    let waiting = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff";
    cluster.until("wrong", waiting).await;
    cluster.event("wrong", "Failed", "Failed to pull image").await;
    cluster.create("right", spec("right")).await;
    cluster.until("right", |status| status["phase"] == "Succeeded").await;
    cluster.event("right", "Pulled", "Successfully pulled image").await;
    for pod in ["wrong", "right"] {
        cluster.delete(pod).await;
    }
    cluster.stop().await;
}
