//! Where a pod goes, or why nowhere: a pure function of pod and view.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint};

use crate::{
    scheduler::{
        node_affinity,
        pod_affinity::{self, PodAffinity},
        resources::{Resources, requested, weighed},
        spread::{self, Spread},
        view::{HostPort, Place, View, host_ports},
    },
    taints::{self, NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, UNSCHEDULABLE},
};

/// Placement of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The node to bind to.
    Bind(String),
    /// No node fits; the text says why, node by node.
    Unschedulable(String),
}

/// One reason why one node does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unfit {
    Unschedulable,
    Affinity,
    Taint { key: String, value: String },
    Ports,
    Insufficient(String),
    TooManyPods,
    VolumeAffinity,
    PodAffinity,
    PodAntiAffinity,
    PodAntiAffinityOfOthers,
    SpreadLabel,
    SpreadSkew,
}

impl Unfit {
    /// The words of the stock scheduler: people and scripts search for them.
    fn words(&self) -> String {
        match self {
            Self::Unschedulable => "node(s) were unschedulable".into(),
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector".into(),
            Self::Taint { key, value } => format!("node(s) had untolerated taint {{{key}: {value}}}"),
            Self::Ports => "node(s) didn't have free ports for the requested pod ports".into(),
            Self::Insufficient(name) => format!("Insufficient {name}"),
            Self::TooManyPods => "Too many pods".into(),
            Self::VolumeAffinity => "node(s) had volume node affinity conflict".into(),
            Self::PodAffinity => "node(s) didn't match pod affinity rules".into(),
            Self::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules".into(),
            Self::PodAntiAffinityOfOthers => "node(s) didn't satisfy existing pods anti-affinity rules".into(),
            Self::SpreadLabel => "node(s) didn't match pod topology spread constraints (missing required label)".into(),
            Self::SpreadSkew => "node(s) didn't match pod topology spread constraints".into(),
        }
    }
}

/// What a pod wants, computed once for all nodes.
struct Wanted<'a> {
    spec: &'a PodSpec,
    resources: Resources,
    weight: Resources,
    ports: Vec<HostPort>,
    volumes: Vec<std::sync::Arc<k8s_openapi::api::core::v1::PersistentVolume>>,
    affinity: PodAffinity,
    spread: Spread,
}

/// Chooses a node for `pod`.
pub(crate) fn decide(pod: &Pod, view: &View) -> Decision {
    let Some(spec) = &pod.spec else { return Decision::Unschedulable("the pod has no spec".into()) };
    let nodes = view.nodes().count();
    if nodes == 0 {
        return Decision::Unschedulable("no nodes available to schedule pods".into());
    }
    let volumes = match claimed_volumes(pod, spec, view) {
        Ok(volumes) => volumes,
        Err(problem) => return Decision::Unschedulable(format!("0/{nodes} nodes are available: {problem}.")),
    };
    let wanted = Wanted {
        spec,
        resources: requested(spec),
        weight: weighed(spec),
        ports: host_ports(pod),
        volumes,
        affinity: PodAffinity::of(pod, view),
        spread: Spread::of(pod, view),
    };
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for place in view.nodes() {
        let unfit = unfit(&wanted, place);
        if unfit.is_empty() {
            fitting.push(place);
        }
        for reason in unfit {
            *reasons.entry(reason.words()).or_default() += 1;
        }
    }
    match best(&wanted, &fitting) {
        Some(place) => Decision::Bind(place.name().to_owned()),
        None => Decision::Unschedulable(summary(nodes, &reasons)),
    }
}

fn summary(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut parts: Vec<String> = reasons.iter().map(|(words, count)| format!("{count} {words}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

/// Reasons against one node: the first failing kind of check, as the stock scheduler counts.
fn unfit(wanted: &Wanted<'_>, place: &Place) -> Vec<Unfit> {
    let Some(node) = &place.node else { return vec![Unfit::Unschedulable] };
    if let Some(reason) = refused_by_node(wanted, node) {
        return vec![reason];
    }
    if !place.ports_free(&wanted.ports) {
        return vec![Unfit::Ports];
    }
    let lacking = insufficient(&wanted.resources, place);
    if !lacking.is_empty() {
        return lacking;
    }
    if !wanted.volumes.iter().all(|volume| volume_reaches(volume, node)) {
        return vec![Unfit::VolumeAffinity];
    }
    let by_spread = wanted.spread.refuses(place).map(|refusal| match refusal {
        spread::Refusal::MissingLabel => Unfit::SpreadLabel,
        spread::Refusal::Skew => Unfit::SpreadSkew,
    });
    let by_pods = || {
        wanted.affinity.refuses(place).map(|refusal| match refusal {
            pod_affinity::Refusal::Affinity => Unfit::PodAffinity,
            pod_affinity::Refusal::AntiAffinity => Unfit::PodAntiAffinity,
            pod_affinity::Refusal::AntiAffinityOfOthers => Unfit::PodAntiAffinityOfOthers,
        })
    };
    by_spread.or_else(by_pods).into_iter().collect()
}

fn refused_by_node(wanted: &Wanted<'_>, node: &Node) -> Option<Unfit> {
    let tolerations = wanted.spec.tolerations.as_deref().unwrap_or_default();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        let cordon = taints::taint(UNSCHEDULABLE, NO_SCHEDULE);
        if !tolerations.iter().any(|toleration| taints::tolerates(toleration, &cordon)) {
            return Some(Unfit::Unschedulable);
        }
    }
    let taint = taints::untolerated(node_taints(node), tolerations, &[NO_SCHEDULE, NO_EXECUTE]);
    if let Some(taint) = taint {
        return Some(Unfit::Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default() });
    }
    (!node_affinity::admits(wanted.spec, node)).then_some(Unfit::Affinity)
}

fn node_taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn insufficient(wanted: &Resources, place: &Place) -> Vec<Unfit> {
    let mut lacking = Vec::new();
    let count = i64::try_from(place.pods.len()).unwrap_or(i64::MAX);
    if count.saturating_add(1) > place.allocatable.get("pods") {
        lacking.push(Unfit::TooManyPods);
    }
    for (name, amount) in wanted.iter().filter(|(_, amount)| *amount > 0) {
        if place.used.get(name).saturating_add(amount) > place.allocatable.get(name) {
            lacking.push(Unfit::Insufficient(name.to_owned()));
        }
    }
    lacking
}

/// Volumes of all claims of the pod, or why it cannot start anywhere yet.
fn claimed_volumes(
    pod: &Pod,
    spec: &PodSpec,
    view: &View,
) -> Result<Vec<std::sync::Arc<k8s_openapi::api::core::v1::PersistentVolume>>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut volumes = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => source.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name),
            (None, None) => continue,
        };
        let Some(claim) = view.claim(namespace, &name) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        match bound {
            Some(volume) if phase == Some("Bound") => {
                let found = view.volume(volume);
                volumes.push(found.ok_or_else(|| format!("persistentvolume \"{volume}\" not found"))?);
            }
            _ => return Err("pod has unbound immediate PersistentVolumeClaims".into()),
        }
    }
    Ok(volumes)
}

fn volume_reaches(volume: &k8s_openapi::api::core::v1::PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|selector| node_affinity::selects(selector, node))
}

/// The emptiest of the fitting nodes, after preferences.
fn best<'a>(wanted: &Wanted<'_>, fitting: &[&'a Place]) -> Option<&'a Place> {
    let preferences: Vec<i64> = fitting.iter().map(|place| preference(wanted, place)).collect();
    let most = preferences.iter().copied().max().unwrap_or(0);
    let scored = fitting.iter().zip(preferences).map(|(place, preference)| {
        // Preferences count twice as much as emptiness, both on a scale to 100.
        let preferred = if most > 0 { preference * 200 / most } else { 0 };
        let score = preferred + emptiness(wanted, place) - 100 * avoided(wanted, place);
        (score, *place)
    });
    // The first of equals is the one with fewer pods, then by name: the choice is repeatable.
    scored
        .max_by(|(left, a), (right, b)| {
            left.cmp(right).then_with(|| b.pods.len().cmp(&a.pods.len())).then_with(|| b.name().cmp(a.name()))
        })
        .map(|(_, place)| place)
}

fn preference(wanted: &Wanted<'_>, place: &Place) -> i64 {
    place.node.as_ref().map_or(0, |node| node_affinity::preference(wanted.spec, node))
}

/// Free share of processor and memory after placing the pod, 0 to 100.
fn emptiness(wanted: &Wanted<'_>, place: &Place) -> i64 {
    let share = |name: &str| {
        let total = i128::from(place.allocatable.get(name));
        let used = i128::from(place.weight.get(name)) + i128::from(wanted.weight.get(name));
        if total <= 0 || used >= total { 0 } else { i64::try_from((total - used) * 100 / total).unwrap_or(0) }
    };
    (share("cpu") + share("memory")) / 2
}

/// Number of soft taints the pod does not tolerate.
fn avoided(wanted: &Wanted<'_>, place: &Place) -> i64 {
    let Some(node) = &place.node else { return 0 };
    let tolerations = wanted.spec.tolerations.as_deref().unwrap_or_default();
    let soft = node_taints(node).iter().filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
    let untolerated = soft.filter(|taint| !tolerations.iter().any(|toleration| taints::tolerates(toleration, taint)));
    i64::try_from(untolerated.count()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
