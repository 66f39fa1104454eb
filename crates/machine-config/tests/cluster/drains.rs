//! Draining nodes that ask for it.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use osc_machine_config::names;
use serde_json::json;

use crate::kit::{Cluster, note};

fn cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

#[tokio::test]
async fn rows_14_and_15_a_drain_waits_for_budgets_and_cordons_again() {
    let cluster = Cluster::played(2).await;
    let pods = cluster.pod("moves", "n1", None).await;
    cluster.pod("stays", "n1", Some("DaemonSet")).await;
    cluster.budget().await;
    cluster.annotate("n1", names::DESIRED_DRAIN, Some("drain-x")).await;
    cluster.until(&cluster.nodes, "n1", cordoned).await;
    // Row 15: somebody lets pods in again meanwhile.
    cluster.change(&cluster.nodes, "n1", json!({"spec": {"unschedulable": false}})).await;
    let node = cluster.until(&cluster.nodes, "n1", cordoned).await;
    assert_eq!(note(&node, names::APPLIED_DRAIN), "");
    assert!(pods.get_opt("moves").await.unwrap().is_some(), "the budget keeps it");
    // Row 14: the budget is released.
    cluster.allow(1).await;
    cluster.until_gone(&pods, "moves").await;
    let node = cluster.until(&cluster.nodes, "n1", |node| note(node, names::APPLIED_DRAIN) == "drain-x").await;
    assert!(cordoned(&node));
    assert_eq!(pods.get("stays").await.unwrap().name_any(), "stays");
    cluster.annotate("n1", names::DESIRED_DRAIN, Some("uncordon-x")).await;
    let node = cluster.until(&cluster.nodes, "n1", |node| note(node, names::APPLIED_DRAIN) == "uncordon-x").await;
    assert!(!cordoned(&node));
    cluster.stop().await;
}
