//! Installing and updating.

use std::collections::BTreeSet;

use osc_objects::{
    KataConfigStatus,
    kata_config::{DegradedReason, InProgressReason, LOG_LEVELS},
    names::kata,
};

use super::{
    BUSY, Draft, IDLE, gates,
    health::{self, Problem},
    nodes, progress_of, selection,
    topology::Topology,
};
use crate::{
    made,
    options::Options,
    plan::{Plan, Write},
    seen::{Constraints, Seen},
};

/// Whether nodes are being changed right now: removal waits for the end of that. What does
/// not move, because a pool is paused or a node failed, is not waited for.
pub(super) fn is_under_way(seen: &Seen, topology: &Topology, status: &KataConfigStatus) -> bool {
    let rolling = matches!(progress_of(status), InProgressReason::Installing | InProgressReason::Updating);
    if !rolling || seen.own_configs.is_empty() {
        return false;
    }
    let sorted = nodes::sort(seen, *topology);
    let pool = topology.pool(seen);
    let updating = pool.is_some_and(|pool| pool.is("Updating"));
    let starting = status.waiting_for_mco_to_start && !nodes::has_settled(seen, *topology);
    let waiting = !sorted.lists.waiting_to_install.is_empty();
    let frozen = health::is_paused(pool) && sorted.lists.installing.is_empty();
    sorted.stuck.is_empty() && !frozen && (updating || starting || waiting || !sorted.lists.installing.is_empty())
}

pub(super) fn decide(seen: &Seen, topology: &Topology, options: &Options, mut draft: Draft<'_>) -> Plan {
    let topology = *topology;
    if !seen.machine_api {
        draft.problems.push(Problem::new(
            DegradedReason::MachineConfigApiMissing,
            "nothing here configures machines: install machine-config, or run on OpenShift".into(),
        ));
        return stand_still(draft);
    }
    let selected = match selection::select(seen, topology, &draft.config.spec) {
        Ok(selected) => selected,
        Err(problem) => {
            draft.problems.push(problem);
            return stand_still(draft);
        }
    };
    if !selected.taken.is_empty() {
        let names = health::names(selected.taken.iter().map(|(node, pool)| format!("{node} ({pool})")));
        let text = format!(
            "nodes in another custom MachineConfigPool get no sandboxes: {names}; take them out of it, or exclude them \
             in spec.kataConfigPoolSelector"
        );
        draft.problems.push(Problem::new(DegradedReason::NodeInOtherPool, text));
    } else if selected.wanted.is_empty() {
        let text = "no worker matches: label one, or change spec.kataConfigPoolSelector; nodes of the control plane \
                    do not count";
        draft.problems.push(Problem::new(DegradedReason::NoMatchingNodes, text.into()));
    }
    // Configurations of peer pods belong here, before the one that makes nodes restart.
    if seen.own_configs.is_empty() {
        match gates::machine_config(seen, draft.config, topology.pool_name(), options) {
            Ok(config) => draft.write(Write::CreateConfig(Box::new(config))),
            Err(problem) => {
                draft.problems.push(problem);
                return stand_still(draft);
            }
        }
    }
    if !topology.is_converged() {
        move_nodes(seen, &mut draft, &selected.wanted);
    }
    let asked_for_more = !draft.writes.is_empty();
    set_log_level(seen, topology, &mut draft);
    follow(seen, topology, options, draft, asked_for_more)
}

/// Nothing is changed, and the reason is known. Idle is the only truth before the first rollout.
fn stand_still(mut draft: Draft<'_>) -> Plan {
    if draft.status.conditions.is_empty() {
        draft.progress(InProgressReason::Idle, String::new());
    }
    draft.finish(BUSY)
}

/// The pool and the labels that put nodes into it. Stale labels go wherever they are.
fn move_nodes(seen: &Seen, draft: &mut Draft<'_>, wanted: &BTreeSet<String>) {
    if !seen.pools.contains_key(kata::POOL) {
        draft.write(Write::CreatePool(Box::new(made::pool())));
    }
    for node in &seen.nodes {
        match (wanted.contains(&node.name), node.is_kata()) {
            (true, false) => draft.write(Write::Label(node.name.clone())),
            (false, true) => draft.write(Write::Unlabel(node.name.clone())),
            _ => {}
        }
    }
}

fn set_log_level(seen: &Seen, topology: Topology, draft: &mut Draft<'_>) {
    let level = Some(draft.config.spec.log_level.as_str()).filter(|level| !level.is_empty()).unwrap_or("info");
    if !LOG_LEVELS.contains(&level) {
        let text = format!("spec.logLevel {level:?} does not exist: write one of {}", LOG_LEVELS.join(", "));
        draft.problems.push(Problem::new(DegradedReason::InvalidLogLevel, text));
        return;
    }
    match &seen.log_level {
        None if level == "info" => {}
        None => draft.write(Write::CreateLogLevel(Box::new(made::log_level(topology.pool_name(), level)))),
        Some(present) if present != level => draft.write(Write::SetLogLevel(level.into())),
        Some(_) => {}
    }
}

/// Says how far nodes are, and finishes when they are.
fn follow(seen: &Seen, topology: Topology, options: &Options, mut draft: Draft<'_>, asked_for_more: bool) -> Plan {
    let updating = topology.pool(seen).is_some_and(|pool| pool.is("Updating"));
    let started = updating || topology.home(seen).is_some_and(|pool| pool.is("Updating"));
    let asked_before = draft.status.waiting_for_mco_to_start && !nodes::has_settled(seen, topology);
    let waiting = !started && (asked_for_more || asked_before);
    draft.status.waiting_for_mco_to_start = waiting;

    let sorted = nodes::sort(seen, topology);
    draft.problems.extend(health::of_rollout(seen, topology, &sorted, options));
    if waiting {
        draft.problems.extend(health::paused(topology.pool(seen)));
    } else {
        draft.status.kata_nodes = sorted.lists.clone();
    }
    let rolling = waiting || updating || asked_for_more || sorted.is_moving();
    if let Some(node) = sorted.stuck.first().filter(|_| !waiting) {
        draft.progress(InProgressReason::Failed, health::stuck_message(node));
    } else if !rolling {
        return finish(seen, topology, options, draft);
    } else if draft.status.runtime_classes.is_empty() {
        draft.progress(InProgressReason::Installing, "Performing initial installation of kata on cluster".into());
    } else {
        draft.progress(InProgressReason::Updating, "Adding and/or removing kata-enabled nodes".into());
    }
    draft.finish(BUSY)
}

/// Nodes are done: what users see comes last, so that nothing is offered too early.
fn finish(seen: &Seen, topology: Topology, options: &Options, mut draft: Draft<'_>) -> Plan {
    let offered = seen.runtime_classes.contains(kata::RUNTIME_CLASS);
    let wanted = draft.config.metadata.deletion_timestamp.is_none();
    // Who waited for the end may start a pod at once: the end is when the class is there.
    let offering = wanted && !offered && progress_of(&draft.status) != InProgressReason::Idle;
    if offering {
        draft.progress(InProgressReason::Installing, "Offering the RuntimeClass".into());
    } else {
        draft.progress(InProgressReason::Idle, String::new());
    }
    let converged = topology.is_converged();
    // Recorded even before it exists: deletion must look for its pods.
    if !draft.status.runtime_classes.iter().any(|class| class == kata::RUNTIME_CLASS) {
        draft.status.runtime_classes.push(kata::RUNTIME_CLASS.into());
    }
    // Peer pods go on from here: their image, the adaptor, RuntimeClass kata-remote.
    if wanted {
        if !offered {
            draft.write(Write::CreateRuntimeClass(Box::new(made::runtime_class(draft.config, converged))));
        }
        match seen.scc {
            Constraints::Absent => draft.write(Write::CreateScc(Box::new(made::scc(&options.namespace)))),
            Constraints::Outdated => draft.write(Write::RepairScc),
            Constraints::NoApi | Constraints::Present => {}
        }
        if let Some(image) = &options.monitor_image {
            let monitor = made::monitor(&options.namespace, image, converged, seen.scc != Constraints::NoApi);
            draft.write(Write::ApplyMonitor(Box::new(monitor)));
        }
        if seen.dashboard_to_copy {
            draft.write(Write::CopyDashboard);
        }
    }
    draft.finish(if offering { BUSY } else { IDLE })
}
