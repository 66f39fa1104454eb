//! What keeps a KataConfig from being where it should be, and what to do about it.

use k8s_openapi::jiff::Timestamp;
use osc_objects::{
    ConditionStatus, Conditions, KataConfigStatus, MachineConfigPool,
    kata_config::{ConditionType, DegradedReason},
    names::machine::NodeState,
};

use super::{nodes::Sorted, topology::Topology};
use crate::{
    options::Options,
    seen::{NodeSeen, Seen},
};

/// Longest message of the condition.
const MESSAGE_LIMIT: usize = 8 * 1024;
/// Most names in one message.
const MOST_NAMES: usize = 10;
/// A node may take this long until somebody manages it.
const NODE_GRACE_SECONDS: i64 = 300;

/// One thing in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    reason: DegradedReason,
    text: String,
}

impl Problem {
    pub(super) fn new(reason: DegradedReason, text: String) -> Self {
        Self { reason, text }
    }
}

/// Sets condition `Degraded`: the most pressing reason, all texts.
pub(super) fn publish(status: &mut KataConfigStatus, mut problems: Vec<Problem>, now: Timestamp) {
    problems.sort();
    problems.dedup();
    let type_ = ConditionType::Degraded.as_str();
    let Some(first) = problems.first() else {
        status.conditions.set(type_, ConditionStatus::False, DegradedReason::AsExpected.as_str(), "", now);
        return;
    };
    let texts: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
    let message = shorten(texts.join(". "));
    status.conditions.set(type_, ConditionStatus::True, first.reason.as_str(), &message, now);
}

/// A failure of the API itself, on top of what was decided.
pub(crate) fn publish_failure(status: &mut KataConfigStatus, text: &str, now: Timestamp) {
    let problem = Problem::new(DegradedReason::ApiFailure, shorten(text.to_owned()));
    publish(status, vec![problem], now);
}

/// Problems of pools and nodes that have work before them.
pub(super) fn of_rollout(seen: &Seen, topology: Topology, sorted: &Sorted<'_>, options: &Options) -> Vec<Problem> {
    let mut found: Vec<Problem> = sorted.stuck.iter().map(|node| stuck(node)).collect();
    let coming = !sorted.lists.waiting_to_install.is_empty();
    let leaving = !sorted.lists.waiting_to_uninstall.is_empty();
    if coming {
        found.extend(paused(topology.pool(seen)));
    }
    if leaving {
        found.extend(paused(topology.home(seen)));
    }
    found.extend(topology.pool(seen).and_then(unrendered));
    let changing = sorted.lists.installing.iter().chain(&sorted.lists.uninstalling);
    found.extend(changing.filter_map(|name| drain_blocked(seen, name, options)));
    found.extend(unmanaged(seen, topology));
    found
}

/// Condition message for a node that is stuck.
pub(super) fn stuck_message(node: &NodeSeen) -> String {
    let state = node.state.unwrap_or(NodeState::Degraded).as_str();
    format!("Node {} {state}: {}", node.name, node.reason)
}

fn stuck(node: &NodeSeen) -> Problem {
    if node.state == Some(NodeState::Unreconcilable) {
        let text = format!(
            "node {} cannot reach the wanted configuration ({}): revert the MachineConfig that changed last",
            node.name, node.reason
        );
        return Problem::new(DegradedReason::NodeUnreconcilable, text);
    }
    let text = format!(
        "node {} could not be updated ({}): correct that on the node, it is tried again by itself",
        node.name, node.reason
    );
    Problem::new(DegradedReason::NodeDegraded, text)
}

/// Whether a pool is paused.
pub(super) fn is_paused(pool: Option<&MachineConfigPool>) -> bool {
    pool.is_some_and(|pool| pool.spec.paused)
}

/// The problem of a paused pool that somebody waits for.
pub(super) fn paused(pool: Option<&MachineConfigPool>) -> Option<Problem> {
    let pool = pool.filter(|pool| pool.spec.paused)?;
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let text = format!("MachineConfigPool {name} is paused while nodes wait for it: set its spec.paused to false");
    Some(Problem::new(DegradedReason::PoolPaused, text))
}

fn unrendered(pool: &MachineConfigPool) -> Option<Problem> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let failed = pool.condition("RenderDegraded").filter(|condition| condition.status == ConditionStatus::True)?;
    let text = format!(
        "the configuration of MachineConfigPool {name} cannot be made ({}): correct the MachineConfig it names",
        failed.message
    );
    Some(Problem::new(DegradedReason::PoolDegraded, text))
}

fn drain_blocked(seen: &Seen, node: &str, options: &Options) -> Option<Problem> {
    let since = *seen.draining.get(node)?;
    let patience = i64::try_from(options.drain_patience.as_secs()).unwrap_or(i64::MAX);
    (seen.now.as_second().saturating_sub(since.as_second()) >= patience).then(|| {
        let text = format!(
            "node {node} is being emptied since {since} and still has pods: look for a PodDisruptionBudget without \
             allowance or a pod that does not end"
        );
        Problem::new(DegradedReason::DrainBlocked, text)
    })
}

fn unmanaged(seen: &Seen, topology: Topology) -> Option<Problem> {
    let old = |node: &&NodeSeen| {
        node.created.is_none_or(|created| seen.now.as_second() - created.as_second() >= NODE_GRACE_SECONDS)
    };
    let silent = seen.nodes.iter().filter(|node| topology.has(node) && node.current.is_none()).filter(old);
    let names = names(silent.map(|node| node.name.clone()));
    (!names.is_empty()).then(|| {
        let text = format!("nobody configures node {names}: is the machine-config daemon running there?");
        Problem::new(DegradedReason::NodeDegraded, text)
    })
}

/// Names for a message: not too many.
pub(super) fn names(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(MOST_NAMES);
    let mut text = all.into_iter().take(MOST_NAMES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn shorten(mut text: String) -> String {
    if text.len() > MESSAGE_LIMIT {
        let cut = (0..=MESSAGE_LIMIT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}
