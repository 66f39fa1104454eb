//! Topology spread constraints with `DoNotSchedule`.
//!
//! Placing the pod must not make a domain exceed the emptiest eligible domain by
//! more than `maxSkew`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodSpec, TopologySpreadConstraint};
use kube::core::{Expression, Selector, SelectorExt};

use crate::{
    pods,
    scheduler::{
        node_affinity,
        view::{Place, View},
    },
    taints::{self, NO_EXECUTE, NO_SCHEDULE},
};

/// Why a node is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The node lacks the topology label.
    MissingLabel,
    /// The domain has too many matching pods.
    Skew,
}

struct Constraint {
    topology: String,
    max_skew: i64,
    /// Matching pods per eligible domain.
    counts: BTreeMap<String, i64>,
    least: i64,
    /// 1 if the pod itself is counted by the constraint.
    itself: i64,
}

/// The hard constraints of one pod, counted once for all nodes.
pub(crate) struct Spread(Vec<Constraint>);

impl Spread {
    pub(crate) fn of(pod: &Pod, view: &View) -> Self {
        let Some(spec) = &pod.spec else { return Self(Vec::new()) };
        let hard: Vec<_> = spec
            .topology_spread_constraints
            .iter()
            .flatten()
            .filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
            .collect();
        let topologies: BTreeSet<&str> = hard.iter().map(|constraint| constraint.topology_key.as_str()).collect();
        Self(hard.iter().map(|constraint| count(constraint, pod, spec, view, &topologies)).collect())
    }

    /// Whether a node is refused, and why.
    pub(crate) fn refuses(&self, place: &Place) -> Option<Refusal> {
        for constraint in &self.0 {
            let Some(value) = place.label(&constraint.topology) else { return Some(Refusal::MissingLabel) };
            let here = constraint.counts.get(value).copied().unwrap_or(0);
            if here + constraint.itself - constraint.least > constraint.max_skew {
                return Some(Refusal::Skew);
            }
        }
        None
    }
}

fn count(
    constraint: &TopologySpreadConstraint,
    pod: &Pod,
    spec: &PodSpec,
    view: &View,
    topologies: &BTreeSet<&str>,
) -> Constraint {
    let selector = selector(constraint, pod);
    let selected =
        |other: &Pod| selector.as_ref().is_some_and(|selector| selector.matches(pods::labels(&other.metadata)));
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for place in view.nodes() {
        // A node that lacks any of the labels is outside all constraints.
        if !topologies.iter().all(|key| place.label(key).is_some()) || !eligible(constraint, spec, place) {
            continue;
        }
        let Some(domain) = place.label(&constraint.topology_key) else { continue };
        let here = place
            .pods
            .values()
            .filter(|other| other.metadata.namespace == pod.metadata.namespace)
            .filter(|other| !pods::is_deleting(other) && selected(other))
            .count();
        *counts.entry(domain.to_owned()).or_default() += i64::try_from(here).unwrap_or(i64::MAX);
    }
    let domains = i32::try_from(counts.len()).unwrap_or(i32::MAX);
    let least =
        if domains < constraint.min_domains.unwrap_or(1) { 0 } else { counts.values().min().copied().unwrap_or(0) };
    Constraint {
        topology: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        counts,
        least,
        itself: i64::from(selected(pod)),
    }
}

fn selector(constraint: &TopologySpreadConstraint, pod: &Pod) -> Option<Selector> {
    let mut selector = Selector::try_from(constraint.label_selector.clone()?).ok()?;
    let mine = pods::labels(&pod.metadata);
    let same = constraint
        .match_label_keys
        .iter()
        .flatten()
        .filter_map(|key| mine.get(key).map(|value| Expression::In(key.clone(), BTreeSet::from([value.clone()]))));
    selector.extend(same);
    Some(selector)
}

fn eligible(constraint: &TopologySpreadConstraint, spec: &PodSpec, place: &Place) -> bool {
    let Some(node) = &place.node else { return false };
    let by_affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore") || node_affinity::admits(spec, node);
    let node_taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let by_taints = constraint.node_taints_policy.as_deref() != Some("Honor")
        || taints::untolerated(node_taints, tolerations, &[NO_SCHEDULE, NO_EXECUTE]).is_none();
    by_affinity && by_taints
}
