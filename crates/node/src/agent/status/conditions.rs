//! Conditions of a pod.

use k8s_openapi::{
    api::core::v1::{ContainerStatus, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::Facts;
use crate::pod::Sandbox;

/// What a condition says: whether, why in a word, why in a sentence.
type Verdict = (bool, Option<&'static str>, Option<String>);

const YES: Verdict = (true, None, None);

/// Ours, then those of others, which are left alone.
pub(super) fn all(
    facts: &Facts<'_>,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Vec<PodCondition> {
    let before = facts.object.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let is_sidecar = |status: &&ContainerStatus| facts.pod.container(&status.name).is_some_and(|c| c.sidecar);
    let sidecars: Vec<&ContainerStatus> = init.iter().filter(is_sidecar).collect();
    let containers_ready = containers_ready(phase, sidecars.into_iter().chain(containers));
    let ready = if containers_ready.0 { gates(facts, &before) } else { containers_ready.clone() };
    let in_network = matches!(facts.report.seen.sandbox, Sandbox::Ready { .. }) && !facts.report.addresses.is_empty();
    let ours = [
        ("PodReadyToStartContainers", (in_network, None, None)),
        ("Initialized", initialized(facts, phase, init)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", YES),
    ];
    let mut conditions: Vec<PodCondition> =
        ours.into_iter().map(|(kind, verdict)| condition(facts, kind, verdict, &before)).collect();
    let others = before.into_iter().filter(|old| !ours_has(&conditions, &old.type_)).collect::<Vec<_>>();
    conditions.extend(others);
    conditions
}

fn ours_has(conditions: &[PodCondition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind)
}

fn condition(facts: &Facts<'_>, kind: &str, verdict: Verdict, before: &[PodCondition]) -> PodCondition {
    let (good, reason, message) = verdict;
    let status = if good { "True" } else { "False" };
    let same = before.iter().find(|old| old.type_ == kind && old.status == status);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        observed_generation: facts.object.metadata.generation,
        last_transition_time: same.and_then(|old| old.last_transition_time.clone()).or(Some(Time(facts.now))),
        ..Default::default()
    }
}

/// All init containers have succeeded, and sidecars have been started.
fn initialized(facts: &Facts<'_>, phase: &str, init: &[ContainerStatus]) -> Verdict {
    if phase == "Succeeded" {
        return (true, Some("PodCompleted"), None);
    }
    let done = |status: &ContainerStatus| match facts.pod.container(&status.name) {
        Some(container) if container.sidecar => status.started == Some(true),
        _ => status.ready,
    };
    // Once the others have begun, an init container is never looked at again.
    let begun = facts.pod.containers.iter().any(|c| facts.report.seen.containers.contains_key(&c.name));
    let open: Vec<&str> = init.iter().filter(|status| !done(status)).map(|status| status.name.as_str()).collect();
    if open.is_empty() || begun {
        return YES;
    }
    let message = format!("containers with incomplete status: [{}]", open.join(" "));
    (false, Some("ContainersNotInitialized"), Some(message))
}

fn containers_ready<'a>(phase: &str, statuses: impl Iterator<Item = &'a ContainerStatus>) -> Verdict {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    let unready: Vec<&str> = statuses.filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        return YES;
    }
    (false, Some("ContainersNotReady"), Some(format!("containers with unready status: [{}]", unready.join(" "))))
}

/// Conditions that others have to set.
fn gates(facts: &Facts<'_>, before: &[PodCondition]) -> Verdict {
    let gates = facts.object.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed: Vec<String> = gates
        .map(|gate| &gate.condition_type)
        .filter(|kind| !before.iter().any(|condition| condition.type_ == **kind && condition.status == "True"))
        .map(|kind| format!("the status of pod readiness gate {kind:?} is not \"True\""))
        .collect();
    if closed.is_empty() { YES } else { (false, Some("ReadinessGatesNotReady"), Some(closed.join(", "))) }
}
