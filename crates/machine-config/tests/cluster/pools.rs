//! Rendering and rollout, with played daemons.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Node},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use osc_machine_config::{ignition, names};
use osc_objects::MachineConfigPool;
use serde_json::json;

use crate::kit::{Cluster, FAILS, PATIENCE, STUCK, note, object};

#[tokio::test]
async fn rows_1_5_6_12_and_30_a_pool_follows_its_configurations() {
    let mut cluster = Cluster::played(0).await;
    for name in ["master", "worker"] {
        let pool = cluster.pools.get(name).await.unwrap();
        for label in [names::BUILT_IN.to_owned(), format!("{}{name}", names::POOL_PREFIX)] {
            assert_eq!(pool.labels().get(&label).map(String::as_str), Some(""), "{name} {label}");
        }
        assert_eq!(pool.labels().contains_key(names::REQUIRED), name == "master");
    }
    // Row 6: nothing to render from, once what the pool began with is taken away.
    let bare = cluster.until_updated("worker", 0).await.target().unwrap().to_owned();
    cluster.configs.delete("00-worker", &DeleteParams::default()).await.unwrap();
    let pool = cluster.until(&cluster.pools, "worker", |pool| pool.is("RenderDegraded") && pool.is("Degraded")).await;
    assert!(pool.condition("RenderDegraded").unwrap().message.contains("no MachineConfig matches"));
    let edges = record_updating(&mut cluster);
    // Row 1: no nodes.
    cluster.file("00-worker", "worker", "/etc/a", "1").await;
    cluster.until_retargeted("worker", &bare).await;
    let pool = cluster.until_updated("worker", 0).await;
    assert!(!pool.is("Updating") && !pool.is("Degraded") && !pool.is("RenderDegraded"));
    let first = pool.target().unwrap().to_owned();
    let rendered = cluster.configs.get(&first).await.unwrap();
    assert_eq!(rendered.owner_references()[0].name, "worker");
    assert!(rendered.annotations().contains_key(names::GENERATED_BY));
    // Row 30: a late node.
    cluster.node("n1", "worker").await;
    cluster.until_updated("worker", 1).await;
    assert_eq!(note(&cluster.nodes.get("n1").await.unwrap(), names::CURRENT), first);
    // Row 5: one byte; the reached configuration follows the node.
    cluster.annotate("n1", STUCK, Some("x")).await;
    cluster.file("00-worker", "worker", "/etc/a", "2").await;
    let second = cluster.until_retargeted("worker", &first).await;
    let pool = cluster.until(&cluster.pools, "worker", |pool| pool.is("Updating")).await;
    assert_eq!(pool.status.unwrap().configuration.unwrap().name, first);
    let node = cluster.until(&cluster.nodes, "n1", |node| note(node, names::STATE) == "Working").await;
    assert!(node.spec.unwrap().taints.is_none(), "the taint goes once the node is targeted");
    cluster.annotate("n1", STUCK, None).await;
    cluster.until_updated("worker", 1).await;
    // Row 12: paused.
    cluster.change(&cluster.pools, "worker", json!({"spec": {"paused": true}})).await;
    cluster.file("00-worker", "worker", "/etc/a", "3").await;
    let third = cluster.until_retargeted("worker", &second).await;
    let still = |pool: &MachineConfigPool| !pool.is("Updated") && !pool.is("Updating");
    cluster.until(&cluster.pools, "worker", still).await;
    let tainted =
        |node: &Node| node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|t| t.key == names::TAINT);
    let node = cluster.until(&cluster.nodes, "n1", tainted).await;
    assert_eq!(note(&node, names::DESIRED), second);
    cluster.change(&cluster.pools, "worker", json!({"spec": {"paused": false}})).await;
    cluster.until_updated("worker", 1).await;
    let node = cluster.until(&cluster.nodes, "n1", |node| !tainted(node)).await;
    assert_eq!(note(&node, names::CURRENT), third);
    // Row 4: the same content again is the same name and no rollout.
    cluster.file("00-worker", "worker", "/etc/a", "2").await;
    assert_eq!(cluster.until_retargeted("worker", &third).await, second);
    cluster.until_updated("worker", 1).await;
    rendered_again(&cluster, &second).await;
    let seen = edges.lock().unwrap().clone();
    assert_eq!(seen, BTreeSet::from([first, second, third]), "every target was announced");
    cluster.stop().await;
}

/// Row 4: an input that was touched is rendered again, and nothing comes of it.
async fn rendered_again(cluster: &Cluster, target: &str) {
    let before = cluster.nodes.get("n1").await.unwrap().resource_version();
    cluster.change(&cluster.configs, "00-worker", json!({"metadata": {"annotations": {"touched": "yes"}}})).await;
    // A pool that is rendered later from the same input.
    let later = json!({"metadata": {"name": "later"}, "spec": {
        "machineConfigSelector": {"matchLabels": {names::ROLE: "worker"}},
        "nodeSelector": {"matchLabels": {"node-role.kubernetes.io/later": ""}}}});
    cluster.pools.create(&PostParams::default(), &object(later)).await.unwrap();
    let later = cluster.until_updated("later", 0).await;
    let suffix = target.strip_prefix("rendered-worker").unwrap();
    assert_eq!(later.target().unwrap(), format!("rendered-later{suffix}"), "the same content");
    let pool = cluster.pools.get("worker").await.unwrap();
    assert!(pool.target() == Some(target) && pool.is("Updated"), "{pool:?}");
    assert_eq!(cluster.nodes.get("n1").await.unwrap().resource_version(), before, "nobody told the node anything");
    cluster.pools.delete("later", &DeleteParams::default()).await.unwrap();
}

/// Targets during which pool `worker` was seen updating.
fn record_updating(cluster: &mut Cluster) -> Arc<Mutex<BTreeSet<String>>> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (log, stop) = (seen.clone(), cluster.stopped());
    let only = watcher::Config::default().fields("metadata.name=worker");
    let pools: Api<MachineConfigPool> = cluster.pools.clone();
    cluster.also(tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(pools, only).default_backoff().applied_objects());
        loop {
            let pool = tokio::select! {
                () = stop.cancelled() => return,
                pool = events.next() => pool,
            };
            if let Some(Ok(pool)) = pool
                && pool.is("Updating")
            {
                log.lock().unwrap().extend(pool.target().map(str::to_owned));
            }
        }
    }));
    seen
}

#[tokio::test]
async fn rows_9_10_and_13_never_more_than_allowed_are_away_and_zones_come_in_order() {
    let mut cluster = Cluster::played(5).await;
    for (node, zone) in [("n1", "z2"), ("n3", "z1"), ("n4", "z3"), ("n5", "z1")] {
        cluster.change(&cluster.nodes, node, json!({"metadata": {"labels": {names::ZONE: zone}}})).await;
    }
    let first = cluster.until_updated("worker", 5).await.target().unwrap().to_owned();
    let seen = record_rollout(&mut cluster, &first);
    for (number, (limit, most)) in [(json!(2), 2), (json!("10%"), 1), (json!(0), 1)].into_iter().enumerate() {
        let old = cluster.until_updated("worker", 5).await.target().unwrap().to_owned();
        cluster.change(&cluster.pools, "worker", json!({"spec": {"maxUnavailable": limit}})).await;
        cluster.file("00-worker", "worker", "/etc/a", &number.to_string()).await;
        cluster.until_retargeted("worker", &old).await;
        cluster.until_updated("worker", 5).await;
        let rollout = std::mem::take(&mut *seen.lock().unwrap());
        assert!((1..=most).contains(&rollout.most), "{limit}: {} at once", rollout.most);
        if most == 1 {
            // Of one zone the oldest, then by name; who has none comes last.
            assert_eq!(rollout.order, ["n3", "n5", "n1", "n4", "n2"], "{limit}");
        }
    }
    cluster.stop().await;
}

/// What was seen of a rollout.
#[derive(Default)]
struct Rollout {
    /// Most nodes that were away at once.
    most: usize,
    /// Nodes in the order in which they were told.
    order: Vec<String>,
}

fn record_rollout(cluster: &mut Cluster, first: &str) -> Arc<Mutex<Rollout>> {
    let seen = Arc::new(Mutex::new(Rollout::default()));
    let (log, stop, nodes, first) = (seen.clone(), cluster.stopped(), cluster.nodes.clone(), first.to_owned());
    cluster.also(tokio::spawn(async move {
        let mut told = BTreeMap::new();
        let mut away = BTreeSet::new();
        let mut events = std::pin::pin!(watcher(nodes, watcher::Config::default()).default_backoff().applied_objects());
        loop {
            let node = tokio::select! {
                () = stop.cancelled() => return,
                node = events.next() => node,
            };
            let Some(Ok(node)) = node else { continue };
            let (name, desired) = (node.name_any(), note(&node, names::DESIRED));
            if note(&node, names::CURRENT) == desired {
                away.remove(&name);
            } else {
                away.insert(name.clone());
            }
            let mut seen = log.lock().unwrap();
            seen.most = seen.most.max(away.len());
            let known = told.insert(name.clone(), desired.clone()).unwrap_or_else(|| first.clone());
            if known != desired {
                seen.order.push(name);
            }
        }
    }));
    seen
}

#[tokio::test]
async fn row_11_a_foreign_cordon_keeps_the_others_waiting() {
    let cluster = Cluster::played(2).await;
    let old = cluster.until_updated("worker", 2).await.target().unwrap().to_owned();
    cluster.change(&cluster.nodes, "n1", json!({"spec": {"unschedulable": true}})).await;
    cluster.until(&cluster.pools, "worker", |pool| pool.status.as_ref().unwrap().unavailable_machine_count == 1).await;
    cluster.file("00-worker", "worker", "/etc/a", "1").await;
    cluster.until_retargeted("worker", &old).await;
    // The mark of a node that waits is made after others were told.
    let waits =
        |node: &Node| node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|t| t.key == names::TAINT);
    for name in ["n1", "n2"] {
        let node = cluster.until(&cluster.nodes, name, waits).await;
        assert_eq!(note(&node, names::DESIRED), old, "{name} starts although the budget is used up");
    }
    cluster.change(&cluster.nodes, "n1", json!({"spec": {"unschedulable": false}})).await;
    cluster.until_updated("worker", 2).await;
    cluster.stop().await;
}

#[tokio::test]
async fn of_two_controllers_one_acts_and_the_other_takes_over_at_once() {
    let mut cluster = Cluster::played(1).await;
    cluster.file("00-worker", "worker", "/etc/a", "1").await;
    let first = cluster.until_updated("worker", 1).await.target().unwrap().to_owned();
    cluster.controller("second", cluster.stopped());
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "default");
    let held_by = |lease: &Lease, by: &str| lease.spec.as_ref().unwrap().holder_identity.as_deref() == Some(by);
    cluster.until(&leases, "machine-config-controller", |lease| held_by(lease, "first")).await;
    cluster.stop_first();
    let lease = cluster.until(&leases, "machine-config-controller", |lease| held_by(lease, "second")).await;
    assert_eq!(lease.spec.unwrap().lease_transitions, Some(2), "it changed hands once");
    cluster.file("00-worker", "worker", "/etc/a", "2").await;
    cluster.until_retargeted("worker", &first).await;
    cluster.until_updated("worker", 1).await;
    cluster.stop().await;
}

#[tokio::test]
async fn rows_3_7_8_and_29_custom_pools_take_nodes_and_give_them_back() {
    let cluster = Cluster::played(2).await;
    cluster.file("00-worker", "worker", "/etc/a", "worker").await;
    cluster.kata_pool().await;
    cluster.config("50-kata", "kata-oc", json!({"extensions": ["sandboxed-containers"]})).await;
    cluster.file("99-z", "worker", "/etc/b", "worker").await;
    cluster.file("10-a", "kata-oc", "/etc/b", "custom").await;
    cluster.until_updated("worker", 2).await;
    let both = |pool: &MachineConfigPool| {
        let source = pool.spec.configuration.iter().flat_map(|target| &target.source);
        let names: Vec<&str> = source.map(|source| source.name.as_str()).collect();
        names.contains(&"99-z") && names.contains(&"10-a")
    };
    cluster.until(&cluster.pools, "kata-oc", both).await;
    cluster.until_updated("kata-oc", 0).await;
    let label = |value| json!({"metadata": {"labels": {"node-role.kubernetes.io/kata-oc": value}}});
    cluster.change(&cluster.nodes, "n1", label(json!(""))).await;
    let kata = cluster.until_updated("kata-oc", 1).await.target().unwrap().to_owned();
    cluster.until_updated("worker", 1).await;
    assert_eq!(note(&cluster.nodes.get("n1").await.unwrap(), names::CURRENT), kata);
    let spec = cluster.configs.get(&kata).await.unwrap().spec;
    assert_eq!(spec.extensions, Some(vec!["sandboxed-containers".into()]));
    // Row 3: whatever the names, the pool's own input wins.
    let file = &ignition::parse(&spec.config.unwrap()).unwrap().files[Path::new("/etc/b")];
    assert_eq!(file.contents.as_ref().unwrap().bytes, b"custom");
    let kata = memberships(&cluster).await;
    // Row 29: a bad configuration is cured by a better one.
    let targets: Vec<String> = kata_targets(&cluster, &kata).await;
    cluster.until(&cluster.nodes, "n1", |node| note(node, names::CURRENT) == targets[1]).await;
    let pool = cluster.until_updated("kata-oc", 1).await;
    assert!(!pool.is("Degraded"));
    // Back to worker, and the pool can go.
    cluster.change(&cluster.nodes, "n1", label(json!(null))).await;
    cluster.until_updated("kata-oc", 0).await;
    let worker = cluster.until_updated("worker", 2).await.target().unwrap().to_owned();
    cluster.until(&cluster.nodes, "n1", |node| note(node, names::CURRENT) == worker).await;
    cluster.pools.delete("kata-oc", &DeleteParams::default()).await.unwrap();
    cluster.stop().await;
}

/// Breaks the pool's node with one target and cures it with the next.
async fn kata_targets(cluster: &Cluster, old: &str) -> Vec<String> {
    // Held back until the node knows what it shall fail on.
    cluster.change(&cluster.pools, "kata-oc", json!({"spec": {"paused": true}})).await;
    cluster.file("60-kata", "kata-oc", "/etc/a", "bad").await;
    let bad = cluster.until_retargeted("kata-oc", old).await;
    cluster.annotate("n1", FAILS, Some(&bad)).await;
    cluster.change(&cluster.pools, "kata-oc", json!({"spec": {"paused": false}})).await;
    let pool = cluster.until(&cluster.pools, "kata-oc", |pool| pool.is("Degraded")).await;
    assert!(pool.condition("Degraded").unwrap().message.contains(r#"Node n1 is reporting: "it is bad""#));
    cluster.file("60-kata", "kata-oc", "/etc/a", "good").await;
    let good = cluster.until_retargeted("kata-oc", &bad).await;
    vec![bad, good]
}

/// Rows 7 and 8: a node of two custom pools belongs to neither, a master stays one. Returns
/// the target of the pool the node is in at the end.
async fn memberships(cluster: &Cluster) -> String {
    let role = |role: &str, value| json!({"metadata": {"labels": {format!("node-role.kubernetes.io/{role}"): value}}});
    let count = async |pool: &str, nodes: i32| {
        let counted =
            |pool: &MachineConfigPool| pool.status.as_ref().is_some_and(|status| status.machine_count == nodes);
        cluster.until(&cluster.pools, pool, counted).await;
    };
    let infra = json!({"metadata": {"name": "infra"}, "spec": {
        "machineConfigSelector": {"matchLabels": {names::ROLE: "worker"}},
        "nodeSelector": {"matchLabels": {"node-role.kubernetes.io/infra": ""}}}});
    cluster.pools.create(&PostParams::default(), &object(infra)).await.unwrap();
    cluster.change(&cluster.nodes, "n1", role("infra", json!(""))).await;
    count("kata-oc", 0).await;
    count("infra", 0).await;
    count("worker", 1).await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let told = async {
        let about = ListParams::default().fields("involvedObject.name=n1,reason=SeveralPools");
        while events.list(&about).await.unwrap().items.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("an event");
    // The others proceed without it.
    let (worker, desired) =
        (cluster.until_updated("worker", 1).await, note(&cluster.nodes.get("n1").await.unwrap(), names::DESIRED));
    cluster.file("00-worker", "worker", "/etc/a", "more").await;
    let target = cluster.until_retargeted("worker", worker.target().unwrap()).await;
    cluster.until_updated("worker", 1).await;
    assert_eq!(note(&cluster.nodes.get("n2").await.unwrap(), names::CURRENT), target);
    assert_eq!(note(&cluster.nodes.get("n1").await.unwrap(), names::DESIRED), desired, "nobody tells it anything");
    cluster.change(&cluster.nodes, "n1", role("infra", json!(null))).await;
    count("kata-oc", 1).await;
    for (value, masters) in [(json!(""), 1), (json!(null), 0)] {
        cluster.change(&cluster.nodes, "n1", role("master", value)).await;
        count("master", masters).await;
        count("kata-oc", 1 - masters).await;
        if masters == 1 {
            let target = cluster.until_updated("master", 1).await.target().unwrap().to_owned();
            assert_eq!(note(&cluster.nodes.get("n1").await.unwrap(), names::CURRENT), target);
        }
    }
    cluster.pools.delete("infra", &DeleteParams::default()).await.unwrap();
    cluster.until_updated("kata-oc", 1).await.target().unwrap().to_owned()
}
