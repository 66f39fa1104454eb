//! Sorting nodes by what happens to them.

use osc_objects::{KataNodes, MachineConfigPool, names::machine::NodeState};

use super::topology::Topology;
use crate::seen::{NodeSeen, Seen};

/// All lists, and the nodes that are stuck.
#[derive(Clone, Debug, Default)]
pub(super) struct Sorted<'a> {
    pub lists: KataNodes,
    pub stuck: Vec<&'a NodeSeen>,
}

impl Sorted<'_> {
    /// Whether any node has a change before it.
    pub(super) fn is_moving(&self) -> bool {
        let lists = &self.lists;
        [
            &lists.installing,
            &lists.waiting_to_install,
            &lists.failed_to_install,
            &lists.uninstalling,
            &lists.waiting_to_uninstall,
            &lists.failed_to_uninstall,
        ]
        .iter()
        .any(|list| !list.is_empty())
    }
}

/// Sorts nodes. One without annotations is in no list: nobody manages it yet.
pub(super) fn sort(seen: &Seen, topology: Topology) -> Sorted<'_> {
    let mut sorted = Sorted::default();
    for node in &seen.nodes {
        if is_enabled(seen, topology, node) {
            sorted.lists.node_count += 1;
            sort_one(&mut sorted, node, target(topology.pool(seen)), true);
        } else if is_leaving(seen, topology, node) {
            sort_one(&mut sorted, node, target(topology.home(seen)), false);
        }
    }
    let lists = &mut sorted.lists;
    for list in [
        &mut lists.installed,
        &mut lists.installing,
        &mut lists.waiting_to_install,
        &mut lists.failed_to_install,
        &mut lists.uninstalling,
        &mut lists.waiting_to_uninstall,
        &mut lists.failed_to_uninstall,
    ] {
        list.sort();
    }
    lists.ready_node_count = i64::try_from(lists.installed.len()).unwrap_or(i64::MAX);
    sorted
}

fn sort_one<'a>(sorted: &mut Sorted<'a>, node: &'a NodeSeen, target: Option<&str>, coming: bool) {
    let (Some(current), Some(state)) = (node.current.as_deref(), node.state) else { return };
    let lists = &mut sorted.lists;
    let list = match (state, coming) {
        (NodeState::Done, true) if Some(current) == target => &mut lists.installed,
        (NodeState::Done, true) => &mut lists.waiting_to_install,
        (NodeState::Done, false) if Some(current) == target => return,
        (NodeState::Done, false) => &mut lists.waiting_to_uninstall,
        (NodeState::Working, true) => &mut lists.installing,
        (NodeState::Working, false) => &mut lists.uninstalling,
        (NodeState::Degraded | NodeState::Unreconcilable, coming) => {
            sorted.stuck.push(node);
            if coming { &mut lists.failed_to_install } else { &mut lists.failed_to_uninstall }
        }
    };
    list.push(node.name.clone());
}

fn target(pool: Option<&MachineConfigPool>) -> Option<&str> {
    pool.and_then(MachineConfigPool::target)
}

fn is_enabled(seen: &Seen, topology: Topology, node: &NodeSeen) -> bool {
    let rendered = || target(topology.pool(seen)).is_some_and(|name| topology.carries(seen, name));
    topology.has(node) && (!topology.is_converged() || rendered())
}

/// Whether a node still has what it is to lose. Other updates of workers are not our business.
pub(super) fn is_leaving(seen: &Seen, topology: Topology, node: &NodeSeen) -> bool {
    let carries = node.current.as_deref().is_some_and(|current| topology.carries(seen, current));
    carries && !is_enabled(seen, topology, node)
}

/// Whether the pool has done all that was asked of it, seen from the nodes: whoever looks
/// too late to see it update must not wait for ever.
pub(super) fn has_settled(seen: &Seen, topology: Topology) -> bool {
    let Some(pool) = topology.pool(seen) else { return false };
    let Some(target) = pool.target() else { return false };
    let observed = pool.status.as_ref().map_or(0, |status| status.observed_generation);
    let is_observed = pool.metadata.generation.is_none_or(|generation| observed >= generation);
    let sources = pool.spec.configuration.iter().flat_map(|target| &target.source);
    let names: Vec<&str> = sources.map(|source| source.name.as_str()).collect();
    let has_ours = names.is_empty() || seen.own_configs.iter().all(|own| names.contains(&own.name.as_str()));
    let mut members = seen.nodes.iter().filter(|node| topology.has(node));
    let all_there = members.all(|node| node.current.as_deref() == Some(target) && node.state == Some(NodeState::Done));
    let leaving = seen.nodes.iter().any(|node| is_leaving(seen, topology, node));
    is_observed && has_ours && all_there && !leaving && pool.is("Updated") && topology.carries(seen, target)
}
