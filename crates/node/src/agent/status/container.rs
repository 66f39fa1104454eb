//! Status of one container.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::Facts;
use crate::pod::{Attempt, Detail, State, back_off, model::Container, pause, policy};

pub(super) fn status(
    facts: &Facts<'_>,
    container: &Container,
    before: &[ContainerStatus],
    over: bool,
) -> ContainerStatus {
    let name = &container.name;
    let before = before.iter().find(|status| status.name == *name);
    let Some(attempt) = facts.report.seen.containers.get(name) else {
        return unseen(facts, container, before, over);
    };
    let state = state(facts, container, attempt, over);
    let last = match (&state.waiting, attempt.state) {
        // What the container waits after.
        (Some(_), State::Exited { .. }) => Some(terminated(&attempt.detail)),
        _ => attempt.previous.as_deref().map(terminated).or_else(|| forgotten(before, &attempt.id)),
    };
    let running = state.running.is_some();
    let is_init = facts.pod.init.iter().any(|init| init.name == *name) && !container.sidecar;
    let ready = match attempt.state {
        _ if facts.pod.is_ephemeral(name) => false,
        State::Exited { code, .. } => is_init && code == 0,
        _ => running && attempt.health.ready && attempt.health.started && !is_init,
    };
    ContainerStatus {
        name: name.clone(),
        image: if attempt.detail.image.is_empty() { container.image.clone() } else { attempt.detail.image.clone() },
        image_id: attempt.detail.image_id.clone(),
        container_id: Some(id_of(&attempt.id)),
        restart_count: i32::try_from(attempt.number).unwrap_or(i32::MAX),
        ready,
        started: Some(running && attempt.health.started && !is_init),
        state: Some(state),
        last_state: last.map(|terminated| ContainerState { terminated: Some(terminated), ..Default::default() }),
        ..Default::default()
    }
}

/// A container the engine does not know: it has not been made, or is gone with
/// its sandbox.
fn unseen(facts: &Facts<'_>, container: &Container, before: Option<&ContainerStatus>, over: bool) -> ContainerStatus {
    if let Some(before) = before.filter(|_| over) {
        return ContainerStatus { ready: false, started: Some(false), ..before.clone() };
    }
    let (reason, message) = match facts.report.waiting.get(&container.name) {
        Some((reason, message)) => (*reason, Some(message.clone())),
        None => (not_made_yet(facts, container), None),
    };
    let last = forgotten(before, "");
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        restart_count: before.map_or(0, |before| before.restart_count),
        started: Some(false),
        state: Some(waiting(reason, message)),
        last_state: last.map(|terminated| ContainerState { terminated: Some(terminated), ..Default::default() }),
        ..Default::default()
    }
}

fn not_made_yet(facts: &Facts<'_>, container: &Container) -> &'static str {
    let is_main = facts.pod.containers.iter().any(|main| main.name == container.name);
    if is_main && !facts.pod.init.is_empty() { "PodInitializing" } else { "ContainerCreating" }
}

fn state(facts: &Facts<'_>, container: &Container, attempt: &Attempt, over: bool) -> ContainerState {
    let running = ContainerStateRunning { started_at: time(attempt.detail.started) };
    match attempt.state {
        State::Created => waiting("ContainerCreating", None),
        State::Running => ContainerState { running: Some(running), ..Default::default() },
        State::Exited { ran, .. } => {
            let pause = pause(policy(facts.pod, container), attempt).filter(|_| !over);
            let held = facts.report.waiting.get(&container.name).filter(|_| pause.is_some());
            match (held, pause) {
                (Some((reason, message)), _) => waiting(reason, Some(message.clone())),
                (None, Some(pause)) if !pause.is_zero() => {
                    let pod = facts.pod;
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}_{}({})",
                        in_words(back_off(attempt.number, ran).as_secs()),
                        container.name,
                        pod.name,
                        pod.namespace,
                        pod.uid
                    );
                    waiting("CrashLoopBackOff", Some(message))
                }
                _ => ContainerState { terminated: Some(terminated(&attempt.detail)), ..Default::default() },
            }
        }
    }
}

/// `10s`, `2m40s`, `5m0s`.
fn in_words(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn terminated(detail: &Detail) -> ContainerStateTerminated {
    let reason = match (detail.reason.as_str(), detail.code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerStateTerminated {
        container_id: Some(id_of(&detail.id)),
        exit_code: detail.code,
        reason: Some(reason.to_owned()),
        message: (!detail.message.is_empty()).then(|| detail.message.clone()),
        started_at: time(detail.started),
        finished_at: time(detail.finished),
        ..Default::default()
    }
}

/// How an earlier attempt ended that the engine does not know any more.
fn forgotten(before: Option<&ContainerStatus>, id: &str) -> Option<ContainerStateTerminated> {
    let before = before?;
    let ended = before.state.as_ref().and_then(|state| state.terminated.as_ref());
    let other = ended.filter(|ended| ended.container_id.as_deref() != Some(id_of(id).as_str()));
    other.or_else(|| before.last_state.as_ref().and_then(|state| state.terminated.as_ref())).cloned()
}

fn id_of(id: &str) -> String {
    format!("containerd://{id}")
}

/// Whole seconds, as the API stores them.
fn time(nanoseconds: i64) -> Option<Time> {
    Timestamp::from_second(nanoseconds / 1_000_000_000).ok().filter(|_| nanoseconds != 0).map(Time)
}
