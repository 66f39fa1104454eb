//! Draining nodes that ask for it.

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use osc_machine_config::names;
use serde_json::json;

use crate::kit::{Cluster, note, object};

fn cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

async fn pod(cluster: &Cluster, name: &str, owner: &str) -> Api<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    let owners = if owner.is_empty() {
        json!([])
    } else {
        json!([{"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u", "controller": true}])
    };
    let pod = json!({"metadata": {"name": name, "labels": {"app": "a"}, "ownerReferences": owners},
        "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "serviceAccountName": "default",
            "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &object(pod)).await.expect("a pod");
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a pod status");
    pods
}

#[tokio::test]
async fn rows_14_and_15_a_drain_waits_for_budgets_and_cordons_again() {
    let cluster = Cluster::played(2).await;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(cluster.client.clone(), "default");
    let account = object(json!({"metadata": {"name": "default"}}));
    if accounts.get_opt("default").await.unwrap().is_none() {
        accounts.create(&PostParams::default(), &account).await.expect("a service account");
    }
    let pods = pod(&cluster, "moves", "").await;
    pod(&cluster, "stays", "DaemonSet").await;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(cluster.client.clone(), "default");
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    budgets.create(&PostParams::default(), &object(budget)).await.expect("a budget");
    let allow = async |count: i32| {
        let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": count, "currentHealthy": 2,
            "desiredHealthy": 1, "expectedPods": 2}});
        budgets.patch_status("b", &PatchParams::default(), &Patch::Merge(status)).await.expect("a budget status");
    };
    allow(0).await;
    cluster.annotate("n1", names::DESIRED_DRAIN, Some("drain-x")).await;
    cluster.until(&cluster.nodes, "n1", cordoned).await;
    // Row 15: somebody lets pods in again meanwhile.
    cluster.change(&cluster.nodes, "n1", json!({"spec": {"unschedulable": false}})).await;
    let node = cluster.until(&cluster.nodes, "n1", cordoned).await;
    assert_eq!(note(&node, names::APPLIED_DRAIN), "");
    assert!(pods.get_opt("moves").await.unwrap().is_some(), "the budget keeps it");
    // Row 14: the budget is released.
    allow(1).await;
    cluster.until_gone(&pods, "moves").await;
    let node = cluster.until(&cluster.nodes, "n1", |node| note(node, names::APPLIED_DRAIN) == "drain-x").await;
    assert!(cordoned(&node));
    assert_eq!(pods.get("stays").await.unwrap().name_any(), "stays");
    cluster.annotate("n1", names::DESIRED_DRAIN, Some("uncordon-x")).await;
    let node = cluster.until(&cluster.nodes, "n1", |node| note(node, names::APPLIED_DRAIN) == "uncordon-x").await;
    assert!(!cordoned(&node));
    cluster.stop().await;
}
