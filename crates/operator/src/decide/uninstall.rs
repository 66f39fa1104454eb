//! Removing everything again.

use std::time::Duration;

use osc_objects::{
    KataNodes, MachineConfigPool,
    kata_config::{DegradedReason, InProgressReason},
    names::kata,
};

use super::{
    BUSY, Draft,
    health::{self, Problem},
    nodes, progress_of,
    topology::Topology,
};
use crate::{
    options::Options,
    plan::{Plan, Write},
    seen::{Constraints, NodeSeen, PodSeen, PodsSeen, Seen},
};

/// Blocked by pods: the watch on them says more, this is only for safety.
const BLOCKED: Duration = Duration::from_secs(10);
/// Something was asked for that nobody has to carry out.
const AT_ONCE: Duration = Duration::from_millis(200);

pub(super) fn decide(seen: &Seen, topology: &Topology, options: &Options, mut draft: Draft<'_>) -> Plan {
    let topology = *topology;
    // Once begun, it goes on: no node accepts such a pod any more.
    if progress_of(&draft.status) != InProgressReason::Uninstalling
        && let Some((message, problem)) = blocked(seen, &draft)
    {
        draft.status.kata_nodes = nodes::sort(seen, topology).lists;
        draft.status.waiting_for_mco_to_start = false;
        draft.progress(InProgressReason::BlockedByExistingKataPods, message);
        draft.problems.push(problem);
        return draft.finish(BLOCKED);
    }
    take_back(seen, topology, &mut draft);
    let asked_for_more = !draft.writes.is_empty();
    let left = seen.nodes.iter().any(|node| is_left(seen, topology, node));
    if asked_for_more || left {
        follow(seen, topology, options, draft, asked_for_more, left)
    } else {
        finish(seen, topology, draft)
    }
}

/// Pods that must end first.
fn blocked(seen: &Seen, draft: &Draft<'_>) -> Option<(String, Problem)> {
    let pods = match &seen.pods {
        PodsSeen::Listed(pods) => pods,
        PodsSeen::Unknown => return None,
        PodsSeen::Failed(error) => {
            let message = format!("failed to list kata pods: {error}");
            return Some((message.clone(), Problem::new(DegradedReason::BlockedByPods, message)));
        }
    };
    let classes = &draft.status.runtime_classes;
    let concerned = |pod: &&PodSeen| pod.class == kata::RUNTIME_CLASS || classes.contains(&pod.class);
    let pods: Vec<&PodSeen> = pods.iter().filter(concerned).collect();
    let first = pods.first()?;
    let message = format!(
        "existing pods using \"{}\" RuntimeClass found. Please delete the pods manually for KataConfig deletion to \
         proceed",
        first.class
    );
    let names = health::names(pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)));
    let text = format!("deletion waits for pods in sandboxes to end: delete {names}");
    Some((message, Problem::new(DegradedReason::BlockedByPods, text)))
}

/// Labels from every node that has one, whatever the selector says today; then the configuration.
fn take_back(seen: &Seen, topology: Topology, draft: &mut Draft<'_>) {
    for node in seen.nodes.iter().filter(|node| node.is_kata()) {
        draft.write(Write::Unlabel(node.name.clone()));
    }
    for config in &seen.own_configs {
        draft.write(Write::DeleteConfig(config.name.clone()));
    }
    // There the log level's configuration would make nodes restart once more, later.
    if topology.is_converged() && seen.log_level.is_some() {
        draft.write(Write::DeleteLogLevel);
    }
}

/// Whether a node still has what is taken from it.
fn is_left(seen: &Seen, topology: Topology, node: &NodeSeen) -> bool {
    let Some(current) = node.current.as_deref() else { return false };
    let target = topology.home(seen).and_then(MachineConfigPool::target);
    // With one pool for everything, its whole rollout is ours.
    let behind = topology.is_converged() && topology.has(node) && target.is_some_and(|target| target != current);
    topology.carries(seen, current) || behind
}

fn follow(
    seen: &Seen,
    topology: Topology,
    options: &Options,
    mut draft: Draft<'_>,
    asked_for_more: bool,
    left: bool,
) -> Plan {
    let started = topology.home(seen).is_some_and(|pool| pool.is("Updating"));
    let waiting = left && !started && (asked_for_more || draft.status.waiting_for_mco_to_start);
    draft.status.waiting_for_mco_to_start = waiting;
    let sorted = nodes::sort(seen, topology);
    draft.problems.extend(health::of_rollout(seen, topology, &sorted, options));
    if waiting {
        draft.problems.extend(health::paused(topology.home(seen)));
    }
    if !waiting && !asked_for_more {
        draft.status.kata_nodes = sorted.lists.clone();
    }
    match sorted.stuck.first().filter(|_| !waiting && !asked_for_more) {
        Some(node) => draft.progress(InProgressReason::Failed, health::stuck_message(node)),
        None => draft.progress(InProgressReason::Uninstalling, "Removing kata from cluster".into()),
    }
    draft.finish(if left { BUSY } else { AT_ONCE })
}

fn finish(seen: &Seen, topology: Topology, mut draft: Draft<'_>) -> Plan {
    draft.status.waiting_for_mco_to_start = false;
    draft.status.kata_nodes = KataNodes::default();
    draft.progress(InProgressReason::Idle, String::new());
    if !topology.is_converged() && seen.pools.contains_key(kata::POOL) {
        draft.write(Write::DeletePool(kata::POOL.into()));
    }
    if seen.monitor {
        draft.write(Write::DeleteMonitor);
    }
    if matches!(seen.scc, Constraints::Outdated | Constraints::Present) {
        draft.write(Write::DeleteScc);
    }
    if seen.log_level.is_some() {
        draft.write(Write::DeleteLogLevel);
    }
    draft.write(Write::RemoveFinalizer);
    draft.finish(BUSY)
}
