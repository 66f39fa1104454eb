//! The scheduler under bursts and refusals.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::kit::{Cluster, is_ready, pod_spec};

fn asking(name: &str, cpu: &str) -> Value {
    let mut spec = pod_spec("i");
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    json!({"metadata": {"name": name, "labels": {"app": "burst"}}, "spec": spec})
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    (found.reason.as_deref() == Some("Unschedulable")).then(|| found.message.clone()).flatten()
}

#[tokio::test]
async fn a_burst_fills_the_nodes_exactly() {
    let cluster = Cluster::start(2).await;
    let pods: Api<Pod> = cluster.all();
    let names: Vec<_> = (0..20).map(|n| format!("p{n}")).collect();
    futures::future::join_all(names.iter().map(|name| cluster.create(&pods, asking(name, "500m")))).await;
    // Two nodes of four processors: sixteen halves fit, four wait.
    let all = cluster
        .until_pods("app=burst", |pods| {
            pods.iter().filter(|pod| is_ready(pod)).count() == 16
                && pods.iter().filter(|pod| unschedulable(pod).is_some()).count() == 4
        })
        .await;
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    for pod in all.iter().filter(|pod| is_ready(pod)) {
        *per_node.entry(pod.spec.as_ref().unwrap().node_name.clone().unwrap()).or_default() += 1;
    }
    assert_eq!(per_node.into_values().collect::<Vec<_>>(), [8, 8]);
    let waiting = all.iter().find_map(unschedulable).unwrap();
    assert_eq!(waiting, "0/2 nodes are available: 2 Insufficient cpu.");

    cluster.node("n3", json!({"cpu": "4", "memory": "8Gi", "pods": "110"})).await;
    cluster.until_pods("app=burst", |pods| pods.iter().all(is_ready)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn refusals_are_told_and_end_when_the_cluster_changes() {
    let cluster = Cluster::start(1).await;
    let (pods, nodes): (Api<Pod>, Api<Node>) = (cluster.all(), Api::all(cluster.client.clone()));
    let mut spec = pod_spec("i");
    spec["nodeSelector"] = json!({"disk": "ssd"});
    cluster.create(&pods, json!({"metadata": {"name": "picky"}, "spec": spec})).await;
    let event = cluster.until_event("picky", "FailedScheduling").await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(
        event.message.as_deref(),
        Some("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
    );
    cluster.merge(&nodes, "n1", json!({"metadata": {"labels": {"disk": "ssd"}}})).await;
    cluster.until(&pods, "picky", is_ready).await;
    let scheduled = cluster.until_event("picky", "Scheduled").await;
    assert_eq!(scheduled.message.as_deref(), Some("Successfully assigned default/picky to n1"));
    cluster.stop().await;
}

#[tokio::test]
async fn gated_pods_wait_for_their_gates() {
    let cluster = Cluster::start(1).await;
    let pods: Api<Pod> = cluster.all();
    let mut spec = pod_spec("i");
    spec["schedulingGates"] = json!([{"name": "example.com/not-yet"}]);
    cluster.create(&pods, json!({"metadata": {"name": "gated"}, "spec": spec})).await;
    cluster
        .until(&pods, "gated", |pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.filter(|c| c.type_ == "PodScheduled").any(|c| c.reason.as_deref() == Some("SchedulingGated"))
        })
        .await;
    cluster.merge(&pods, "gated", json!({"spec": {"schedulingGates": null}})).await;
    let ready = cluster.until(&pods, "gated", is_ready).await;
    assert_eq!(ready.name_any(), "gated");
    cluster.stop().await;
}
