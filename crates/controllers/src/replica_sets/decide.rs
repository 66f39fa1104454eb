//! How many pods to make or which to delete, and what to tell.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use crate::pods::{self, Availability, availability, labels, nonzero, seconds, sort_for_deletion};

/// Pods made or deleted in one go: a slip of the finger must not flood the API.
const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Compares the owned active pods with the number asked for.
pub(super) fn plan(set: &ReplicaSet, owned: &[Arc<Pod>], now: Timestamp) -> Plan {
    let wanted = usize::try_from(replicas(set)).unwrap_or(0);
    if owned.len() < wanted {
        return Plan::Create((wanted - owned.len()).min(BURST));
    }
    if owned.len() == wanted {
        return Plan::Nothing;
    }
    let mut victims = owned.to_vec();
    sort_for_deletion(&mut victims, now);
    victims.truncate((owned.len() - wanted).min(BURST));
    Plan::Delete(victims)
}

/// Status of the set, and when it will change by waiting alone.
pub(super) fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<&str>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let min_ready = seconds(spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0));
    let template = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let fully = |pod: &&Arc<Pod>| template.iter().all(|(key, value)| labels(&pod.metadata).get(key) == Some(value));
    let (mut ready, mut available, mut again) = (0, 0, None::<Duration>);
    for pod in owned {
        ready += i32::from(pods::is_ready(pod));
        match availability(pod, min_ready, now) {
            Availability::Yes => available += 1,
            Availability::In(left) => again = Some(again.map_or(left, |sooner| sooner.min(left))),
            Availability::No => {}
        }
    }
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(owned.len()),
        fully_labeled_replicas: nonzero(count(owned.iter().filter(fully).count())),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions.unwrap_or_default(), set, owned.len(), failure, now),
        terminating_replicas: old.terminating_replicas,
    };
    (status, again)
}

fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    set: &ReplicaSet,
    have: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let known = conditions.iter().position(|condition| condition.type_ == "ReplicaFailure");
    match (failure, known) {
        (Some(message), None) => {
            let too_few = i64::from(replicas(set)) > i64::try_from(have).unwrap_or(i64::MAX);
            conditions.push(ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some(if too_few { "FailedCreate" } else { "FailedDelete" }.into()),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now)),
            });
        }
        (None, Some(known)) => {
            conditions.remove(known);
        }
        _ => {}
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{object, pod, timestamp};

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        object(json!({"metadata": {"name": "r", "generation": 3}, "spec": {
            "replicas": replicas, "minReadySeconds": min_ready, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"containers": []}}}}))
    }

    fn running(name: &str, ready: bool) -> Arc<Pod> {
        Arc::new(pod(json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready",
                "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})))
    }

    #[test]
    fn the_difference_is_made_up_in_bounded_steps() {
        let now = timestamp("2026-01-01T00:00:05Z");
        let have: Vec<_> = (0..3).map(|n| running(&n.to_string(), n != 1)).collect();
        assert_eq!(plan(&set(3, 0), &have, now), Plan::Nothing);
        assert_eq!(plan(&set(5, 0), &have, now), Plan::Create(2));
        assert_eq!(plan(&set(10_000, 0), &have, now), Plan::Create(BURST));
        assert_eq!(plan(&set(2, 0), &have, now), Plan::Delete(vec![have[1].clone()]), "the unready one first");
        assert_eq!(
            plan(&set(-1, 0), &have, now),
            Plan::Delete(vec![have[1].clone(), have[0].clone(), have[2].clone()])
        );
    }

    #[test]
    fn status_counts_and_says_when_to_look_again() {
        let now = timestamp("2026-01-01T00:00:05Z");
        let have = [running("a", true), running("b", false)];
        let (got, again) = status(&set(2, 10), &have, None, now);
        assert_eq!((got.replicas, got.ready_replicas, got.available_replicas), (2, Some(1), None));
        assert_eq!((got.fully_labeled_replicas, got.observed_generation), (None, Some(3)));
        assert_eq!(again, Some(Duration::from_secs(5)));
        let (got, again) = status(&set(2, 5), &have, None, now);
        assert_eq!((got.available_replicas, again), (Some(1), None));
    }

    #[test]
    fn a_failure_is_told_once_and_withdrawn() {
        let now = timestamp("2026-01-01T00:00:05Z");
        let mut failing = set(2, 0);
        failing.status = Some(status(&failing, &[], Some("quota"), now).0);
        let told = failing.status.clone().unwrap().conditions.unwrap();
        assert_eq!((told[0].reason.as_deref(), told[0].message.as_deref()), (Some("FailedCreate"), Some("quota")));
        assert_eq!(status(&failing, &[], Some("still"), timestamp("2026-01-02T00:00:00Z")).0.conditions, Some(told));
        assert_eq!(status(&failing, &[], None, now).0.conditions, None);
    }
}
