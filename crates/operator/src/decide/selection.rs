//! Which nodes sandboxes are wanted on.

use std::collections::BTreeSet;

use osc_objects::{KataConfigSpec, LabelSelector, kata_config::DegradedReason, names::kata};

use super::{health::Problem, topology::Topology};
use crate::seen::{NodeSeen, Seen};

/// Names of the nodes, or what is in the way.
pub(super) fn wanted(seen: &Seen, topology: Topology, spec: &KataConfigSpec) -> Result<BTreeSet<String>, Problem> {
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
    let nodes = seen.nodes.iter();
    if topology.is_converged() {
        return Ok(nodes.filter(|node| topology.has(node)).map(|node| node.name.clone()).collect());
    }
    let fits = |node: &&NodeSeen| {
        node.is_worker()
            && !node.is_control_plane()
            && selector.matches(&node.labels)
            && (!spec.check_node_eligibility || is_eligible(node))
    };
    Ok(nodes.filter(fits).map(|node| node.name.clone()).collect())
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
