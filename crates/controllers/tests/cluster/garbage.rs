//! Deleting owners in all three ways.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::kit::{Cluster, is_ready, pod_spec};

fn deployment() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec("i")}}})
}

async fn running(cluster: &Cluster) -> Api<Deployment> {
    let deployments: Api<Deployment> = cluster.all();
    cluster.create(&deployments, deployment()).await;
    cluster.until_pods("app=web", |pods| pods.len() == 2 && pods.iter().all(is_ready)).await;
    deployments
}

#[tokio::test]
async fn background_deletion_takes_everything_below() {
    let cluster = Cluster::start(1).await;
    let deployments = running(&cluster).await;
    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    cluster.until_gone(&deployments, "web").await;
    cluster.until_pods("app=web", <[Pod]>::is_empty).await;
    let sets: Api<ReplicaSet> = cluster.all();
    assert!(sets.list(&ListParams::default()).await.unwrap().items.is_empty());
    cluster.stop().await;
}

#[tokio::test]
async fn foreground_deletion_takes_dependants_first() {
    let cluster = Cluster::start(1).await;
    let deployments = running(&cluster).await;
    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    let (sets, pods): (Api<ReplicaSet>, Api<Pod>) = (cluster.all(), cluster.all());
    let gone = async {
        loop {
            let owner = deployments.get_metadata_opt("web").await.unwrap();
            if owner.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the owner goes");
    assert!(sets.list(&ListParams::default()).await.unwrap().items.is_empty(), "sets went before");
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty(), "pods went before");
    cluster.stop().await;
}

#[tokio::test]
async fn orphaning_keeps_the_dependants() {
    let cluster = Cluster::start(1).await;
    let deployments = running(&cluster).await;
    deployments.delete("web", &DeleteParams::orphan()).await.unwrap();
    cluster.until_gone(&deployments, "web").await;
    let sets: Api<ReplicaSet> = cluster.all();
    let left = sets.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(left.len(), 1);
    assert!(left[0].owner_references().is_empty());
    let pods = cluster.pods("app=web").await;
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|pod| pod.owner_references().len() == 1), "the set still owns them");
    cluster.stop().await;
}

#[tokio::test]
async fn owners_are_known_by_uid_and_the_last_one_counts() {
    let cluster = Cluster::start(0).await;
    let maps: Api<ConfigMap> = cluster.all();
    let first = cluster.create(&maps, json!({"metadata": {"name": "first"}})).await;
    let second = cluster.create(&maps, json!({"metadata": {"name": "second"}})).await;
    let owner =
        |map: &ConfigMap| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": map.name_any(), "uid": map.uid()});
    cluster
        .create(&maps, json!({"metadata": {"name": "both", "ownerReferences": [owner(&first), owner(&second)]}}))
        .await;
    let mut wrong = owner(&first);
    wrong["uid"] = json!("00000000-0000-0000-0000-000000000000");
    cluster.create(&maps, json!({"metadata": {"name": "wrong", "ownerReferences": [wrong]}})).await;
    cluster.until_gone(&maps, "wrong").await;
    maps.delete("first", &DeleteParams::background()).await.unwrap();
    let both = cluster.until(&maps, "both", |map| map.owner_references().len() == 1).await;
    assert_eq!(both.owner_references()[0].name, "second");
    maps.delete("second", &DeleteParams::background()).await.unwrap();
    cluster.until_gone(&maps, "both").await;
    cluster.stop().await;
}

#[tokio::test]
async fn custom_resources_own_and_are_owned() {
    let cluster = Cluster::start(0).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    cluster
        .create(
            &definitions,
            json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
        )
        .await;
    cluster
        .until(&definitions, "widgets.example.com", |found| {
            let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.filter(|c| c.type_ == "Established").any(|c| c.status == "True")
        })
        .await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
    let widgets: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "default", &resource);
    let widget = cluster
        .create(&widgets, json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}))
        .await;
    let maps: Api<ConfigMap> = cluster.all();
    let owner = json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": widget.uid(), "blockOwnerDeletion": true});
    cluster.create(&maps, json!({"metadata": {"name": "owned", "ownerReferences": [owner]}})).await;
    // Once one whose owner was never there has gone, the new kind is known, and the
    // dependant of one that is there must have survived.
    let never = json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "never", "uid": "never-there"});
    cluster.create(&maps, json!({"metadata": {"name": "astray", "ownerReferences": [never]}})).await;
    cluster.until_gone(&maps, "astray").await;
    assert!(maps.get_opt("owned").await.unwrap().is_some());
    widgets.delete("w", &DeleteParams::foreground()).await.unwrap();
    cluster.until_gone(&widgets, "w").await;
    assert!(maps.get_opt("owned").await.unwrap().is_none(), "it blocked its owner");
    cluster.stop().await;
}
