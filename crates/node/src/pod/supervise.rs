//! Keeps one pod as its manifest says: looks, decides ([`super::next`]), acts.

use std::{fs, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use osc_agent_protocol::kind::chain;
use tokio::{sync::Notify, time::Instant};

use super::{
    cgroup, config,
    config::Place,
    dns,
    error::{PodError, io},
    images,
    model::{Container, Hook, Pod},
    next::{self, Action, Phase, Sandbox, Seen, State, next},
    observe::observe,
    resources, volumes,
};
use crate::{cri::Client, logs::rotate};

/// How often the engine is asked when nothing tells of a change.
const RELIST: Duration = Duration::from_secs(1);
/// How often it is asked shortly after a sign of change, and for how long.
const EAGER: Duration = Duration::from_millis(10);
const EAGER_FOR: Duration = Duration::from_millis(500);
/// Pause after a failed action; doubles up to the second.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A hook may take this long.
const HOOK: Duration = Duration::from_secs(60);

/// How far [`Supervisor::run`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Until every container has been started.
    Started,
    /// Until the pod is over.
    Done,
}

/// What happens to containers, told as it happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// About to start; its log will be written there.
    Starting {
        /// Name of the container.
        container: String,
        /// Its log.
        log: PathBuf,
    },
    /// Started.
    Started {
        /// Name of the container.
        container: String,
        /// Its id.
        id: String,
    },
    /// Ended.
    Ended {
        /// Name of the container.
        container: String,
        /// Its exit code.
        code: i32,
    },
}

/// Looks after one pod. Dropping it, or the future of [`Self::run`], leaves the
/// pod as it is; another supervisor continues from there.
pub struct Supervisor {
    client: Client,
    pod: Pod,
    place: Place,
    changed: Arc<Notify>,
    last: Seen,
    addresses: Option<(String, Vec<IpAddr>)>,
}

impl Supervisor {
    pub(super) fn new(client: Client, pod: Pod, place: Place) -> Self {
        let changed = Arc::new(Notify::new());
        Self { client, pod, place, changed, last: Seen::default(), addresses: None }
    }

    /// Notify it to make the supervisor look at once.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The newest attempt of each container, as last seen.
    pub fn seen(&self) -> &Seen {
        &self.last
    }

    /// Works towards `goal`; the phase if the pod is over. Until the pod has been
    /// started a failure ends it; later ones are retried.
    ///
    /// # Errors
    /// The failure to start.
    pub async fn run(&mut self, goal: Goal, tell: &mut (impl FnMut(Event) + Send)) -> Result<Option<Phase>, PodError> {
        self.look(tell).await?;
        // Somebody else may have started it.
        let mut started = next::started(&self.pod, &self.last);
        let mut retry = RETRY;
        loop {
            match self.step(goal, started, tell).await {
                Ok(Progress::Made) => retry = RETRY,
                Ok(Progress::Reached(phase)) => return Ok(phase),
                Err(error) if !started || goal == Goal::Started => return Err(error),
                Err(error) => {
                    tracing::warn!(pod.name = %self.pod.full_name(), error = chain(&error), "pod not as it should be, trying again");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
            started = started || next::started(&self.pod, &self.last);
        }
    }

    async fn step(&mut self, goal: Goal, started: bool, tell: &mut impl FnMut(Event)) -> Result<Progress, PodError> {
        self.look(tell).await?;
        if goal == Goal::Started && next::started(&self.pod, &self.last) {
            return Ok(Progress::Reached(None));
        }
        match next(&self.pod, &self.last) {
            Action::MakeSandbox => self.make_sandbox().await?,
            Action::RemoveSandbox(id) => {
                if !started {
                    // Not this supervisor's: a pod found dead after a reboot, say.
                    tracing::info!(pod.name = %self.pod.full_name(), sandbox.id = id, "replacing dead sandbox");
                }
                self.client.stop_sandbox(&id).await?;
                self.client.remove_sandbox(&id).await?;
            }
            Action::Run(name) => self.run_container(&name, tell).await?,
            Action::Start(name) => self.start_created(&name, tell).await?,
            Action::Wait(limit) => self.wait(limit, tell).await?,
            Action::Done(phase) => return Ok(Progress::Reached(Some(phase))),
        }
        Ok(Progress::Made)
    }

    /// Asks the engine and tells of containers that ended since.
    async fn look(&mut self, tell: &mut impl FnMut(Event)) -> Result<bool, PodError> {
        let seen = observe(&self.client, &self.pod.uid).await?;
        for (name, attempt) in &seen.containers {
            let State::Exited { code, .. } = attempt.state else { continue };
            let before = self.last.containers.get(name).filter(|before| before.id == attempt.id);
            if !before.is_some_and(|before| matches!(before.state, State::Exited { .. })) {
                tell(Event::Ended { container: name.clone(), code });
            }
        }
        let states = |seen: &Seen| -> Vec<(String, u8)> {
            let mut states: Vec<_> = seen.containers.values().map(|a| (a.id.clone(), rank(a.state))).collect();
            states.sort();
            states
        };
        let changed = states(&seen) != states(&self.last) || seen.sandbox != self.last.sandbox;
        self.last = seen;
        Ok(changed)
    }

    /// Waits until something changed or the time is up.
    async fn wait(&mut self, limit: Option<Duration>, tell: &mut impl FnMut(Event)) -> Result<(), PodError> {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut eager_until = Instant::now();
        loop {
            let pace = if Instant::now() < eager_until { EAGER } else { RELIST };
            let pause = until.map_or(pace, |until| pace.min(until.saturating_duration_since(Instant::now())));
            tokio::select! {
                () = self.changed.notified() => eager_until = Instant::now() + EAGER_FOR,
                () = tokio::time::sleep(pause) => {}
            }
            self.rotate_logs().await;
            if self.look(tell).await? || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
        }
    }

    /// Puts large logs of running containers aside. Failing is no reason to end
    /// anything: it is tried again.
    async fn rotate_logs(&self) {
        for (name, attempt) in self.last.containers.iter().filter(|(_, attempt)| attempt.state == State::Running) {
            let log = self.place.log(name, attempt.number);
            let reopened = match rotate(&log) {
                Ok(false) => Ok(()),
                Ok(true) => self.client.reopen_log(&attempt.id).await.map_err(|error| chain(&error)),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = reopened {
                tracing::warn!(container.name = name, error, "log is not rotated");
            }
        }
    }

    async fn make_sandbox(&mut self) -> Result<(), PodError> {
        let (pod, place) = (&self.pod, &self.place);
        cgroup::make(&place.cgroup, &resources::cgroup(pod, &place.handler)).map_err(io("limit", &place.cgroup))?;
        volumes::prepare(&place.dir, pod)?;
        fs::create_dir_all(&place.logs).map_err(io("create", &place.logs))?;
        let config = config::sandbox(pod, place, 0);
        let result = self.client.run_sandbox(config, &place.handler).await;
        let id = result.map_err(|source| PodError::Sandbox { pod: pod.full_name(), source })?;
        tracing::info!(pod.name = %pod.full_name(), sandbox.id = id, "sandbox runs");
        Ok(())
    }

    /// Makes and starts the next attempt of a container; the last one goes.
    async fn run_container(&mut self, name: &str, tell: &mut impl FnMut(Event)) -> Result<(), PodError> {
        let Sandbox::Ready { id: sandbox } = self.last.sandbox.clone() else { return Ok(()) };
        let Some(container) = self.pod.container(name).cloned() else { return Ok(()) };
        let previous = self.last.containers.get(name).cloned();
        if previous.is_some() {
            images::ensure(&self.client, &self.pod).await?; // it may have been deleted meanwhile
        }
        let attempt = previous.as_ref().map_or(0, |attempt| attempt.number + 1).max(self.place.next_attempt(name));
        let addresses = self.addresses(&sandbox).await?;
        let mounts = self.mounts(&container, &addresses)?;
        let ip = addresses.first().map(IpAddr::to_string).unwrap_or_default();
        let config = config::container(&self.pod, &container, attempt, &ip, mounts);
        let sandbox_config = config::sandbox(&self.pod, &self.place, 0);
        let failed = |source| PodError::Start { pod: self.pod.full_name(), container: name.to_owned(), source };
        let id = self.client.create_container(&sandbox, config, sandbox_config).await.map_err(failed)?;
        if let Some(previous) = previous {
            self.client.remove_container(&previous.id).await?;
        }
        self.start(&container, &id, attempt, tell).await
    }

    async fn start_created(&mut self, name: &str, tell: &mut impl FnMut(Event)) -> Result<(), PodError> {
        let attempt = self.last.containers.get(name).cloned();
        match (self.pod.container(name).cloned(), attempt) {
            (Some(container), Some(attempt)) => self.start(&container, &attempt.id, attempt.number, tell).await,
            _ => Ok(()),
        }
    }

    async fn start(
        &self,
        container: &Container,
        id: &str,
        attempt: u32,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), PodError> {
        let name = &container.name;
        let log = self.place.log(name, attempt);
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).map_err(io("create", dir))?;
        }
        tell(Event::Starting { container: name.clone(), log });
        let failed = |source| PodError::Start { pod: self.pod.full_name(), container: name.clone(), source };
        self.client.start_container(id).await.map_err(failed)?;
        tell(Event::Started { container: name.clone(), id: id.to_owned() });
        if let Some(hook) = &container.post_start
            && let Err(reason) = run_hook(&self.client, id, hook).await
        {
            tracing::warn!(container.name = name, reason, "postStart hook failed, container is stopped");
            self.client.stop_container(id, self.pod.grace).await?;
        }
        Ok(())
    }

    fn mounts(&self, container: &Container, addresses: &[IpAddr]) -> Result<Vec<k8s_cri::v1::Mount>, PodError> {
        let mut mounts = volumes::mounts(&self.place.dir, &self.pod, container)?;
        let hosts = "/etc/hosts";
        if !self.pod.host_network && !mounts.iter().any(|mount| mount.container_path == hosts) {
            let file = volumes::write_hosts(&self.place.dir, &dns::hosts(&self.pod, addresses))?;
            mounts.push(k8s_cri::v1::Mount {
                container_path: hosts.into(),
                host_path: file.to_string_lossy().into_owned(),
                ..Default::default()
            });
        }
        Ok(mounts)
    }

    /// Addresses of the sandbox; they do not change during its life.
    async fn addresses(&mut self, sandbox: &str) -> Result<Vec<IpAddr>, PodError> {
        match &self.addresses {
            Some((known, addresses)) if known == sandbox => Ok(addresses.clone()),
            _ => {
                let addresses = addresses(&self.client, sandbox).await?;
                self.addresses = Some((sandbox.to_owned(), addresses.clone()));
                Ok(addresses)
            }
        }
    }
}

enum Progress {
    Made,
    Reached(Option<Phase>),
}

fn rank(state: State) -> u8 {
    match state {
        State::Created => 0,
        State::Running => 1,
        State::Exited { .. } => 2,
    }
}

/// Addresses of a sandbox, the main one first.
pub(super) async fn addresses(client: &Client, sandbox: &str) -> Result<Vec<IpAddr>, PodError> {
    let network = client.sandbox_status(sandbox).await?.network.unwrap_or_default();
    let more = network.additional_ips.iter().map(|ip| ip.ip.as_str());
    Ok(std::iter::once(network.ip.as_str()).chain(more).filter_map(|ip| ip.parse().ok()).collect())
}

/// Runs a hook; the reason if it failed.
pub(super) async fn run_hook(client: &Client, id: &str, hook: &Hook) -> Result<(), String> {
    match hook {
        Hook::Sleep(span) => {
            tokio::time::sleep(*span).await;
            Ok(())
        }
        Hook::Exec(command) => match client.exec_sync(id, command.clone(), HOOK).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(format!("exit code {}", answer.exit_code)),
            Err(error) => Err(chain(&error)),
        },
    }
}
