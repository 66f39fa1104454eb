//! Install, update, remove: the worked timeline, with the operator's own token and rights.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod},
    node::v1::RuntimeClass,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use osc_objects::{KataConfig, MachineConfig, MachineConfigPool};
use serde_json::json;

use crate::kit::{NAMESPACE, World, degraded, options};

const KATA: &str = "rendered-kata-oc-1";
const WORKER: &str = "rendered-worker-1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worked_timeline_state_by_state_with_restarts_between() {
    let world = World::start().await;
    let operator = world.operator(options()).await;
    world.create_config("example", json!({})).await.expect("a first one");
    let config = world.until_state("example", "True/Installing/0/0").await;
    assert!(config.status.expect("a status").waiting_for_mco_to_start);
    world.until::<MachineConfigPool>(None, "with kata-oc", |pools| pools.len() == 3).await;
    world.until::<MachineConfig>(None, "the extension", |configs| configs.len() == 1).await;
    world.until::<Node>(None, "labelled", |nodes| labelled(nodes) == 2).await;
    operator.kill().await;

    world.pool("kata-oc", 2, KATA, true).await;
    let operator = world.operator(options()).await;
    let config = world.until_state("example", "True/Installing/2/0").await;
    let status = config.status.expect("a status");
    assert!(!status.waiting_for_mco_to_start);
    assert_eq!(status.kata_nodes.waiting_to_install, ["w0", "w1"]);

    world.set_node("w1", WORKER, "Working", "").await;
    world.until_config("example", "w1 installing", |config| lists(config).0 == ["w1"]).await;
    assert!(world.names::<RuntimeClass>().await.is_empty(), "nothing is offered before it works");
    world.set_node("w1", KATA, "Done", "").await;
    world.until_state("example", "True/Installing/2/1").await;
    world.set_node("w0", WORKER, "Degraded", "disk full").await;
    let failed = world.until_state("example", "True/Failed/2/1").await;
    assert_eq!(degraded(&failed), "NodeDegraded");
    operator.stop().await;

    world.set_node("w0", KATA, "Done", "").await;
    world.pool("kata-oc", 2, KATA, false).await;
    let operator = world.operator(options()).await;
    let config = world.until_state("example", "False//2/2").await;
    assert_eq!(degraded(&config), "AsExpected");
    world.until::<RuntimeClass>(None, "kata", |classes| classes.len() == 1).await;
    world.until::<DaemonSet>(None, "the monitor", |sets| sets.iter().any(is_monitor)).await;

    edited_overhead_survives(&world).await;
    remove(&world).await;
    operator.stop().await;
    world.stop().await;
}

async fn edited_overhead_survives(world: &World) {
    let classes: Api<RuntimeClass> = Api::all(world.client.clone());
    let patch = Patch::Merge(json!({"overhead": {"podFixed": {"memory": "1Gi"}}}));
    classes.patch("kata", &PatchParams::default(), &patch).await.expect("an edit");
    world.set_node("w0", KATA, "Done", "unrelated").await;
    world.until_state("example", "False//2/2").await;
    let class = classes.get("kata").await.expect("still there");
    assert_eq!(class.overhead.expect("overhead").pod_fixed.expect("amounts")["memory"].0, "1Gi");
}

async fn remove(world: &World) {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    for (name, phase) in [("done", "Succeeded"), ("busy", "Running")] {
        pod(&pods, name, phase).await;
    }
    world.delete_config("example").await;
    let blocked = world.until_state("example", "False/BlockedByExistingKataPods/2/2").await;
    assert_eq!(degraded(&blocked), "BlockedByPods");
    let started = std::time::Instant::now();
    pods.delete("busy", &DeleteParams::default().grace_period(0)).await.expect("a deletion");
    world.until_state("example", "True/Uninstalling/2/2").await;
    assert!(started.elapsed().as_secs() < 5, "deletion goes on when the last pod goes: {:?}", started.elapsed());
    world.until::<Node>(None, "without the role", |nodes| labelled(nodes) == 0).await;
    world.pool("worker", 2, WORKER, true).await;
    let config = world.until_state("example", "True/Uninstalling/0/0").await;
    assert_eq!(config.status.expect("a status").kata_nodes.waiting_to_uninstall, ["w0", "w1"]);
    assert!(world.names::<MachineConfigPool>().await.contains(&"kata-oc".to_owned()), "the pool waits for its nodes");
    for name in ["w0", "w1"] {
        world.set_node(name, WORKER, "Done", "").await;
    }
    world.pool("worker", 2, WORKER, false).await;
    world.until::<KataConfig>(None, "gone", |configs| configs.is_empty()).await;
    assert_eq!(world.names::<MachineConfigPool>().await, ["master", "worker"]);
    assert!(world.names::<MachineConfig>().await.is_empty());
    world.until::<RuntimeClass>(None, "gone with its owner", |classes| classes.is_empty()).await;
    let monitors: Api<DaemonSet> = Api::namespaced(world.client.clone(), NAMESPACE);
    let left = monitors.list(&Default::default()).await.expect("a list");
    assert!(!left.items.iter().any(is_monitor), "the monitor stays");
}

/// Whether the operator made it; the others of its namespace come with its manifests.
fn is_monitor(set: &DaemonSet) -> bool {
    set.metadata.name.as_deref() == Some("openshift-sandboxed-containers-monitor")
}

async fn pod(pods: &Api<Pod>, name: &str, phase: &str) {
    let pod = json!({"metadata": {"name": name}, "spec": {"runtimeClassName": "kata", "nodeName": "w0",
        "containers": [{"name": "c", "image": "i"}]}});
    let pod = serde_json::from_value(pod).expect("a pod");
    // Its account is made a moment after the namespace.
    let made = async {
        while let Err(error) = pods.create(&PostParams::default(), &pod).await {
            assert!(error.to_string().contains("serviceaccount"), "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::kit::PATIENCE, made).await.expect("a pod");
    let status = Patch::Merge(json!({"status": {"phase": phase}}));
    pods.patch_status(name, &PatchParams::default(), &status).await.expect("a status");
}

fn labelled(nodes: &[Node]) -> usize {
    let role = osc_objects::names::kata::ROLE_LABEL;
    nodes.iter().filter(|node| node.metadata.labels.iter().any(|labels| labels.contains_key(role))).count()
}

fn lists(config: &KataConfig) -> (Vec<String>, Vec<String>) {
    let nodes = config.status.clone().unwrap_or_default().kata_nodes;
    (nodes.installing, nodes.installed)
}
