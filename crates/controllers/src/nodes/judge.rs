//! What follows from how a node behaves: conditions, taints, evictions.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Pod, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::taints::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE, UNREACHABLE,
    UNSCHEDULABLE, taint, tolerates,
};

/// Conditions that are unknown when the node is.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Taint keys that only this controller sets.
const MANAGED: [&str; 7] =
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE, MEMORY_PRESSURE, DISK_PRESSURE, PID_PRESSURE, NETWORK_UNAVAILABLE];

/// Last sign of life of a node. Its own clock is not trusted: what counts is
/// when we saw the sign change.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    sign: String,
    since: Instant,
}

impl Pulse {
    /// First sight.
    pub(super) fn first(sign: String, now: Instant) -> Self {
        Self { sign, since: now }
    }

    /// Takes over a sign and tells for how long there was no new one.
    pub(super) fn beat(&mut self, sign: String, now: Instant) -> Duration {
        if sign != self.sign {
            *self = Self::first(sign, now);
        }
        now.duration_since(self.since)
    }
}

pub(super) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

fn status_of<'a>(node: &'a Node, type_: &str) -> &'a str {
    condition(node, type_).map_or("Unknown", |condition| condition.status.as_str())
}

/// Conditions to write for a silent node; empty if they say so already.
pub(super) fn silent_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let unknown = |type_: &&str| match condition(node, type_) {
        Some(known) if known.status == "Unknown" => None,
        Some(known) => Some(NodeCondition {
            status: "Unknown".into(),
            reason: Some("NodeStatusUnknown".into()),
            message: Some("Kubelet stopped posting node status.".into()),
            last_transition_time: Some(Time(now)),
            ..known.clone()
        }),
        None => Some(NodeCondition {
            type_: (*type_).into(),
            status: "Unknown".into(),
            reason: Some("NodeStatusNeverUpdated".into()),
            message: Some("Kubelet never posted node status.".into()),
            last_heartbeat_time: node.metadata.creation_timestamp.clone(),
            last_transition_time: Some(Time(now)),
        }),
    };
    REPORTED.iter().filter_map(unknown).collect()
}

/// Taints the node should have; those of others stay as they are. `None`: it has them.
pub(super) fn taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let have = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match (condition(node, "Ready").is_some(), status_of(node, "Ready")) {
        (true, "False") => wanted.extend([(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
        (true, "Unknown") => wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
        // A node that never reported is not usable, but nothing runs there to be evicted.
        (false, _) => wanted.push((NOT_READY, NO_SCHEDULE)),
        _ => {}
    }
    let pressures = [
        ("MemoryPressure", MEMORY_PRESSURE),
        ("DiskPressure", DISK_PRESSURE),
        ("PIDPressure", PID_PRESSURE),
        ("NetworkUnavailable", NETWORK_UNAVAILABLE),
    ];
    let pressing = pressures.into_iter().filter(|(type_, _)| status_of(node, type_) == "True");
    wanted.extend(pressing.map(|(_, key)| (key, NO_SCHEDULE)));
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let managed = |taint: &Taint| MANAGED.contains(&taint.key.as_str());
    let mut taints: Vec<Taint> =
        have.iter().filter(|taint| !managed(taint) || wanted.iter().any(|w| is(taint, *w))).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|known| is(known, (key, effect))) {
            taints.push(Taint { time_added: Some(Time(now)), ..taint(key, effect) });
        }
    }
    (taints != have).then_some(taints)
}

/// When a pod has to leave a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Eviction {
    At(Timestamp),
    Never,
}

/// When the `NoExecute` taints of a node drive a pod away.
pub(super) fn eviction(taints: &[Taint], pod: &Pod, now: Timestamp) -> Eviction {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let leave = |taint: &Taint| {
        let matching: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Eviction::At(now);
        }
        let Some(shortest) = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            return Eviction::Never;
        };
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        let patience = SignedDuration::from_secs(shortest.clamp(0, 100 * 366 * 24 * 3600));
        Eviction::At(added.checked_add(patience).unwrap_or(Timestamp::MAX))
    };
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE).map(leave).min().unwrap_or(Eviction::Never)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{object, pod, timestamp};

    const NOW: &str = "2026-01-01T00:10:00Z";

    fn node(spec: Value, conditions: &[(&str, &str)]) -> Node {
        let conditions: Vec<_> =
            conditions.iter().map(|(type_, status)| json!({"type": type_, "status": status})).collect();
        object(json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
    }

    fn pairs(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|taints| taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect())
    }

    #[test]
    fn taints_follow_conditions() {
        let now = timestamp(NOW);
        let ours = json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]});
        let stale = json!({"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
            {"key": "mine", "effect": "NoExecute"}]});
        let list = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
        for (why, node, want) in [
            ("ready", node(json!({}), &[("Ready", "True")]), None),
            ("others' taints stay", node(ours.clone(), &[("Ready", "True")]), None),
            (
                "not ready",
                node(json!({}), &[("Ready", "False")]),
                list(&["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]),
            ),
            (
                "unknown",
                node(ours, &[("Ready", "Unknown")]),
                list(&[
                    "mine:NoSchedule",
                    "node.kubernetes.io/unreachable:NoSchedule",
                    "node.kubernetes.io/unreachable:NoExecute",
                ]),
            ),
            ("back", node(stale, &[("Ready", "True")]), list(&["mine:NoExecute"])),
            ("never reported", node(json!({}), &[]), list(&["node.kubernetes.io/not-ready:NoSchedule"])),
            (
                "pressed",
                node(json!({}), &[("Ready", "True"), ("MemoryPressure", "True"), ("DiskPressure", "False")]),
                list(&["node.kubernetes.io/memory-pressure:NoSchedule"]),
            ),
            (
                "cordoned",
                node(json!({"unschedulable": true}), &[("Ready", "True")]),
                list(&["node.kubernetes.io/unschedulable:NoSchedule"]),
            ),
        ] {
            assert_eq!(pairs(taints(&node, now)), want, "{why}");
        }
    }

    #[test]
    fn a_settled_taint_keeps_its_time() {
        let mut node = node(json!({}), &[("Ready", "Unknown")]);
        let first = taints(&node, timestamp(NOW)).unwrap();
        node.spec.as_mut().unwrap().taints = Some(first);
        assert_eq!(taints(&node, timestamp("2026-01-01T00:20:00Z")), None);
    }

    #[test]
    fn evictions_by_toleration() {
        let now = timestamp(NOW);
        let taint = |effect: &str| -> Taint {
            object(
                json!({"key": "node.kubernetes.io/unreachable", "effect": effect, "timeAdded": "2026-01-01T00:06:00Z"}),
            )
        };
        let tolerating = |tolerations: Value| pod(json!({"spec": {"tolerations": tolerations}}));
        let at = |time: &str| Eviction::At(timestamp(time));
        let key = "node.kubernetes.io/unreachable";
        for (why, taints, tolerations, want) in [
            ("no taint", vec![], json!([]), Eviction::Never),
            ("other effect", vec![taint("NoSchedule")], json!([]), Eviction::Never),
            ("no toleration", vec![taint("NoExecute")], json!([]), at(NOW)),
            ("for ever", vec![taint("NoExecute")], json!([{"operator": "Exists"}]), Eviction::Never),
            (
                "five minutes",
                vec![taint("NoExecute")],
                json!([{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]),
                at("2026-01-01T00:11:00Z"),
            ),
            (
                "the shortest",
                vec![taint("NoExecute")],
                json!([{"key": key, "operator": "Exists", "tolerationSeconds": 300}, {"operator": "Exists", "tolerationSeconds": 60}]),
                at("2026-01-01T00:07:00Z"),
            ),
            (
                "negative is none",
                vec![taint("NoExecute")],
                json!([{"key": key, "operator": "Exists", "tolerationSeconds": -5}]),
                at("2026-01-01T00:06:00Z"),
            ),
        ] {
            assert_eq!(eviction(&taints, &tolerating(tolerations), now), want, "{why}");
        }
    }

    #[test]
    fn silence_is_measured_by_our_clock_and_told_once() {
        let start = Instant::now();
        let mut pulse = Pulse::first("1".into(), start);
        assert_eq!(pulse.beat("1".into(), start + Duration::from_secs(49)), Duration::from_secs(49));
        assert_eq!(pulse.beat("2".into(), start + Duration::from_secs(50)), Duration::ZERO);
        let mut node = node(json!({}), &[("Ready", "True"), ("MemoryPressure", "False")]);
        let told = silent_conditions(&node, timestamp(NOW));
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|condition| condition.status == "Unknown"));
        assert_eq!(told[0].reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(told[2].reason.as_deref(), Some("NodeStatusNeverUpdated"));
        node.status.as_mut().unwrap().conditions = Some(told);
        assert!(silent_conditions(&node, timestamp(NOW)).is_empty());
    }
}
