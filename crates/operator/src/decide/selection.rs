//! Which nodes sandboxes are wanted on.

use std::collections::{BTreeMap, BTreeSet};

use osc_objects::{
    KataConfigSpec, LabelSelector,
    kata_config::DegradedReason,
    names::{kata, role},
};

use super::{health::Problem, topology::Topology};
use crate::seen::{NodeSeen, Seen};

/// Nodes that are selected.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// Those that get sandboxes.
    pub wanted: BTreeSet<String>,
    /// Those that cannot, because they are in a custom pool already, with that pool. A node in
    /// two of them would be configured by neither.
    pub taken: BTreeMap<String, String>,
}

/// Selects nodes, or says what is in the way.
pub(super) fn select(seen: &Seen, topology: Topology, spec: &KataConfigSpec) -> Result<Selected, Problem> {
    let selector = spec.kata_config_pool_selector.clone().unwrap_or_default();
    check(&selector)?;
    // Peer pods run elsewhere, so nodes may be unable to and still be of use.
    if spec.check_node_eligibility && !spec.enable_peer_pods && !seen.nodes.iter().any(is_eligible) {
        return Err(Problem::new(
            DegradedReason::NoEligibleNodes,
            format!(
                "no node is labelled {}=true: run node feature discovery or the prober, or set \
                 checkNodeEligibility to false",
                kata::ELIGIBLE_LABEL
            ),
        ));
    }
    let mut selected = Selected::default();
    for node in &seen.nodes {
        let fits = match topology {
            Topology::Converged => topology.has(node),
            Topology::Workers => {
                node.is_worker()
                    && !node.is_control_plane()
                    && selector.matches(&node.labels)
                    && (!spec.check_node_eligibility || is_eligible(node))
            }
        };
        let pool = if topology.is_converged() { None } else { other_pool(seen, node) };
        match pool {
            _ if !fits => {}
            Some(pool) => drop(selected.taken.insert(node.name.clone(), pool)),
            None => drop(selected.wanted.insert(node.name.clone())),
        }
    }
    Ok(selected)
}

/// A custom pool, not ours, that a node is in.
fn other_pool(seen: &Seen, node: &NodeSeen) -> Option<String> {
    let custom =
        seen.pools.iter().filter(|(name, _)| ![kata::POOL, role::WORKER, role::MASTER].contains(&name.as_str()));
    let mut holding = custom.filter(|(_, pool)| {
        // An empty selector selects none.
        let selector = pool.spec.node_selector.as_ref().filter(|selector| !selector.is_empty());
        selector.is_some_and(|selector| selector.matches(&node.labels))
    });
    holding.next().map(|(name, _)| name.clone())
}

fn check(selector: &LabelSelector) -> Result<(), Problem> {
    let problems: Vec<String> = selector.problems().iter().map(ToString::to_string).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let text = format!(
        "spec.kataConfigPoolSelector cannot be used ({}): nothing is changed until it is corrected",
        problems.join("; ")
    );
    Err(Problem::new(DegradedReason::InvalidSelector, text))
}

fn is_eligible(node: &NodeSeen) -> bool {
    node.labels.get(kata::ELIGIBLE_LABEL).is_some_and(|value| value == "true")
}
