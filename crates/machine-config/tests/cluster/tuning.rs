//! ContainerRuntimeConfig and KubeletConfig.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use osc_machine_config::{ignition, names};
use osc_objects::{ContainerRuntimeConfig, KubeletConfig, MachineConfig};
use serde_json::{Value, json};

use crate::kit::{Cluster, object};

fn tuning(name: &str, settings: Value) -> ContainerRuntimeConfig {
    object(json!({"metadata": {"name": name}, "spec": {"containerRuntimeConfig": settings,
        "machineConfigPoolSelector": {"matchLabels": {format!("{}worker", names::POOL_PREFIX): ""}}}}))
}

#[tokio::test]
async fn rows_26_and_27_settings_come_into_effect_and_go() {
    let cluster = Cluster::played(1).await;
    cluster.file("00-worker", "worker", "/etc/a", "1").await;
    let plain = cluster.until_updated("worker", 1).await.target().unwrap().to_owned();
    let all: Api<ContainerRuntimeConfig> = Api::all(cluster.client.clone());
    all.create(&PostParams::default(), &tuning("debug", json!({"logLevel": "debug"}))).await.unwrap();
    let generated = "99-worker-generated-containerruntime";
    cluster.until(&cluster.configs, generated, |config| config.owner_references().len() == 1).await;
    let succeeded = |config: &ContainerRuntimeConfig| {
        config
            .status
            .as_ref()
            .is_some_and(|status| status.conditions.last().is_some_and(|last| last.type_ == "Success"))
    };
    let config = cluster.until(&all, "debug", succeeded).await;
    assert_eq!(config.finalizers(), [generated]);
    let tuned = cluster.until_retargeted("worker", &plain).await;
    cluster.until_updated("worker", 1).await;
    let spec = cluster.configs.get(&tuned).await.unwrap().spec.config.unwrap();
    let parsed = ignition::parse(&spec).unwrap();
    assert!(parsed.files.keys().any(|path| path.ends_with("01-ctrcfg-logLevel")));
    // Row 27: a value that cannot be.
    all.create(&PostParams::default(), &tuning("few", json!({"pidsLimit": 5}))).await.unwrap();
    let failed = |config: &ContainerRuntimeConfig| {
        config
            .status
            .as_ref()
            .is_some_and(|status| status.conditions.last().is_some_and(|last| last.type_ == "Failure"))
    };
    let config = cluster.until(&all, "few", failed).await;
    assert!(config.status.unwrap().conditions[0].message.contains("pidsLimit 5"));
    assert!(config.metadata.finalizers.is_none(), "no configuration was made");
    let pool = cluster.until(&cluster.pools, "worker", |pool| pool.is("RenderDegraded")).await;
    assert!(pool.condition("RenderDegraded").unwrap().message.contains("few"), "{pool:?}");
    all.delete("few", &DeleteParams::default()).await.unwrap();
    cluster.until(&cluster.pools, "worker", |pool| !pool.is("RenderDegraded")).await;
    eleventh(&cluster, &all).await;
    // Row 26: deleting the object takes its configuration along.
    all.delete("debug", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&cluster.configs, generated).await;
    cluster.until_gone(&all, "debug").await;
    cluster.until(&cluster.pools, "worker", |pool| pool.target() == Some(&plain)).await;
    cluster.until_updated("worker", 1).await;
    let kubelets: Api<KubeletConfig> = Api::all(cluster.client.clone());
    let kubelet = object(json!({"metadata": {"name": "k"}, "spec": {"kubeletConfig": {"maxPods": 500}}}));
    kubelets.create(&PostParams::default(), &kubelet).await.unwrap();
    let answered = |config: &KubeletConfig| config.status.as_ref().is_some_and(|status| !status.conditions.is_empty());
    let kubelet = cluster.until(&kubelets, "k", answered).await;
    assert_eq!(kubelet.status.unwrap().conditions[0].type_, "Failure");
    cluster.stop().await;
}

/// Row 27: ten can be in effect; there is one already.
async fn eleventh(cluster: &Cluster, all: &Api<ContainerRuntimeConfig>) {
    let names: Vec<String> = (1..=10).map(|number| format!("more-{number}")).collect();
    for name in &names {
        all.create(&PostParams::default(), &tuning(name, json!({"pidsLimit": 100}))).await.unwrap();
    }
    let mut failures = Vec::new();
    for name in &names {
        let answered = |config: &ContainerRuntimeConfig| {
            config.status.as_ref().is_some_and(|status| !status.conditions.is_empty())
        };
        let status = cluster.until(all, name, answered).await.status.unwrap();
        failures
            .extend(status.conditions.into_iter().filter(|one| one.type_ == "Failure").map(|one| (name, one.message)));
    }
    let [(name, message)] = failures.as_slice() else { panic!("{failures:?}") };
    assert!(message.contains("at most 10 ContainerRuntimeConfigs"), "{message}");
    assert!(all.get(name).await.unwrap().metadata.finalizers.is_none(), "no configuration was made");
    let generated = |config: &&MachineConfig| config.name_any().contains("-generated-containerruntime");
    let configs = cluster.configs.list(&ListParams::default()).await.unwrap();
    assert_eq!(configs.iter().filter(generated).count(), 10);
    for name in &names {
        all.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for name in &names {
        cluster.until_gone(all, name).await;
    }
    cluster.until(&cluster.pools, "worker", |pool| !pool.is("RenderDegraded")).await;
}
