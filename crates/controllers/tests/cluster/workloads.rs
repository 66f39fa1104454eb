//! ReplicaSets, Deployments, DaemonSets and StatefulSets.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::kit::{Cluster, SICK, is_deleting, is_ready, pod_spec};

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "revisionHistoryLimit": 1,
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec(image)}}})
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// What `kubectl rollout status` waits for.
fn rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    status.observed_generation >= deployment.metadata.generation
        && updated >= replicas
        && status.replicas.unwrap_or(0) <= updated
        && status.available_replicas.unwrap_or(0) >= updated
}

fn reason<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a str> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)?.reason.as_deref()
}

#[tokio::test]
async fn a_deployment_rolls_out_back_and_forth() {
    let cluster = Cluster::start(2).await;
    let deployments: Api<Deployment> = cluster.all();
    cluster.create(&deployments, deployment("web", 4, "i:1")).await;
    let done = cluster.until(&deployments, "web", rolled_out).await;
    assert_eq!(done.annotations()["deployment.kubernetes.io/revision"], "1");
    cluster.until(&deployments, "web", |seen| reason(seen, "Progressing") == Some("NewReplicaSetAvailable")).await;
    cluster.until_event("web", "ScalingReplicaSet").await;

    cluster.merge(&deployments, "web", image("i:2")).await;
    let done = cluster
        .until(&deployments, "web", |seen| {
            rolled_out(seen) && seen.annotations().get("deployment.kubernetes.io/revision").is_some_and(|n| n == "2")
        })
        .await;
    assert_eq!(reason(&done, "Available"), Some("MinimumReplicasAvailable"));
    let pods = cluster.until_pods("app=web", |pods| pods.len() == 4).await;
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("i:2")));

    // Back to the first template: its set gets a new number, nothing new is made.
    cluster.merge(&deployments, "web", image("i:1")).await;
    cluster
        .until(&deployments, "web", |seen| {
            rolled_out(seen) && seen.annotations().get("deployment.kubernetes.io/revision").is_some_and(|n| n == "3")
        })
        .await;
    let sets: Api<ReplicaSet> = cluster.all();
    let sets = sets.list(&ListParams::default().labels("app=web")).await.unwrap().items;
    assert_eq!(sets.len(), 2, "one current, one for undo");

    cluster.merge(&deployments, "web", json!({"spec": {"replicas": 1}})).await;
    cluster.until_pods("app=web", |pods| pods.len() == 1).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_broken_rollout_keeps_old_pods_and_tells() {
    let cluster = Cluster::start(1).await;
    let deployments: Api<Deployment> = cluster.all();
    let mut first = deployment("web", 3, "i:1");
    first["spec"]["progressDeadlineSeconds"] = json!(2);
    first["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    cluster.create(&deployments, first).await;
    cluster.until(&deployments, "web", rolled_out).await;
    cluster.until(&deployments, "web", |seen| reason(seen, "Progressing") == Some("NewReplicaSetAvailable")).await;
    let mut sick = image("i:broken");
    sick["spec"]["template"]["metadata"] = json!({"annotations": {SICK: "yes"}});
    cluster.merge(&deployments, "web", sick).await;
    cluster.until(&deployments, "web", |seen| reason(seen, "Progressing") == Some("ProgressDeadlineExceeded")).await;
    let pods = cluster.pods("app=web").await;
    assert_eq!(pods.iter().filter(|pod| is_ready(pod)).count(), 3, "no old pod was given up");
    assert_eq!(pods.len(), 4, "one new pod beside them");
    cluster.stop().await;
}

#[tokio::test]
async fn recreation_ends_old_pods_first() {
    let cluster = Cluster::start(1).await;
    let deployments: Api<Deployment> = cluster.all();
    let mut first = deployment("web", 2, "i:1");
    first["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create(&deployments, first).await;
    cluster.until(&deployments, "web", rolled_out).await;
    cluster.merge(&deployments, "web", image("i:2")).await;
    let images = |pods: &[Pod]| -> BTreeSet<String> {
        pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect()
    };
    cluster
        .until_pods("app=web", |pods| {
            assert!(images(pods).len() <= 1, "old and new at the same time");
            pods.len() == 2 && images(pods).contains("i:2") && pods.iter().all(is_ready)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_set_adopts_replaces_and_releases() {
    let cluster = Cluster::start(1).await;
    let (pods, sets): (Api<Pod>, Api<ReplicaSet>) = (cluster.all(), cluster.all());
    cluster.create(&pods, json!({"metadata": {"name": "stray", "labels": {"app": "r"}}, "spec": pod_spec("i")})).await;
    cluster
        .create(
            &sets,
            json!({"metadata": {"name": "r"}, "spec": {
        "replicas": 3, "selector": {"matchLabels": {"app": "r"}},
        "template": {"metadata": {"labels": {"app": "r"}}, "spec": pod_spec("i")}}}),
        )
        .await;
    let all = cluster.until_pods("app=r", |pods| pods.len() == 3 && pods.iter().all(is_ready)).await;
    assert!(all.iter().any(|pod| pod.name_any() == "stray" && pod.owner_references().len() == 1), "adopted");
    cluster.merge(&pods, "stray", json!({"metadata": {"labels": {"app": "else"}}})).await;
    cluster.until_pods("app=r", |pods| pods.len() == 3).await;
    cluster.until(&pods, "stray", |pod| pod.owner_references().is_empty()).await;
    let victim = cluster.pods("app=r").await[0].name_any();
    pods.delete(&victim, &DeleteParams::default()).await.unwrap();
    cluster
        .until_pods("app=r", |pods| pods.len() == 3 && pods.iter().all(|pod| is_ready(pod) && pod.name_any() != victim))
        .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_restart_in_the_middle_makes_neither_too_many_nor_too_few() {
    let mut cluster = Cluster::start(2).await;
    let deployments: Api<Deployment> = cluster.all();
    cluster.create(&deployments, deployment("web", 12, "i:1")).await;
    for round in 0..4 {
        cluster.until_pods("app=web", |pods| pods.len() >= (round + 1) * 2).await;
        cluster.stop_controllers().await;
        cluster.start_controllers();
    }
    let seen = cluster
        .until_pods("app=web", |pods| {
            assert!(pods.len() <= 12, "too many");
            pods.len() == 12 && pods.iter().all(is_ready)
        })
        .await;
    assert!(seen.iter().all(|pod| !is_deleting(pod)));
    cluster.stop().await;
}

#[tokio::test]
async fn a_daemon_set_follows_nodes_and_updates() {
    let cluster = Cluster::start(2).await;
    let sets: Api<DaemonSet> = cluster.all();
    cluster
        .create(
            &sets,
            json!({"metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}},
        "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod_spec("i:1")}}}),
        )
        .await;
    let nodes = |pods: &[Pod]| -> BTreeSet<String> {
        pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect()
    };
    cluster.until_pods("app=agent", |pods| pods.len() == 2 && nodes(pods).len() == 2).await;
    cluster.node("n3", json!({"cpu": "1", "memory": "1Gi", "pods": "9"})).await;
    cluster.until_pods("app=agent", |pods| pods.len() == 3 && nodes(pods).len() == 3).await;
    let settled = |set: &DaemonSet, updated: i32| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation == set.metadata.generation
            && status.desired_number_scheduled == 3
            && status.updated_number_scheduled == Some(updated)
            && status.number_available == Some(3)
    };
    cluster.until(&sets, "agent", |set| settled(set, 3)).await;
    cluster.merge(&sets, "agent", image("i:2")).await;
    cluster.until(&sets, "agent", |set| settled(set, 3)).await;
    let pods = cluster.pods("app=agent").await;
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("i:2")));
    let revisions: Api<ControllerRevision> = cluster.all();
    assert_eq!(revisions.list(&ListParams::default()).await.unwrap().items.len(), 2);
    cluster.stop().await;
}

#[tokio::test]
async fn a_stateful_set_goes_in_order() {
    let cluster = Cluster::start(1).await;
    let sets: Api<StatefulSet> = cluster.all();
    cluster
        .create(
            &sets,
            json!({"metadata": {"name": "db"}, "spec": {
        "serviceName": "db", "replicas": 3, "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec("i:1")}}}),
        )
        .await;
    let names = |pods: &[Pod]| -> Vec<String> { pods.iter().map(|pod| pod.name_any()).collect() };
    cluster
        .until_pods("app=db", |pods| {
            // No pod before its predecessor is ready.
            let ready: Vec<bool> = pods.iter().map(is_ready).collect();
            assert!(ready.iter().rev().skip(1).all(|ready| *ready), "{:?} {ready:?}", names(pods));
            names(pods) == ["db-0", "db-1", "db-2"] && ready[2]
        })
        .await;
    let settled = |set: &StatefulSet| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation == set.metadata.generation
            && status.ready_replicas == Some(3)
            && status.updated_replicas == Some(3)
            && status.current_revision == status.update_revision
    };
    let before = cluster.until(&sets, "db", settled).await.status.unwrap().current_revision;
    cluster.merge(&sets, "db", image("i:2")).await;
    let after = cluster
        .until(&sets, "db", |set| {
            settled(set) && set.status.as_ref().is_some_and(|status| status.current_revision != before)
        })
        .await;
    assert_eq!(after.status.unwrap().replicas, 3);
    cluster.merge(&sets, "db", json!({"spec": {"replicas": 1}})).await;
    cluster.until_pods("app=db", |pods| names(pods) == ["db-0"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_stateful_set_makes_claims_that_outlive_its_pods() {
    let cluster = Cluster::start(1).await;
    let (sets, claims): (Api<StatefulSet>, Api<PersistentVolumeClaim>) = (cluster.all(), cluster.all());
    cluster
        .create(
            &sets,
            json!({"metadata": {"name": "db"}, "spec": {
        "serviceName": "db", "replicas": 1, "selector": {"matchLabels": {"app": "db"}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec("i:1")}}}),
        )
        .await;
    cluster.until(&claims, "data-db-0", |_| true).await;
    cluster.until_event("db-0", "FailedScheduling").await;
    cluster.merge(&sets, "db", json!({"spec": {"replicas": 0}})).await;
    cluster.until_pods("app=db", <[Pod]>::is_empty).await;
    assert!(claims.get_opt("data-db-0").await.unwrap().is_some());
    cluster.stop().await;
}
