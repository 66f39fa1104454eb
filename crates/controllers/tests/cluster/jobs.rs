//! Jobs and CronJobs.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::Pod,
};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use crate::kit::{Cluster, ENDS, pod_spec};

fn job(name: &str, ends: Option<&str>, extra: Value) -> Value {
    let mut spec = pod_spec("i");
    spec["restartPolicy"] = json!("Never");
    let annotations = ends.map_or(json!({}), |end| json!({ENDS: end}));
    let mut job = json!({"metadata": {"name": name}, "spec": {
        "template": {"metadata": {"annotations": annotations}, "spec": spec}}});
    for (key, value) in extra.as_object().expect("fields") {
        job["spec"][key] = value.clone();
    }
    job
}

fn has(job: &Job, type_: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == type_).any(|condition| condition.status == "True")
}

fn of(name: &str) -> String {
    format!("batch.kubernetes.io/job-name={name}")
}

#[tokio::test]
async fn a_job_completes_and_its_pods_are_free() {
    let cluster = Cluster::start(2).await;
    let jobs: Api<Job> = cluster.all();
    cluster.create(&jobs, job("sum", Some("Succeeded"), json!({"completions": 5, "parallelism": 2}))).await;
    let done = cluster.until(&jobs, "sum", |job| has(job, "Complete")).await;
    let status = done.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(5), None, None));
    assert!(status.completion_time.is_some());
    let pods = cluster.until_pods(&of("sum"), |pods| pods.iter().all(|pod| pod.finalizers().is_empty())).await;
    assert_eq!(pods.len(), 5);
    cluster.until_event("sum", "Completed").await;
    jobs.delete("sum", &DeleteParams::background()).await.unwrap();
    cluster.until_pods(&of("sum"), <[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test]
async fn indexes_fail_one_by_one() {
    let cluster = Cluster::start(1).await;
    let jobs: Api<Job> = cluster.all();
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
    cluster.create(&jobs, job("each", Some("Failed"), spec)).await;
    let done = cluster.until(&jobs, "each", |job| has(job, "Failed")).await;
    let status = done.status.unwrap();
    assert_eq!((status.failed_indexes.as_deref(), status.failed), (Some("0,1"), Some(2)));
    cluster.until_event("each", "FailedIndexes").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_gives_up_after_its_limit() {
    let cluster = Cluster::start(1).await;
    let jobs: Api<Job> = cluster.all();
    cluster.create(&jobs, job("bad", Some("Failed"), json!({"backoffLimit": 0}))).await;
    let done = cluster.until(&jobs, "bad", |job| has(job, "Failed")).await;
    assert!(has(&done, "FailureTarget"));
    assert_eq!(done.status.unwrap().failed, Some(1));
    cluster.until_event("bad", "BackoffLimitExceeded").await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_indexed_job_runs_every_index_once() {
    let cluster = Cluster::start(1).await;
    let jobs: Api<Job> = cluster.all();
    let fields = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    cluster.create(&jobs, job("parts", Some("Succeeded"), fields)).await;
    let done = cluster.until(&jobs, "parts", |job| has(job, "Complete")).await;
    assert_eq!(done.status.unwrap().completed_indexes.as_deref(), Some("0-2"));
    let pods = cluster.pods(&of("parts")).await;
    let indexes: BTreeSet<_> =
        pods.iter().map(|pod| pod.labels()["batch.kubernetes.io/job-completion-index"].clone()).collect();
    assert_eq!((pods.len(), indexes.len()), (3, 3));
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_is_suspended_resumed_timed_out_and_expires() {
    let cluster = Cluster::start(1).await;
    let jobs: Api<Job> = cluster.all();
    let fields = json!({"suspend": true, "activeDeadlineSeconds": 1, "ttlSecondsAfterFinished": 1});
    cluster.create(&jobs, job("slow", None, fields)).await;
    cluster.until(&jobs, "slow", |job| has(job, "Suspended")).await;
    assert!(cluster.pods(&of("slow")).await.is_empty());
    cluster.merge(&jobs, "slow", json!({"spec": {"suspend": false}})).await;
    cluster.until_pods(&of("slow"), |pods| pods.len() == 1).await;
    cluster.until(&jobs, "slow", |job| has(job, "Failed")).await;
    cluster.until_gone(&jobs, "slow").await;
    cluster.until_pods(&of("slow"), <[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_orphaned_pod_is_not_held_for_ever() {
    let cluster = Cluster::start(1).await;
    let jobs: Api<Job> = cluster.all();
    cluster.create(&jobs, job("left", None, json!({}))).await;
    cluster.until_pods(&of("left"), |pods| pods.len() == 1).await;
    jobs.delete("left", &DeleteParams::orphan()).await.unwrap();
    cluster.until_gone(&jobs, "left").await;
    cluster.until_pods(&of("left"), |pods| pods.len() == 1 && pods[0].finalizers().is_empty()).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_cron_job_starts_what_is_due() {
    let cluster = Cluster::start(1).await;
    let (crons, jobs): (Api<CronJob>, Api<Job>) = (cluster.all(), cluster.all());
    let template = job("unused", Some("Succeeded"), json!({}));
    cluster
        .create(
            &crons,
            json!({"metadata": {"name": "tick"}, "spec": {
        "schedule": "0 0 1 1 *", "jobTemplate": {"spec": template["spec"]}}}),
        )
        .await;
    // Its last run was long ago, so the turn of this year was missed and is due.
    cluster.merge_status(&crons, "tick", json!({"status": {"lastScheduleTime": "2020-01-01T00:00:00Z"}})).await;
    let ran = cluster
        .until(&crons, "tick", |cron| cron.status.as_ref().is_some_and(|status| status.last_successful_time.is_some()))
        .await;
    let last = ran.status.unwrap().last_schedule_time.unwrap().0;
    assert!(last.to_string().ends_with("-01-01T00:00:00Z"), "{last}");
    let name = format!("tick-{}", last.as_second() / 60);
    assert!(has(&jobs.get(&name).await.unwrap(), "Complete"));
    cluster.until_event("tick", "SawCompletedJob").await;
    crons.delete("tick", &DeleteParams::background()).await.unwrap();
    cluster.until_gone(&jobs, &name).await;
    cluster.stop().await;
}
