//! Verdicts of probers become labels of nodes, with the operator's own rights.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use osc_objects::names::kata::{ELIGIBLE_LABEL, ROLE_LABEL};
use serde_json::json;

use crate::kit::{NAMESPACE, PATIENCE, World, degraded, options};

const PROBER: &str = "sandboxed-containers-prober";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_eligible_once_its_prober_is_ready() {
    let world = World::start().await;
    let operator = world.operator(options()).await;
    world.create_config("example", json!({"checkNodeEligibility": true})).await.expect("a first one");
    world.until_config("example", "waiting", |config| degraded(config) == "NoEligibleNodes").await;
    // Its pods are played here.
    let sets: Api<DaemonSet> = Api::namespaced(world.client.clone(), NAMESPACE);
    sets.delete(PROBER, &DeleteParams::default()).await.expect("it was in the manifests");
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    prober(&pods, "able", "w0").await;
    prober(&pods, "unable", "w1").await;
    say(&pods, "unable", false).await;
    say(&pods, "able", true).await;
    world.until::<Node>(None, "w0 labelled", |nodes| with(nodes, ELIGIBLE_LABEL) == ["w0"]).await;
    let config = world.until_state("example", "True/Installing/0/0").await;
    assert_eq!(degraded(&config), "AsExpected");
    world.until::<Node>(None, "w0 alone in the pool", |nodes| with(nodes, ROLE_LABEL) == ["w0"]).await;
    operator.stop().await;
    world.stop().await;
}

async fn prober(pods: &Api<Pod>, name: &str, node: &str) {
    let pod = json!({"metadata": {"name": name, "labels": {"name": PROBER}},
        "spec": {"serviceAccountName": PROBER, "nodeName": node, "containers": [{"name": PROBER, "image": "i"}]}});
    let pod = serde_json::from_value(pod).expect("a pod");
    tokio::time::timeout(PATIENCE, pods.create(&PostParams::default(), &pod)).await.expect("in time").expect("a pod");
}

/// What a kubelet reports.
async fn say(pods: &Api<Pod>, name: &str, ready: bool) {
    let container = json!({"name": PROBER, "image": "i", "imageID": "", "restartCount": 0, "started": true,
        "ready": ready, "state": {"running": {}}});
    let status = Patch::Merge(json!({"status": {"phase": "Running", "containerStatuses": [container]}}));
    pods.patch_status(name, &PatchParams::default(), &status).await.expect("a status");
}

fn with(nodes: &[Node], label: &str) -> Vec<String> {
    nodes.iter().filter(|node| node.labels().contains_key(label)).map(ResourceExt::name_any).collect()
}
