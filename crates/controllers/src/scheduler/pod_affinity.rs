//! Required affinity and anti-affinity between pods.
//!
//! A term asks for (or forbids) a matching pod in the same topology domain: all
//! nodes with the same value of the term's label. Anti-affinity works both ways:
//! pods already placed may refuse the new one.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::{Expression, Selector, SelectorExt};

use crate::{
    pods,
    scheduler::view::{Place, View},
};

/// A term ready for matching.
struct Term {
    topology: String,
    namespaces: BTreeSet<String>,
    /// `None` selects nothing.
    selector: Option<Selector>,
}

impl Term {
    /// Reads a term of `pod`.
    fn of(term: &PodAffinityTerm, pod: &Pod, view: &View) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if let Some(selector) = &term.namespace_selector {
            if let Ok(selector) = Selector::try_from(selector.clone()) {
                namespaces.extend(view.namespaces_matching(&selector));
            }
        } else if namespaces.is_empty() {
            namespaces.extend(pod.metadata.namespace.clone());
        }
        let mine = pods::labels(&pod.metadata);
        let value = |key: &String| mine.get(key).map(|value| (key.clone(), BTreeSet::from([value.clone()])));
        let selector = parse(term.label_selector.as_ref()).map(|mut selector| {
            let same = term.match_label_keys.iter().flatten().filter_map(value);
            let other = term.mismatch_label_keys.iter().flatten().filter_map(value);
            selector.extend(same.map(|(key, values)| Expression::In(key, values)));
            selector.extend(other.map(|(key, values)| Expression::NotIn(key, values)));
            selector
        });
        Self { topology: term.topology_key.clone(), namespaces, selector }
    }

    fn matches(&self, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        self.namespaces.contains(namespace)
            && self.selector.as_ref().is_some_and(|selector| selector.matches(pods::labels(&pod.metadata)))
    }
}

fn parse(selector: Option<&LabelSelector>) -> Option<Selector> {
    Selector::try_from(selector?.clone()).ok()
}

/// Why a node is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Affinity,
    AntiAffinity,
    AntiAffinityOfOthers,
}

/// The terms of one pod, evaluated against the cluster once for all nodes.
pub(crate) struct PodAffinity {
    /// Per affinity term: its topology label and the domains that satisfy it.
    attract: Vec<(String, BTreeSet<String>)>,
    /// The pod satisfies its own affinity and nobody else matches: it may be first anywhere.
    first: bool,
    /// Per anti-affinity term: topology label and forbidden domains.
    repel: Vec<(String, BTreeSet<String>)>,
    /// Domains (label, value) that pods already there keep to themselves.
    reserved: BTreeSet<(String, String)>,
}

impl PodAffinity {
    pub(crate) fn of(pod: &Pod, view: &View) -> Self {
        let attract: Vec<Term> = required_affinity(pod).map(|term| Term::of(term, pod, view)).collect();
        let repel: Vec<Term> = required_anti_affinity(pod).map(|term| Term::of(term, pod, view)).collect();
        // Affinity terms belong together: a pod counts only if all of them match it.
        let domains = |term: &Term, matching: &dyn Fn(&Pod) -> bool| -> BTreeSet<String> {
            let found = view.nodes().filter(|place| place.pods.values().any(|other| matching(other)));
            found.filter_map(|place| place.label(&term.topology).map(str::to_owned)).collect()
        };
        let all_match = |other: &Pod| attract.iter().all(|term| term.matches(other));
        let satisfied: Vec<_> = attract.iter().map(|term| (term.topology.clone(), domains(term, &all_match))).collect();
        let first = satisfied.iter().all(|(_, domains)| domains.is_empty()) && all_match(pod);
        let repel =
            repel.iter().map(|term| (term.topology.clone(), domains(term, &|other| term.matches(other)))).collect();
        Self { attract: satisfied, first, repel, reserved: reserved(pod, view) }
    }

    /// Whether a node is refused, and why.
    pub(crate) fn refuses(&self, place: &Place) -> Option<Refusal> {
        let in_domain = |topology: &str, domains: &BTreeSet<String>| {
            place.label(topology).is_some_and(|value| domains.contains(value))
        };
        let attracted = self.attract.iter().all(|(topology, domains)| {
            if self.first { place.label(topology).is_some() } else { in_domain(topology, domains) }
        });
        if !attracted {
            return Some(Refusal::Affinity);
        }
        if self.repel.iter().any(|(topology, domains)| in_domain(topology, domains)) {
            return Some(Refusal::AntiAffinity);
        }
        let kept = |(topology, value): &(String, String)| place.label(topology) == Some(value.as_str());
        self.reserved.iter().any(kept).then_some(Refusal::AntiAffinityOfOthers)
    }
}

fn reserved(pod: &Pod, view: &View) -> BTreeSet<(String, String)> {
    let mut reserved = BTreeSet::new();
    for place in view.nodes() {
        for other in place.pods.values() {
            for term in required_anti_affinity(other) {
                let Some(value) = place.label(&term.topology_key) else { continue };
                if Term::of(term, other, view).matches(pod) {
                    reserved.insert((term.topology_key.clone(), value.to_owned()));
                }
            }
        }
    }
    reserved
}

fn required_affinity(pod: &Pod) -> impl Iterator<Item = &PodAffinityTerm> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
    affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref()).into_iter().flatten()
}

fn required_anti_affinity(pod: &Pod) -> impl Iterator<Item = &PodAffinityTerm> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref()).into_iter().flatten()
}
