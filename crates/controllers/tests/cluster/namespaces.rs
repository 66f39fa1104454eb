//! Life and end of namespaces.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::kit::{Cluster, is_ready, pod_spec};

#[tokio::test]
async fn a_namespace_is_furnished_and_kept_so() {
    let cluster = Cluster::start(0).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    cluster.create(&namespaces, json!({"metadata": {"name": "a"}})).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "a");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "a");
    let account = cluster.until(&accounts, "default", |_| true).await;
    let certified = |map: &ConfigMap| map.data.as_ref().is_some_and(|data| data["ca.crt"] == "a certificate");
    cluster.until(&maps, "kube-root-ca.crt", certified).await;
    cluster.merge(&maps, "kube-root-ca.crt", json!({"data": {"ca.crt": "a forgery"}})).await;
    cluster.until(&maps, "kube-root-ca.crt", certified).await;
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    cluster.until(&accounts, "default", |again| again.metadata.uid != account.metadata.uid).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_namespace_goes_with_everything_in_it() {
    let cluster = Cluster::start(1).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    cluster.create(&namespaces, json!({"metadata": {"name": "a"}})).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "a");
    cluster.until(&accounts, "default", |_| true).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "a");
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "a");
    cluster.create(&pods, json!({"metadata": {"name": "p"}, "spec": pod_spec("i")})).await;
    cluster.create(&secrets, json!({"metadata": {"name": "s", "finalizers": ["example.com/hold"]}})).await;
    cluster.until(&pods, "p", is_ready).await;
    namespaces.delete("a", &DeleteParams::background()).await.unwrap();
    let held = cluster
        .until(&namespaces, "a", |namespace| {
            let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.filter(|c| c.type_ == "NamespaceFinalizersRemaining").any(|c| c.status == "True")
        })
        .await;
    assert!(held.metadata.deletion_timestamp.is_some());
    cluster.until_gone(&pods, "p").await;
    cluster.merge(&secrets, "s", json!({"metadata": {"finalizers": null}})).await;
    cluster.until_gone(&namespaces, "a").await;
    cluster.stop().await;
}
