//! What controllers ask about pods, and how they make and delete them.

mod control;
mod expectations;

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};

pub(crate) use control::{PodControl, batched};
pub(crate) use expectations::Expectations;

/// Phase, empty while unset.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Ran to its end, well or badly.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor being deleted: it counts towards a replica number.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

/// Condition of a type.
pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod is ready; `None` while it is not.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// How far a pod is from being available: ready for `min_ready` in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// Not ready.
    No,
    /// Ready, available after this time if it stays so.
    In(Duration),
    /// Available.
    Yes,
}

pub(crate) fn availability(pod: &Pod, min_ready: Duration, now: Timestamp) -> Availability {
    let Some(since) = ready_since(pod) else { return Availability::No };
    let ready_for = elapsed(since, now);
    if ready_for >= min_ready { Availability::Yes } else { Availability::In(min_ready - ready_for) }
}

/// Time from `since` to `now`; zero when the clock went back.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// `minReadySeconds` and the like as a duration.
pub(crate) fn seconds(value: impl Into<i64>) -> Duration {
    Duration::from_secs(u64::try_from(value.into()).unwrap_or(0))
}

/// A count of a status as the API stores it: zero is left out.
pub(crate) fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// Sum of restarts of all containers.
pub(crate) fn restarts(pod: &Pod) -> i64 {
    let Some(status) = &pod.status else { return 0 };
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    containers.map(|container| i64::from(container.restart_count)).sum()
}

/// The owner that manages an object, if it has one.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Whether the object is managed by the owner with this uid.
pub(crate) fn controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// Owner reference of a managing object.
pub(crate) fn owned_by<K: kube::Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Labels of an object; empty if it has none.
pub(crate) fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// A pod of `template` owned by `owner`, named with a generated suffix.
pub(crate) fn from_template(template: &PodTemplateSpec, namespace: &str, prefix: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Sorts pods so that the first ones are the cheapest to lose: unassigned
/// before assigned, pending before running, unready before ready, cheap before
/// dear (deletion cost), crowded nodes first, younger and restarted first.
pub(crate) fn sort_for_deletion<P: AsRef<Pod>>(pods: &mut [P], now: Timestamp) {
    let mut crowd: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter() {
        *crowd.entry(node(pod.as_ref()).to_owned()).or_default() += 1;
    }
    pods.sort_by(|left, right| cheaper(left.as_ref(), right.as_ref(), &crowd, now));
}

/// Node a pod is bound to; empty if none.
pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn cheaper(left: &Pod, right: &Pod, crowd: &BTreeMap<String, usize>, now: Timestamp) -> Ordering {
    let phase_rank = |pod: &Pod| match phase(pod) {
        "" | "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let neighbours = |pod: &Pod| crowd.get(node(pod)).copied().unwrap_or(0);
    // On a logarithmic scale, so that a few seconds of age do not always hit the same pod.
    let age = |since: Option<Timestamp>| since.map_or(0, |since| (elapsed(since, now).as_secs() + 1).ilog2());
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (!node(left).is_empty())
        .cmp(&!node(right).is_empty())
        .then_with(|| phase_rank(left).cmp(&phase_rank(right)))
        .then_with(|| is_ready(left).cmp(&is_ready(right)))
        .then_with(|| deletion_cost(left).cmp(&deletion_cost(right)))
        .then_with(|| neighbours(right).cmp(&neighbours(left)))
        .then_with(|| age(ready_since(left)).cmp(&age(ready_since(right))))
        .then_with(|| restarts(right).cmp(&restarts(left)))
        .then_with(|| age(created(left)).cmp(&age(created(right))))
        .then_with(|| left.metadata.name.cmp(&right.metadata.name))
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::testing::{pod, timestamp};

    #[test]
    fn the_cheapest_pods_are_deleted_first() {
        let now = timestamp("2026-01-01T01:00:00Z");
        let ready = |name: &str, since: &str| {
            pod(json!({
                "metadata": {"name": name},
                "spec": {"nodeName": "n"},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": since}]},
            }))
        };
        let mut dear = ready("5-dear", "2026-01-01T00:59:00Z");
        dear.metadata.annotations =
            Some([("controller.kubernetes.io/pod-deletion-cost".to_owned(), "10".to_owned())].into());
        let mut pods: Vec<Arc<Pod>> = [
            dear,
            ready("4-old", "2026-01-01T00:00:00Z"),
            ready("3-young", "2026-01-01T00:59:59Z"),
            pod(json!({"metadata": {"name": "2-unready"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}})),
            pod(json!({"metadata": {"name": "1-pending"}, "spec": {"nodeName": "n"}, "status": {"phase": "Pending"}})),
            pod(json!({"metadata": {"name": "0-unassigned"}, "status": {"phase": "Pending"}})),
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        sort_for_deletion(&mut pods, now);
        let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["0-unassigned", "1-pending", "2-unready", "3-young", "4-old", "5-dear"]);
    }

    #[test]
    fn availability_needs_readiness_for_a_while() {
        let ready = pod(json!({
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
        let at = |time: &str, min: u64| availability(&ready, Duration::from_secs(min), timestamp(time));
        assert_eq!(at("2026-01-01T00:00:00Z", 0), Availability::Yes);
        assert_eq!(at("2026-01-01T00:00:04Z", 10), Availability::In(Duration::from_secs(6)));
        assert_eq!(at("2026-01-01T00:00:10Z", 10), Availability::Yes);
        // A clock that went back must neither panic nor make the pod available.
        assert_eq!(at("2025-12-31T23:59:00Z", 10), Availability::In(Duration::from_secs(10)));
        assert_eq!(availability(&pod(json!({})), Duration::ZERO, Timestamp::UNIX_EPOCH), Availability::No);
    }
}
