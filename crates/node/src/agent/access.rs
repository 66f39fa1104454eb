//! What the API server may ask of a node: logs, and the addresses of streams.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::Stream;
use osc_agent_protocol::Kind;
use tokio_util::sync::CancellationToken;

use crate::{
    cri::messages::{AttachRequest, ExecRequest},
    logs::{Selection, excerpt},
    pod::{Attempt, PodError, Pods, Record, Sandbox, Seen, State},
};

/// How often a container whose log is followed is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Why a node cannot give what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is no such pod here.
    #[error("pod {0:?} is not on this node")]
    NoPod(String),
    /// The pod has no such container.
    #[error("container {container:?} not found in pod {pod:?}")]
    NoContainer {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// It has not been started yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start")]
    NotStarted {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// There was no run before this one, or nothing is left of it.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// It has ended.
    #[error("container {container:?} in pod {pod:?} is not running")]
    NotRunning {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The pod has no network, as it does not run.
    #[error("pod {0:?} is not running")]
    PodNotRunning(String),
    /// A log cannot be read.
    #[error("log of container {container:?} in pod {pod:?} cannot be read")]
    Log {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// The cause.
        source: io::Error,
    },
    /// The engine does not answer.
    #[error("the container runtime refused")]
    Engine(#[from] PodError),
}

impl AccessError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoPod(_) | Self::NoContainer { .. } | Self::NoPrevious { .. } => Kind::NotFound,
            Self::NotStarted { .. } | Self::NotRunning { .. } | Self::PodNotRunning(_) => Kind::Busy,
            Self::Log { source, .. } => Kind::of_io(source),
            Self::Engine(source) => source.kind(),
        }
    }
}

/// Ends of a process that a stream carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; never with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// Access to the pods of one node. Pods are named by their identity.
#[derive(Clone, Debug)]
pub struct Access {
    pods: Pods,
}

impl Access {
    pub(super) fn new(pods: Pods) -> Self {
        Self { pods }
    }

    /// What a container has written, with `selection.follow` until it ends. With
    /// `previous`, the run before the last.
    ///
    /// # Errors
    /// When there is no such log.
    pub async fn logs(
        &self,
        uid: &str,
        container: &str,
        previous: bool,
        selection: Selection,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, AccessError> {
        let (record, seen) = self.find(uid).await?;
        let (pod, name) = (record.name.clone(), container.to_owned());
        known(&record, &seen, container)?;
        let place = self.pods.place(&record);
        let last = place.next_attempt(container).checked_sub(1);
        let last = last.filter(|_| !matches!(state(&seen, container), Some(State::Created)) || previous);
        let Some(last) = last else { return Err(AccessError::NotStarted { pod, container: name }) };
        let number = if previous {
            let missing = || AccessError::NoPrevious { pod: pod.clone(), container: name.clone() };
            let number = last.checked_sub(1).ok_or_else(missing)?;
            if !place.log(container, number).exists() {
                return Err(missing());
            }
            number
        } else {
            last
        };
        let ended = CancellationToken::new();
        if selection.follow && !previous {
            self.watch_end(uid.to_owned(), name.clone(), number, ended.clone());
        } else {
            ended.cancel();
        }
        let log = place.log(container, number);
        excerpt(log, selection, ended).await.map_err(|source| AccessError::Log { pod, container: name, source })
    }

    /// Cancels `ended` once that run of the container is over.
    fn watch_end(&self, uid: String, container: String, number: u32, ended: CancellationToken) {
        let access = self.clone();
        // Ends with the reader too, which cancels `ended` when it is done.
        tokio::spawn(async move {
            let _over = ended.clone().drop_guard();
            loop {
                match access.find(&uid).await {
                    Ok((_, seen)) => match seen.containers.get(&container) {
                        Some(Attempt { number: now, state: State::Running | State::Created, .. }) if *now == number => {
                        }
                        _ => return,
                    },
                    Err(AccessError::NoPod(_)) => return,
                    Err(_) => {} // the engine is being restarted
                }
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
    }

    /// Address at which a command runs in a container.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn exec(
        &self,
        uid: &str,
        container: &str,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<String, AccessError> {
        let request = ExecRequest {
            container_id: self.running(uid, container).await?,
            cmd: command,
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        self.pods.client().exec(request).await.map_err(|error| PodError::from(error).into())
    }

    /// Address of the main process of a container.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn attach(&self, uid: &str, container: &str, wanted: Wanted) -> Result<String, AccessError> {
        let request = AttachRequest {
            container_id: self.running(uid, container).await?,
            stdin: wanted.stdin,
            tty: wanted.tty,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        self.pods.client().attach(request).await.map_err(|error| PodError::from(error).into())
    }

    /// Address at which ports of a pod are reached.
    ///
    /// # Errors
    /// When the pod does not run.
    pub async fn port_forward(&self, uid: &str, ports: Vec<u16>) -> Result<String, AccessError> {
        let (record, seen) = self.find(uid).await?;
        let Sandbox::Ready { id } = &seen.sandbox else { return Err(AccessError::PodNotRunning(record.name)) };
        let ports = ports.into_iter().map(i32::from).collect();
        self.pods.client().port_forward(id, ports).await.map_err(|error| PodError::from(error).into())
    }

    async fn running(&self, uid: &str, container: &str) -> Result<String, AccessError> {
        let (record, seen) = self.find(uid).await?;
        known(&record, &seen, container)?;
        let (pod, name) = (record.name.clone(), container.to_owned());
        match seen.containers.get(container) {
            Some(attempt) if attempt.state == State::Running => Ok(attempt.id.clone()),
            Some(Attempt { state: State::Exited { .. }, .. }) => Err(AccessError::NotRunning { pod, container: name }),
            _ => Err(AccessError::NotStarted { pod, container: name }),
        }
    }

    async fn find(&self, uid: &str) -> Result<(Record, Seen), AccessError> {
        let record = self.pods.store().get(uid).map_err(|_| AccessError::NoPod(uid.to_owned()))?;
        let seen = self.pods.seen(&record).await?;
        Ok((record, seen))
    }
}

fn state(seen: &Seen, container: &str) -> Option<State> {
    seen.containers.get(container).map(|attempt| attempt.state)
}

fn known(record: &Record, seen: &Seen, container: &str) -> Result<(), AccessError> {
    // Ephemeral ones came after the record was written.
    if seen.containers.contains_key(container) {
        return Ok(());
    }
    let lists = ["containers", "initContainers"].map(|list| record.manifest["spec"][list].as_array());
    let mut names = lists.into_iter().flatten().flatten().filter_map(|container| container["name"].as_str());
    if names.any(|name| name == container) {
        return Ok(());
    }
    Err(AccessError::NoContainer { pod: record.name.clone(), container: container.to_owned() })
}
