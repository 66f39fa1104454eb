//! What the engine says about a pod.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_cri::v1::{self, ContainerState, PodSandboxState};

use super::{
    config::{labels, selector},
    next::{Attempt, Detail, Sandbox, Seen, State},
    probe::Health,
};
use crate::{
    cri::{Client, CriError},
    logs::parse,
};

/// Longest message of a container that ended, in bytes.
const MAX_MESSAGE: u64 = 4096;
/// The same where it comes from the log.
const MAX_LOG: u64 = 2048;

/// Details that do not change any more: a container is asked about once in each
/// of its states.
#[derive(Debug, Default)]
pub struct Known(HashMap<(String, i32), Arc<Detail>>);

impl Known {
    async fn detail(&mut self, client: &Client, container: &v1::Container) -> Result<Arc<Detail>, CriError> {
        match self.0.entry((container.id.clone(), container.state)) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(place) => {
                let status = client.container_status(&container.id).await?;
                // It may have gone on since it was listed; that is for the next look.
                let detail = Arc::new(detail(&status));
                if status.state == container.state {
                    place.insert(detail.clone());
                }
                Ok(detail)
            }
        }
    }
}

/// Looks at the pod of that identity.
///
/// # Errors
/// When the engine does not answer.
pub async fn observe(client: &Client, uid: &str) -> Result<Seen, CriError> {
    observe_anew(client, uid, &mut Known::default()).await
}

/// The same for somebody who looks again and again.
///
/// # Errors
/// When the engine does not answer.
pub async fn observe_anew(client: &Client, uid: &str, known: &mut Known) -> Result<Seen, CriError> {
    let Some(sandbox) = client.sandboxes(selector(uid)).await?.into_iter().next() else {
        return Ok(Seen::default());
    };
    let now = now();
    let mut attempts: HashMap<String, Vec<v1::Container>> = HashMap::new();
    for container in client.containers(selector(uid)).await? {
        if container.pod_sandbox_id == sandbox.id {
            let name = container.labels.get(labels::CONTAINER).cloned().unwrap_or_default();
            attempts.entry(name).or_default().push(container);
        }
    }
    known.0.retain(|(id, _), _| attempts.values().flatten().any(|container| container.id == *id));
    let mut containers = HashMap::new();
    for (name, mut attempts) in attempts {
        attempts.sort_by_key(|attempt| std::cmp::Reverse(number(attempt)));
        let mut attempts = attempts.into_iter();
        let Some(newest) = attempts.next() else { continue };
        let previous = match attempts.next() {
            Some(before) => Some(known.detail(client, &before).await?),
            None => None,
        };
        let detail = known.detail(client, &newest).await?;
        let state = match newest.state() {
            ContainerState::ContainerCreated => State::Created,
            ContainerState::ContainerRunning => State::Running,
            _ => exited(&detail, now),
        };
        let (number, id) = (number(&newest), newest.id);
        containers.insert(name, Attempt { id, number, state, health: Health::WELL, detail, previous });
    }
    let id = sandbox.id.clone();
    Ok(Seen {
        sandbox: match sandbox.state() {
            PodSandboxState::SandboxReady => Sandbox::Ready { id },
            PodSandboxState::SandboxNotready => Sandbox::Dead { id },
        },
        containers,
        age: span(sandbox.created_at, now),
        held: HashMap::new(),
    })
}

fn number(container: &v1::Container) -> u32 {
    container.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
}

fn detail(status: &v1::ContainerStatus) -> Detail {
    let exited = status.state() == ContainerState::ContainerExited;
    let own = exited.then(|| message(status)).flatten();
    Detail {
        id: status.id.clone(),
        image: status.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
        image_id: status.image_ref.clone(),
        started: status.started_at,
        finished: status.finished_at,
        code: status.exit_code,
        reason: status.reason.clone(),
        message: own.unwrap_or_else(|| status.message.clone()),
    }
}

/// What a container left in its message file, or the end of its log where that
/// is to stand in and the container failed.
fn message(status: &v1::ContainerStatus) -> Option<String> {
    let path = status.annotations.get(labels::MESSAGE_PATH)?;
    let file = &status.mounts.iter().find(|mount| mount.container_path == *path)?.host_path;
    let mut text = Vec::new();
    File::open(file).and_then(|file| file.take(MAX_MESSAGE).read_to_end(&mut text)).ok()?;
    let from_log = status.annotations.get(labels::MESSAGE_POLICY).is_some_and(|policy| policy == labels::FROM_LOG);
    if text.is_empty() && from_log && status.exit_code != 0 {
        text = last_lines(Path::new(&status.log_path)).unwrap_or_default();
    }
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

fn last_lines(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2 * MAX_LOG)))?;
    let mut raw = Vec::new();
    file.take(2 * MAX_LOG).read_to_end(&mut raw)?;
    let mut text = Vec::new();
    for entry in raw.split(|&byte| byte == b'\n').filter_map(parse) {
        text.extend(entry.text);
        text.extend(entry.ends.then_some(b'\n'));
    }
    let excess = text.len().saturating_sub(MAX_LOG as usize);
    Ok(text.split_off(excess))
}

fn exited(detail: &Detail, now: i64) -> State {
    State::Exited { code: detail.code, ran: span(detail.started, detail.finished), since: span(detail.finished, now) }
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
