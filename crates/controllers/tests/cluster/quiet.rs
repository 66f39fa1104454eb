//! A settled cluster is quiet: controllers that rewrite what is already so would
//! keep disk and clients busy for ever.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Service},
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use crate::kit::{Cluster, ENDS, is_ready, pod_spec};

fn workload(name: &str, extra: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec("i")}}});
    for (key, value) in extra.as_object().expect("fields") {
        object["spec"][key] = value.clone();
    }
    object
}

/// The latest version of anything in the store.
async fn version(cluster: &Cluster) -> String {
    let maps: Api<ConfigMap> = cluster.all();
    let listed = maps.list(&ListParams::default()).await.expect("a list");
    listed.metadata.resource_version.expect("a version")
}

async fn one_of_each(cluster: &Cluster) {
    let (deployments, daemons): (Api<Deployment>, Api<DaemonSet>) = (cluster.all(), cluster.all());
    let (statefuls, services): (Api<StatefulSet>, Api<Service>) = (cluster.all(), cluster.all());
    let (jobs, crons): (Api<Job>, Api<CronJob>) = (cluster.all(), cluster.all());
    let (claims, budgets): (Api<PersistentVolumeClaim>, Api<PodDisruptionBudget>) = (cluster.all(), cluster.all());
    cluster.create(&deployments, workload("web", json!({"replicas": 2}))).await;
    cluster.create(&daemons, workload("agent", json!({}))).await;
    cluster.create(&statefuls, workload("db", json!({"replicas": 2, "serviceName": "db"}))).await;
    let ports = json!([{"port": 80}]);
    cluster
        .create(&services, json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}))
        .await;
    let none = json!({"metadata": {"name": "none"}, "spec": {"selector": {"app": "none"}, "ports": ports, "clusterIP": "None"}});
    cluster.create(&services, none).await;
    let mut spec = pod_spec("i");
    spec["restartPolicy"] = json!("Never");
    let template = json!({"metadata": {"annotations": {ENDS: "Succeeded"}}, "spec": spec});
    cluster.create(&jobs, json!({"metadata": {"name": "sum"}, "spec": {"template": template}})).await;
    let cron = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}});
    cluster.create(&crons, json!({"metadata": {"name": "tick"}, "spec": cron})).await;
    let budget = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    cluster.create(&budgets, json!({"metadata": {"name": "web"}, "spec": budget})).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    cluster
        .create(
            &volumes,
            json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/nowhere"}}}),
        )
        .await;
    let wish = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    cluster.create(&claims, json!({"metadata": {"name": "bound"}, "spec": wish})).await;
    cluster.create(&claims, json!({"metadata": {"name": "waiting"}, "spec": wish})).await;
}

#[tokio::test]
async fn nothing_is_written_once_everything_is_settled() {
    let cluster = Cluster::start(2).await;
    one_of_each(&cluster).await;
    for (label, count) in [("app=web", 2), ("app=agent", 2), ("app=db", 2)] {
        cluster.until_pods(label, |pods| pods.len() == count && pods.iter().all(is_ready)).await;
    }
    let jobs: Api<Job> = cluster.all();
    cluster.until(&jobs, "sum", |job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some())).await;
    let begin = Timestamp::now();
    let mut last = version(&cluster).await;
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = version(&cluster).await;
        if now == last {
            break;
        }
        assert!(Timestamp::now().duration_since(begin).as_secs() < 20, "still writing: {last} to {now}");
        last = now;
    }
    cluster.stop().await;
}
