//! Keeps one pod as its manifest says: looks, decides ([`super::next`]), acts.

mod look;
mod make;
mod membership;

use std::{collections::HashMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use osc_agent_protocol::kind::chain;
use tokio::{sync::Notify, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    cluster::Cluster,
    config::Place,
    error::PodError,
    model::Pod,
    next::{self, Action, Phase, Seen, next},
    observe::Known,
    probe::Prober,
    stop,
    volumes::{self, Claims},
};
use crate::cri::Client;
use membership::Held;
pub use membership::{Journal, Membership, Note, Report};

/// How often the engine is asked when nothing tells of a change.
const RELIST: Duration = Duration::from_secs(1);
/// The same where somebody else looks at all pods and tells.
const SLOW_RELIST: Duration = Duration::from_secs(10);
/// How often it is asked shortly after a sign of change, and for how long.
const EAGER: Duration = Duration::from_millis(10);
const EAGER_FOR: Duration = Duration::from_millis(500);
/// Pause after a failed action; doubles up to the second, or, where something
/// missing may come at any moment, the third.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY_MAX_CLUSTER: Duration = Duration::from_secs(8);
/// How old the files of a volume may be.
const REFRESH: Duration = Duration::from_secs(30);

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
    known: Known,
    addresses: Option<(String, Vec<IpAddr>)>,
    claims: Option<Claims>,
    held: HashMap<String, Held>,
    /// Images on their way, by the container that waits for one.
    fetching: HashMap<String, AbortOnDropHandle<Result<(), PodError>>>,
    prober: Prober,
    membership: Option<Membership>,
    refreshed: Instant,
    reported: bool,
}

impl Supervisor {
    pub(super) fn new(client: Client, pod: Pod, place: Place, membership: Option<Membership>) -> Self {
        let changed = Arc::new(Notify::new());
        let journal = membership.as_ref().map(|membership| membership.journal.clone());
        let init: Vec<String> = pod.init.iter().map(|container| container.name.clone()).collect();
        let complain = move |container: &str, probe: &str, reason: &str| {
            tracing::debug!(container.name = container, probe, reason, "probe failed");
            if let Some(journal) = &journal {
                let mut name = probe.to_owned();
                name[..1].make_ascii_uppercase();
                journal(Note {
                    container: Some((container.to_owned(), init.iter().any(|name| name == container))),
                    warning: true,
                    reason: "Unhealthy",
                    message: format!("{name} probe failed: {reason}"),
                });
            }
        };
        let prober = Prober::new(client.clone(), changed.clone(), Arc::new(complain));
        Self {
            client,
            pod,
            place,
            changed,
            last: Seen::default(),
            known: Known::default(),
            addresses: None,
            claims: None,
            held: HashMap::new(),
            fetching: HashMap::new(),
            prober,
            membership,
            refreshed: Instant::now(),
            reported: false,
        }
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

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.membership.as_ref().map(|membership| membership.cluster.clone())
    }

    fn note(&self, note: Note) {
        if let Some(membership) = &self.membership {
            (membership.journal)(note);
        }
    }

    /// Works towards `goal`; the phase if the pod is over. Until a pod without a
    /// cluster has been started a failure ends it; all others are retried.
    ///
    /// # Errors
    /// The failure to start.
    pub async fn run(&mut self, goal: Goal, tell: &mut (impl FnMut(Event) + Send)) -> Result<Option<Phase>, PodError> {
        let (forgiving, longest) = match self.membership {
            Some(_) => (true, RETRY_MAX_CLUSTER),
            None => (false, RETRY_MAX),
        };
        if let Err(error) = self.look(tell).await
            && !forgiving
        {
            return Err(error);
        }
        // Somebody else may have started it.
        let mut started = next::started(&self.pod, &self.last);
        let mut retry = RETRY;
        loop {
            match self.step(goal, started, tell).await {
                Ok(Progress::Made) => retry = RETRY,
                Ok(Progress::Reached(phase)) => return Ok(phase),
                Err(error) if !forgiving && (!started || goal == Goal::Started) => return Err(error),
                Err(error) => {
                    tracing::warn!(pod.name = %self.pod.full_name(), error = chain(&error), "pod not as it should be, trying again");
                    membership::note_of(&error).into_iter().for_each(|note| self.note(note));
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(longest);
                }
            }
            started = started || next::started(&self.pod, &self.last);
        }
    }

    async fn step(
        &mut self,
        goal: Goal,
        started: bool,
        tell: &mut (impl FnMut(Event) + Send),
    ) -> Result<Progress, PodError> {
        self.look(tell).await?;
        if goal == Goal::Started && next::started(&self.pod, &self.last) {
            return Ok(Progress::Reached(None));
        }
        match next(&self.pod, &self.last) {
            Action::MakeSandbox => self.make_sandbox().await?,
            Action::StopSandbox(id) => self.client.stop_sandbox(&id).await?,
            Action::RemoveSandbox(id) => {
                if !started {
                    // Not this supervisor's: a pod found dead after a reboot, say.
                    tracing::info!(pod.name = %self.pod.full_name(), sandbox.id = id, "replacing dead sandbox");
                }
                self.note(Note::pod(false, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."));
                self.client.stop_sandbox(&id).await?;
                self.client.remove_sandbox(&id).await?;
            }
            Action::Run(name) => self.run_container(&name, tell).await?,
            Action::Start(name) => self.start_created(&name, tell).await?,
            Action::Stop(name) => self.stop_failed(&name).await?,
            Action::Wait(limit) => self.wait(limit, tell).await?,
            Action::Done(phase) => return Ok(Progress::Reached(Some(phase))),
        }
        Ok(Progress::Made)
    }

    /// Waits until something changed or the time is up.
    async fn wait(&mut self, limit: Option<Duration>, tell: &mut (impl FnMut(Event) + Send)) -> Result<(), PodError> {
        let until = limit.map(|limit| Instant::now() + limit);
        let relist = if self.membership.is_some() && self.held.is_empty() { SLOW_RELIST } else { RELIST };
        let mut eager_until = Instant::now();
        loop {
            let pace = if Instant::now() < eager_until { EAGER } else { relist };
            let pause = until.map_or(pace, |until| pace.min(until.saturating_duration_since(Instant::now())));
            tokio::select! {
                () = self.changed.notified() => eager_until = Instant::now() + EAGER_FOR,
                () = tokio::time::sleep(pause) => {}
            }
            self.rotate_logs().await;
            self.refresh().await;
            if self.look(tell).await? || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
        }
    }

    /// Brings the files of volumes up to date. What is there stays where that
    /// fails: it is tried again.
    async fn refresh(&mut self) {
        if self.refreshed.elapsed() < REFRESH {
            return;
        }
        self.refreshed = Instant::now();
        let cluster = self.cluster();
        if let Err(error) = volumes::refresh(&self.place.dir, &self.pod, cluster.as_deref()).await {
            tracing::warn!(pod.name = %self.pod.full_name(), error = chain(&error), "volumes are not refreshed");
            membership::note_of(&error).into_iter().for_each(|note| self.note(note));
        }
    }

    /// Stops a container that a probe has found wanting; what then becomes of it
    /// is up to the restart policy.
    async fn stop_failed(&mut self, name: &str) -> Result<(), PodError> {
        let (Some(container), Some(attempt)) = (self.pod.container(name), self.last.containers.get(name)) else {
            return Ok(());
        };
        let Some(failed) = &attempt.health.failed else { return Ok(()) };
        self.note(Note {
            container: membership::about(&self.pod, container),
            warning: false,
            reason: "Killing",
            message: format!("Container {name} failed {} probe, will be restarted", failed.probe),
        });
        let address = self.addresses.as_ref().and_then(|(_, addresses)| addresses.first().copied());
        let grace = failed.grace.unwrap_or(self.pod.grace);
        stop::one(&self.client, attempt, container.pre_stop.as_ref(), address, grace).await
    }

    /// Ends all containers within `grace`. Cancel-safe: a later call goes on, with
    /// its own grace.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn stop(&mut self, grace: Duration) -> Result<(), PodError> {
        self.look(&mut |_| ()).await?;
        for (name, attempt) in &self.last.containers {
            if let (next::State::Running, Some(container)) = (attempt.state, self.pod.container(name)) {
                self.note(Note {
                    container: membership::about(&self.pod, container),
                    warning: false,
                    reason: "Killing",
                    message: format!("Stopping container {name}"),
                });
            }
        }
        let address = self.addresses.as_ref().and_then(|(_, addresses)| addresses.first().copied());
        stop::all(&self.client, &self.last, Some(&self.pod), address, grace).await?;
        self.look(&mut |_| ()).await.map(drop)
    }
}

enum Progress {
    Made,
    Reached(Option<Phase>),
}

/// Addresses of a sandbox, the main one first.
pub(super) async fn addresses(client: &Client, sandbox: &str) -> Result<Vec<IpAddr>, PodError> {
    let network = client.sandbox_status(sandbox).await?.network.unwrap_or_default();
    let more = network.additional_ips.iter().map(|ip| ip.ip.as_str());
    Ok(std::iter::once(network.ip.as_str()).chain(more).filter_map(|ip| ip.parse().ok()).collect())
}
