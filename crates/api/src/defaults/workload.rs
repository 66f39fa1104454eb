//! What runs pods: Deployments, Jobs and their kin.

use serde_json::{Value, json};

use super::{pod, storage};
use crate::value::{fill, fill_text, has, items_mut, map_mut, text};

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    fill(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    fill_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        fill(&mut strategy["rollingUpdate"], "maxSurge", "25%");
        fill(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
    }
    pod::template(spec);
}

pub(super) fn replica_set(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "replicas", 1);
    pod::template(spec);
}

/// Selector and labels come from the template's labels.
pub(super) fn replication_controller(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "replicas", 1);
    pod::template(spec);
    let labels = spec["template"]["metadata"]["labels"].clone();
    if labels.is_object() {
        fill(spec, "selector", labels.clone());
        if let Some(metadata) = map_mut(object, "metadata") {
            fill(metadata, "labels", labels);
        }
    }
}

pub(super) fn daemon_set(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    fill_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        fill(&mut strategy["rollingUpdate"], "maxSurge", 0);
        fill(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
    }
    pod::template(spec);
}

pub(super) fn stateful_set(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill_text(spec, "podManagementPolicy", "OrderedReady");
    fill(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    fill_text(&mut spec["persistentVolumeClaimRetentionPolicy"], "whenDeleted", "Retain");
    fill_text(&mut spec["persistentVolumeClaimRetentionPolicy"], "whenScaled", "Retain");
    fill(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    fill_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        fill(&mut strategy["rollingUpdate"], "partition", 0);
    }
    for claim in items_mut(spec, "volumeClaimTemplates") {
        fill_text(claim, "apiVersion", "v1");
        fill_text(claim, "kind", "PersistentVolumeClaim");
        storage::claim(claim);
        fill(claim, "status", json!({"phase": "Pending"}));
    }
    pod::template(spec);
}

pub(super) fn job(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    if !has(spec, "completions") && !has(spec, "parallelism") {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let limit = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    fill(spec, "backoffLimit", limit);
    fill_text(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    fill_text(spec, "podReplacementPolicy", replacement);
    pod::template(spec);
}

/// The job template itself keeps its gaps; they are filled when a Job is made of it.
pub(super) fn cron_job(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill_text(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = map_mut(spec, "jobTemplate").and_then(|template| map_mut(template, "spec")) {
        pod::template(job);
    }
}

pub(super) fn autoscaler(object: &mut Value, version: &str) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "minReplicas", 1);
    if version != "v1" {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        fill(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::tests::applied;

    #[test]
    fn workloads_are_stored_like_this() {
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let rows = [
            (
                "apps",
                "deployments",
                json!({
                    "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                }),
            ),
            ("apps", "replicasets", json!({"replicas": 1})),
            (
                "apps",
                "daemonsets",
                json!({
                    "revisionHistoryLimit": 10,
                    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                }),
            ),
            (
                "apps",
                "statefulsets",
                json!({
                    "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
                    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                }),
            ),
            (
                "batch",
                "jobs",
                json!({
                    "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
                    "suspend": false, "podReplacementPolicy": "TerminatingOrFailed",
                }),
            ),
        ];
        for (group, plural, want) in rows {
            let mut object = applied(group, plural, json!({"spec": {"template": template.clone()}}));
            let spec = object["spec"].as_object_mut().unwrap();
            let filled = spec.remove("template").unwrap();
            assert_eq!(filled["spec"]["schedulerName"], "default-scheduler");
            assert!(filled["spec"].get("enableServiceLinks").is_none(), "only pods have it");
            assert_eq!(object["spec"], want, "{plural}");
        }
    }

    #[test]
    fn what_is_written_stays() {
        let deployment =
            applied("apps", "deployments", json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}));
        assert_eq!(
            (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]),
            (&json!(0), &json!({"type": "Recreate"}))
        );
        let job = applied("batch", "jobs", json!({"spec": {"parallelism": 3}}));
        assert!(job["spec"].get("completions").is_none());
        let cron = applied("batch", "cronjobs", json!({"spec": {"suspend": true}}));
        assert_eq!(cron["spec"]["suspend"], true);
    }
}
