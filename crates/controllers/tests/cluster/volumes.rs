//! Static binding.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::kit::{Cluster, is_ready, pod_spec};

fn phase(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref()?.phase.as_deref()
}

#[tokio::test]
async fn a_claim_finds_its_volume_and_the_pod_its_node() {
    let cluster = Cluster::start(2).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let (claims, pods): (Api<PersistentVolumeClaim>, Api<Pod>) = (cluster.all(), cluster.all());
    let mut spec = pod_spec("i");
    spec["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    cluster.create(&pods, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    cluster
        .create(
            &claims,
            json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}}),
        )
        .await;
    cluster.until_event("c", "FailedBinding").await;
    cluster
        .create(
            &volumes,
            json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/tmp/nowhere"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}}}}),
        )
        .await;
    let bound = cluster
        .until(&claims, "c", |claim| {
            claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
        })
        .await;
    assert_eq!(bound.spec.unwrap().volume_name.as_deref(), Some("v"));
    assert!(bound.status.unwrap().capacity.unwrap().contains_key("storage"));
    cluster.until(&volumes, "v", |volume| phase(volume) == Some("Bound")).await;
    let pod = cluster.until(&pods, "p", is_ready).await;
    assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("n2"));
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&claims, "c").await;
    cluster.until(&volumes, "v", |volume| phase(volume) == Some("Released")).await;
    cluster.stop().await;
}
