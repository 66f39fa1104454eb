//! Status and conditions of a Deployment.
//!
//! ```text
//!  Progressing: NewReplicaSetCreated ─► ReplicaSetUpdated ─► NewReplicaSetAvailable (stays)
//!                                           └─ no progress for progressDeadlineSeconds ─► ProgressDeadlineExceeded
//! ```

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::ResourceExt;

use crate::{
    deployments::history::{History, asked},
    pods::{elapsed, nonzero, seconds},
};

/// What this round did that the conditions tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing special.
    Rolled,
    /// Made the ReplicaSet of a new template.
    Created(String),
    /// Could not make it.
    CreateFailed(String),
    /// Only sizes were looked at: the Deployment is paused.
    Paused,
}

/// Status after this round, and when it will change by waiting alone.
pub(super) fn next(
    deployment: &Deployment,
    history: &History,
    unavailable: i32,
    step: &Step,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, history, &old);
    let mut conditions = Conditions { all: old.conditions.clone().unwrap_or_default(), now };
    let desired = replicas(deployment);
    let enough = status.available_replicas.unwrap_or(0) >= desired - unavailable;
    if enough {
        conditions.set("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into());
    } else {
        let message = "Deployment does not have minimum availability.".into();
        conditions.set("Available", "False", "MinimumReplicasUnavailable", message);
    }
    let again = progress(deployment, history, &old, &status, step, &mut conditions);
    replica_failure(history, step, &mut conditions);
    status.conditions = Some(conditions.all);
    (status, again)
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn counts(deployment: &Deployment, history: &History, old: &DeploymentStatus) -> DeploymentStatus {
    let sum =
        |of: fn(&ReplicaSetStatus) -> i32| -> i32 { history.all().filter_map(|set| set.status.as_ref()).map(of).sum() };
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let wanted: i32 = history.all().map(|set| asked(set)).sum();
    let updated = history.new.as_ref().and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sum(|status| status.replicas)),
        updated_replicas: nonzero(updated),
        ready_replicas: nonzero(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((wanted - available).max(0)),
        collision_count: old.collision_count,
        terminating_replicas: old.terminating_replicas,
        conditions: None,
    }
}

/// Whether everything runs the current template.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = nonzero(replicas(deployment));
    status.updated_replicas == desired
        && status.replicas == desired
        && status.available_replicas == desired
        && status.observed_generation >= deployment.metadata.generation
}

fn progress(
    deployment: &Deployment,
    history: &History,
    old: &DeploymentStatus,
    status: &DeploymentStatus,
    step: &Step,
    conditions: &mut Conditions,
) -> Option<Duration> {
    // The largest number stands for "no deadline".
    let deadline = deployment.spec.as_ref()?.progress_deadline_seconds.filter(|seconds| *seconds < i32::MAX)?;
    let known = conditions.get("Progressing").cloned();
    let reason = known.as_ref().and_then(|known| known.reason.as_deref()).unwrap_or_default();
    match step {
        Step::Paused => {
            if reason != "DeploymentPaused" {
                conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into());
            }
            return None;
        }
        Step::Created(name) => {
            let message = format!("Created new replica set \"{name}\"");
            conditions.refresh("Progressing", "True", "NewReplicaSetCreated", message);
            return Some(seconds(deadline));
        }
        Step::CreateFailed(why) => {
            conditions.set("Progressing", "False", "ReplicaSetCreateError", why.clone());
            return None;
        }
        Step::Rolled => {}
    }
    let subject = history.new.as_ref().map_or_else(
        || format!("Deployment \"{}\"", deployment.name_any()),
        |set| format!("ReplicaSet \"{}\"", set.name_any()),
    );
    if reason == "DeploymentPaused" {
        conditions.refresh("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".into());
        return Some(seconds(deadline));
    }
    if reason == "NewReplicaSetAvailable" && status.replicas == status.updated_replicas {
        // Finished once: losing a pod later is not a rollout again.
        return None;
    }
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        conditions.set("Progressing", "True", "NewReplicaSetAvailable", message);
        return None;
    }
    if known.is_none() {
        let message = format!("Found new replica set {subject}");
        conditions.refresh("Progressing", "True", "FoundNewReplicaSet", message);
        return Some(seconds(deadline));
    }
    if has_progressed(old, status) {
        let message = format!("{subject} is progressing.");
        conditions.refresh("Progressing", "True", "ReplicaSetUpdated", message);
        return Some(seconds(deadline));
    }
    if reason == "ProgressDeadlineExceeded" {
        return None;
    }
    if reason == "NewReplicaSetAvailable" {
        // The next rollout has begun: its clock does not run since the end of the last.
        let message = format!("{subject} is progressing.");
        conditions.refresh("Progressing", "True", "ReplicaSetUpdated", message);
        return Some(seconds(deadline));
    }
    let since = known.as_ref().and_then(|known| known.last_update_time.as_ref()).map_or(conditions.now, |time| time.0);
    let waited = elapsed(since, conditions.now);
    let limit = seconds(deadline);
    if waited < limit {
        return Some(limit - waited + Duration::from_secs(1));
    }
    let message = format!("{subject} has timed out progressing.");
    conditions.set("Progressing", "False", "ProgressDeadlineExceeded", message);
    None
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let updated = |status: &DeploymentStatus| status.updated_replicas.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - updated(status);
    updated(new) > updated(old)
        || outdated(new) < outdated(old)
        || new.ready_replicas.unwrap_or(0) > old.ready_replicas.unwrap_or(0)
        || new.available_replicas.unwrap_or(0) > old.available_replicas.unwrap_or(0)
}

fn replica_failure(history: &History, step: &Step, conditions: &mut Conditions) {
    let failure = match (step, last_failure(history)) {
        (Step::CreateFailed(why), _) => Some(("FailedCreate".to_owned(), why.clone())),
        (_, found) => found,
    };
    match failure {
        Some((reason, message)) => conditions.set("ReplicaFailure", "True", &reason, message),
        None => conditions.all.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
}

/// The failure of the last set that has one: the current set comes last.
fn last_failure(history: &History) -> Option<(String, String)> {
    let failure = |set: &Arc<ReplicaSet>| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions.iter().find(|condition| condition.type_ == "ReplicaFailure")?;
        Some((failure.reason.clone().unwrap_or_default(), failure.message.clone().unwrap_or_default()))
    };
    history.all().filter_map(failure).last()
}

struct Conditions {
    all: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.all.iter().find(|condition| condition.type_ == type_)
    }

    /// Sets a condition; the same status and reason again changes nothing.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let same =
            self.get(type_).is_some_and(|known| known.status == status && known.reason.as_deref() == Some(reason));
        if !same {
            self.refresh(type_, status, reason, message);
        }
    }

    /// Sets a condition and its update time in any case.
    fn refresh(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let since =
            self.get(type_).filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
        };
        match self.all.iter_mut().find(|known| known.type_ == type_) {
            Some(known) => *known = condition,
            None => self.all.push(condition),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{object, timestamp};

    fn deployment(status: Value) -> Deployment {
        object(json!({"metadata": {"name": "d", "generation": 2}, "spec": {
            "replicas": 2, "progressDeadlineSeconds": 60, "selector": {},
            "template": {"spec": {"containers": []}}}, "status": status}))
    }

    fn history(new: Value, old: Option<Value>) -> History {
        let set = |name: &str, status: Value| {
            let replicas = status["replicas"].clone();
            Arc::new(object(
                json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {}}, "status": status}),
            ))
        };
        History { new: Some(set("d-new", new)), old: old.map(|old| set("d-old", old)).into_iter().collect() }
    }

    fn progressing(status: &DeploymentStatus) -> (String, String) {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing").unwrap();
        (condition.status.clone(), condition.reason.clone().unwrap())
    }

    fn known(reason: &str, at: &str) -> Value {
        json!([{"type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": at, "lastTransitionTime": at}])
    }

    #[test]
    fn progress_in_every_state() {
        let now = timestamp("2026-01-01T00:02:00Z");
        let half = json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1});
        let full = json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2});
        let long_ago = "2026-01-01T00:00:00Z";
        let just_now = "2026-01-01T00:01:30Z";
        let same = |conditions: Value| {
            json!({"conditions": conditions, "replicas": 2, "updatedReplicas": 2,
            "readyReplicas": 1, "availableReplicas": 1})
        };
        for (why, status, new, step, want) in [
            ("just created", json!({}), &half, Step::Created("d-new".into()), ("True", "NewReplicaSetCreated")),
            ("found", json!({}), &half, Step::Rolled, ("True", "FoundNewReplicaSet")),
            (
                "more ready",
                json!({"conditions": known("NewReplicaSetCreated", long_ago)}),
                &half,
                Step::Rolled,
                ("True", "ReplicaSetUpdated"),
            ),
            (
                "complete",
                json!({"conditions": known("ReplicaSetUpdated", long_ago)}),
                &full,
                Step::Rolled,
                ("True", "NewReplicaSetAvailable"),
            ),
            ("waiting", same(known("ReplicaSetUpdated", just_now)), &half, Step::Rolled, ("True", "ReplicaSetUpdated")),
            (
                "timed out",
                same(known("ReplicaSetUpdated", long_ago)),
                &half,
                Step::Rolled,
                ("False", "ProgressDeadlineExceeded"),
            ),
            (
                "finished before",
                same(known("NewReplicaSetAvailable", long_ago)),
                &half,
                Step::Rolled,
                ("True", "NewReplicaSetAvailable"),
            ),
            (
                "paused",
                same(known("ReplicaSetUpdated", long_ago)),
                &half,
                Step::Paused,
                ("Unknown", "DeploymentPaused"),
            ),
            (
                "resumed",
                same(known("DeploymentPaused", long_ago)),
                &half,
                Step::Rolled,
                ("Unknown", "DeploymentResumed"),
            ),
            ("refused", json!({}), &half, Step::CreateFailed("no".into()), ("False", "ReplicaSetCreateError")),
        ] {
            let (status, _) = next(&deployment(status), &history(new.clone(), None), 0, &step, now);
            let (got_status, got_reason) = progressing(&status);
            assert_eq!((got_status.as_str(), got_reason.as_str()), want, "{why}");
        }
    }

    #[test]
    fn a_new_rollout_does_not_inherit_the_clock_of_the_last() {
        let conditions = known("NewReplicaSetAvailable", "2026-01-01T00:00:00Z");
        let before = json!({"conditions": conditions, "replicas": 2, "updatedReplicas": 2,
            "readyReplicas": 2, "availableReplicas": 2});
        let seen =
            history(json!({"replicas": 0}), Some(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2})));
        let now = timestamp("2026-02-01T00:00:00Z");
        let (status, again) = next(&deployment(before), &seen, 0, &Step::Rolled, now);
        assert_eq!(progressing(&status), ("True".into(), "ReplicaSetUpdated".into()));
        assert_eq!(again, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_rollout_status_reads_is_there() {
        let now = timestamp("2026-01-01T00:00:00Z");
        let new = json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 1});
        let old = json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]});
        let (status, _) = next(&deployment(json!({})), &history(new, Some(old)), 1, &Step::Rolled, now);
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!((status.replicas, status.updated_replicas, status.available_replicas), (Some(3), Some(1), Some(3)));
        let types: Vec<_> = status.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(types, [("Available", "True"), ("Progressing", "True"), ("ReplicaFailure", "True")]);
    }

    #[test]
    fn a_settled_deployment_is_not_written_again() {
        let now = timestamp("2026-01-01T00:00:00Z");
        let full = json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2});
        let mut deployment = deployment(json!({}));
        for _ in 0..3 {
            deployment.status = Some(next(&deployment, &history(full.clone(), None), 0, &Step::Rolled, now).0);
        }
        let later = timestamp("2026-01-02T00:00:00Z");
        let (again, _) = next(&deployment, &history(full, None), 0, &Step::Rolled, later);
        assert_eq!(Some(again), deployment.status);
    }
}
