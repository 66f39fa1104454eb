//! Endpoints, slices and budgets.

use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRole,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::kit::{Cluster, SICK, is_ready, pod_spec};

fn backend(name: &str, sick: bool) -> Value {
    let annotations = if sick { json!({SICK: "yes"}) } else { json!({}) };
    json!({"metadata": {"name": name, "labels": {"app": "web"}, "annotations": annotations}, "spec": pod_spec("i")})
}

#[tokio::test]
async fn a_service_is_followed_by_endpoints_and_slices() {
    let cluster = Cluster::start(1).await;
    let (pods, services): (Api<Pod>, Api<Service>) = (cluster.all(), cluster.all());
    let (endpoints, slices): (Api<Endpoints>, Api<EndpointSlice>) = (cluster.all(), cluster.all());
    cluster
        .create(
            &services,
            json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}),
        )
        .await;
    cluster.create(&pods, backend("good", false)).await;
    cluster.create(&pods, backend("sick", true)).await;
    let counts = |endpoints: &Endpoints| {
        let subsets = endpoints.subsets.clone().unwrap_or_default();
        let sum = |of: fn(&k8s_openapi::api::core::v1::EndpointSubset) -> usize| subsets.iter().map(of).sum::<usize>();
        (sum(|s| s.addresses.as_ref().map_or(0, Vec::len)), sum(|s| s.not_ready_addresses.as_ref().map_or(0, Vec::len)))
    };
    cluster.until(&endpoints, "web", |found| counts(found) == (1, 1)).await;
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let found = slices.list(&of_web).await.unwrap().items;
    let name = found[0].name_any();
    cluster
        .until(&slices, &name, |slice| {
            slice.endpoints.len() == 2 && slice.ports.as_ref().is_some_and(|ports| ports[0].port == Some(8080))
        })
        .await;
    pods.delete("good", &DeleteParams::default()).await.unwrap();
    cluster.until(&endpoints, "web", |found| counts(found) == (0, 1)).await;
    services.delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&endpoints, "web").await;
    cluster.until_gone(&slices, &name).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_budget_says_how_many_may_go() {
    let cluster = Cluster::start(1).await;
    let (pods, budgets): (Api<Pod>, Api<PodDisruptionBudget>) = (cluster.all(), cluster.all());
    cluster
        .create(
            &budgets,
            json!({"metadata": {"name": "b"}, "spec": {
        "minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        )
        .await;
    for name in ["one", "two"] {
        cluster.create(&pods, backend(name, false)).await;
        cluster.until(&pods, name, is_ready).await;
    }
    let allowed = |budget: &PodDisruptionBudget, number: i32| {
        budget
            .status
            .as_ref()
            .is_some_and(|status| status.disruptions_allowed == number && status.observed_generation.is_some())
    };
    cluster.until(&budgets, "b", |budget| allowed(budget, 1)).await;
    pods.evict("one", &Default::default()).await.unwrap();
    cluster.until_gone(&pods, "one").await;
    cluster.until(&budgets, "b", |budget| allowed(budget, 0)).await;
    assert_eq!(
        pods.evict("two", &Default::default())
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) => status.code,
                _ => 0,
            })
            .map(|_| ()),
        Err(429)
    );
    cluster.stop().await;
}

#[tokio::test]
async fn roles_are_united() {
    let cluster = Cluster::start(0).await;
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    cluster
        .create(
            &roles,
            json!({"metadata": {"name": "whole"}, "aggregationRule": {
        "clusterRoleSelectors": [{"matchLabels": {"part-of": "whole"}}]}, "rules": []}),
        )
        .await;
    cluster
        .create(
            &roles,
            json!({"metadata": {"name": "part", "labels": {"part-of": "whole"}}, "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        )
        .await;
    cluster.until(&roles, "whole", |role| role.rules.as_ref().is_some_and(|rules| rules.len() == 1)).await;
    cluster.stop().await;
}
