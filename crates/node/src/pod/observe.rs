//! What the engine says about a pod.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_cri::v1::{self, ContainerState, PodSandboxState};

use super::{
    config::{labels, selector},
    next::{Attempt, Sandbox, Seen, State},
};
use crate::cri::{Client, CriError};

/// Looks at the pod of that identity.
///
/// # Errors
/// When the engine does not answer.
pub async fn observe(client: &Client, uid: &str) -> Result<Seen, CriError> {
    let Some(sandbox) = client.sandboxes(selector(uid)).await?.into_iter().next() else {
        return Ok(Seen::default());
    };
    let now = now();
    let mut newest: HashMap<String, v1::Container> = HashMap::new();
    for container in client.containers(selector(uid)).await? {
        if container.pod_sandbox_id != sandbox.id {
            continue;
        }
        let name = container.labels.get(labels::CONTAINER).cloned().unwrap_or_default();
        let other = newest.get(&name).map_or(0, number);
        if !newest.contains_key(&name) || number(&container) > other {
            newest.insert(name, container);
        }
    }
    let mut containers = HashMap::new();
    for (name, container) in newest {
        let state = match container.state() {
            ContainerState::ContainerCreated => State::Created,
            ContainerState::ContainerRunning => State::Running,
            _ => exited(&client.container_status(&container.id).await?, now),
        };
        containers.insert(name, Attempt { number: number(&container), id: container.id, state });
    }
    let id = sandbox.id.clone();
    Ok(Seen {
        sandbox: match sandbox.state() {
            PodSandboxState::SandboxReady => Sandbox::Ready { id },
            PodSandboxState::SandboxNotready => Sandbox::Dead { id },
        },
        containers,
        age: span(sandbox.created_at, now),
    })
}

fn number(container: &v1::Container) -> u32 {
    container.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
}

fn exited(status: &v1::ContainerStatus, now: i64) -> State {
    State::Exited {
        code: status.exit_code,
        ran: span(status.started_at, status.finished_at),
        since: span(status.finished_at, now),
    }
}

/// Nanoseconds since 1970, as the CRI counts.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Zero when a clock went backwards or a time is not known.
pub(super) fn span(from: i64, to: i64) -> Duration {
    if from == 0 { Duration::ZERO } else { Duration::from_nanos(u64::try_from(to - from).unwrap_or(0)) }
}
