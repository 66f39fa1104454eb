//! Real daemons on temporary roots.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::DeleteParams};
use osc_machine_config::{
    daemon::{self, Embedded, Engine, EngineAnswer, rules::Rule},
    names, payload, rights,
};
use osc_objects::MachineConfiguration;
use serde_json::json;

use crate::kit::{Cluster, note};

/// A node whose engine counts its restarts in a file, and fails while another one
/// is there.
fn daemon_of(cluster: &mut Cluster, name: &str, payload: &Path) -> PathBuf {
    let root = cluster.directory().join(name);
    fs::create_dir_all(root.join("etc/containerd")).unwrap();
    let imports = root.join("etc/containerd/conf.d/*.toml");
    fs::write(root.join("etc/containerd/config.toml"), format!("version = 2\nimports = [{imports:?}]\n")).unwrap();
    let engine = {
        let root = root.clone();
        move |_| -> EngineAnswer {
            let root = root.clone();
            Box::pin(async move {
                if root.join("engine-broken").exists() {
                    return Err("the played engine is broken".into());
                }
                let restarts = root.join("restarts");
                let count: u32 = fs::read_to_string(&restarts).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                fs::write(restarts, (count + 1).to_string()).map_err(|error| error.to_string())
            })
        }
    };
    let options = daemon::Options {
        root: root.clone(),
        payload: Some(payload.to_owned()),
        engine: Some(Engine::containerd()),
        rules: vec![Rule { path: "/etc/careful".into(), actions: vec![], drain: true }],
        retry: Duration::from_millis(50),
        ..daemon::Options::node(name, Arc::new(Embedded::new(engine)))
    };
    let run = daemon::run(cluster.client_of(rights::DAEMON_ACCOUNT), options, cluster.stopped());
    cluster.also(tokio::spawn(async move { run.await.expect("the daemon runs until stopped") }));
    root
}

fn packed(dir: &Path) -> PathBuf {
    let parts = dir.join("parts");
    fs::create_dir_all(&parts).unwrap();
    fs::write(parts.join("shim"), "#!/bin/sh\n").unwrap();
    fs::write(parts.join("conf"), "kernel = \"@PAYLOAD@/vmlinux\"\n").unwrap();
    let part = |from: &str, name: &str, executable, placed| payload::Part {
        from: parts.join(from),
        name: name.into(),
        executable,
        placed,
    };
    let out = dir.join("payload");
    payload::pack(&out, &[part("shim", payload::SHIM, true, false), part("conf", payload::CONFIGURATION, false, true)])
        .unwrap();
    out
}

fn degraded(node: &Node) -> bool {
    note(node, names::STATE) == "Degraded"
}

fn done(node: &Node) -> bool {
    note(node, names::STATE) == "Done" && note(node, names::REASON).is_empty()
}

#[tokio::test]
async fn two_nodes_get_sandboxes_lose_them_and_cure_themselves() {
    let mut cluster = Cluster::start().await;
    let payload = packed(cluster.directory());
    let mut roots = Vec::new();
    for name in ["n1", "n2"] {
        cluster.node(name, "worker").await;
        roots.push(daemon_of(&mut cluster, name, &payload));
    }
    cluster.file("00-worker", "worker", "/etc/motd", "hello").await;
    cluster.until_updated("worker", 2).await;
    assert!(roots.iter().all(|root| fs::read_to_string(root.join("etc/motd")).unwrap() == "hello"));
    // An engine that does not come back: degraded, as before, and cured by itself.
    fs::write(roots[0].join("engine-broken"), "").unwrap();
    cluster.config("50-kata", "worker", json!({"extensions": ["sandboxed-containers"]})).await;
    let drop_in = |root: &Path| root.join("etc/containerd/conf.d/99-kata.toml");
    let node = cluster.until(&cluster.nodes, "n1", degraded).await;
    assert!(note(&node, names::REASON).contains("the played engine is broken"), "{}", note(&node, names::REASON));
    assert!(!drop_in(&roots[0]).exists() && !drop_in(&roots[1]).exists(), "n1 uses up the budget");
    cluster.until(&cluster.pools, "worker", |pool| pool.is("Degraded")).await;
    fs::remove_file(roots[0].join("engine-broken")).unwrap();
    cluster.until_updated("worker", 2).await;
    for root in &roots {
        let text = fs::read_to_string(drop_in(root)).unwrap();
        assert!(text.contains(&root.join("opt/sandboxed-containers/current/bin").display().to_string()), "{text}");
        assert!(root.join("opt/sandboxed-containers/current").join(payload::SHIM).exists());
        assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "hello");
    }
    assert_eq!(fs::read_to_string(roots[1].join("restarts")).unwrap(), "1");
    drift(&cluster, &roots[1]).await;
    refused(&cluster, &roots[1]).await;
    drained(&cluster, "60-careful", "/etc/careful").await;
    // The same by the cluster's policy.
    let settings: Api<MachineConfiguration> = Api::all(cluster.client.clone());
    let policy = json!({"files": [{"path": "/etc/polite", "actions": [{"type": "Drain"}]}]});
    cluster.change(&settings, "cluster", json!({"spec": {"nodeDisruptionPolicy": policy}})).await;
    drained(&cluster, "61-polite", "/etc/polite/file").await;
    cluster.configs.delete("50-kata", &DeleteParams::default()).await.unwrap();
    let gone = || roots.iter().all(|root| !drop_in(root).exists());
    cluster.until(&cluster.pools, "worker", |pool| pool.is("Updated") && gone()).await;
    cluster.stop().await;
}

/// Rows 18 and 20.
async fn drift(cluster: &Cluster, root: &Path) {
    fs::write(root.join("etc/motd"), "edited").unwrap();
    let node = cluster.until(&cluster.nodes, "n2", degraded).await;
    assert!(note(&node, names::REASON).contains("/etc/motd: content differs"));
    fs::write(root.join("etc/motd"), "hello").unwrap();
    cluster.until(&cluster.nodes, "n2", done).await;
    fs::write(root.join("etc/motd"), "edited").unwrap();
    cluster.until(&cluster.nodes, "n2", degraded).await;
    let force = root.join("run/machine-config-daemon-force");
    fs::create_dir_all(force.parent().unwrap()).unwrap();
    fs::write(&force, "").unwrap();
    cluster.until(&cluster.nodes, "n2", |node| done(node) && !force.exists()).await;
    assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "hello");
}

/// A configuration no node of this kind can run changes nothing; taking it back cures.
async fn refused(cluster: &Cluster, root: &Path) {
    cluster.config("70-image", "worker", json!({"osImageURL": "registry.example/os"})).await;
    let unreconcilable = |pool: &osc_objects::MachineConfigPool| {
        pool.condition("Degraded").is_some_and(|one| one.message.contains("osImageURL"))
    };
    cluster.until(&cluster.pools, "worker", unreconcilable).await;
    let states: Vec<String> = cluster.all_nodes().await.values().map(|node| note(node, names::STATE)).collect();
    assert!(states.contains(&"Unreconcilable".to_owned()), "{states:?}");
    assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "hello");
    cluster.configs.delete("70-image", &DeleteParams::default()).await.unwrap();
    cluster.until(&cluster.pools, "worker", |pool| pool.is("Updated") && !pool.is("Degraded")).await;
}

/// A rule that asks for it drains each node, and lets pods in again afterwards.
async fn drained(cluster: &Cluster, name: &str, path: &str) {
    let old = cluster.pools.get("worker").await.unwrap().target().unwrap().to_owned();
    cluster.file(name, "worker", path, "x").await;
    let target = cluster.until_retargeted("worker", &old).await;
    cluster.until_updated("worker", 2).await;
    for (name, node) in cluster.all_nodes().await {
        assert_eq!(note(&node, names::APPLIED_DRAIN), format!("uncordon-{target}"), "{name}");
        assert!(!node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false), "{name}");
    }
}
