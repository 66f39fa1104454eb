//! Nodes that fall silent, return and vanish.

use std::time::Duration;

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::Api;
use osc_controllers::Options;
use serde_json::json;

use crate::kit::{Cluster, is_deleting, is_ready, pod_spec};

fn tainted(node: &Node, key: &str) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == key)
}

fn readiness(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.clone())
}

#[tokio::test]
async fn a_silent_node_is_tainted_its_pods_leave_and_it_may_return() {
    let options = Options { node_grace: Duration::from_secs(2), ..Options::default() };
    let cluster = Cluster::with(1, options).await;
    let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(cluster.client.clone()), cluster.all());
    let toleration = |seconds: Option<u32>| {
        json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoSchedule"}])
    };
    for (name, seconds) in [("leaves", Some(1)), ("stays", None)] {
        let mut spec = pod_spec("i");
        spec["tolerations"] = toleration(seconds);
        cluster.create(&pods, json!({"metadata": {"name": name}, "spec": spec})).await;
        cluster.until(&pods, name, is_ready).await;
    }
    let silent = cluster.until(&nodes, "n1", |node| tainted(node, "node.kubernetes.io/unreachable")).await;
    assert_eq!(readiness(&silent).as_deref(), Some("Unknown"));
    cluster.until(&pods, "stays", |pod| !is_ready(pod)).await;
    cluster.until_gone(&pods, "leaves").await;
    cluster.until_event("leaves", "TaintManagerEviction").await;
    assert!(!is_deleting(&pods.get("stays").await.unwrap()));

    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let stamp = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    cluster.merge(&leases, "n1", json!({"spec": {"renewTime": stamp}})).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": crate::kit::now()}]}});
    cluster.merge_status(&nodes, "n1", ready).await;
    cluster.until(&nodes, "n1", |node| !tainted(node, "node.kubernetes.io/unreachable")).await;
    cluster.stop().await;
}

#[tokio::test]
async fn cordoning_taints_and_uncordoning_cleans() {
    let cluster = Cluster::start(1).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    cluster.merge(&nodes, "n1", json!({"spec": {"unschedulable": true}})).await;
    cluster.until(&nodes, "n1", |node| tainted(node, "node.kubernetes.io/unschedulable")).await;
    cluster.merge(&nodes, "n1", json!({"spec": {"unschedulable": null}})).await;
    cluster.until(&nodes, "n1", |node| !tainted(node, "node.kubernetes.io/unschedulable")).await;
    cluster.stop().await;
}
