//! All pods of one engine: admit, look after, list, delete.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use osc_agent_protocol::kind::chain;
use osc_runtime::deadline::Deadline;
use serde::Serialize;

use super::{
    Manifest, cgroup,
    config::{Place, labels, selector},
    error::PodError,
    images,
    model::Pod,
    next::{Attempt, Sandbox, Seen, State},
    observe::observe,
    record::{Hold, Record, Store},
    stop,
    supervise::{Membership, Supervisor, addresses},
    volumes,
};
use crate::{cri::Client, engine::Paths};

/// How long whoever looks after a pod gets to let go of it.
const LET_GO: Duration = Duration::from_secs(60);
/// How long the kernel gets to empty a cgroup whose processes were killed.
const EMPTY: Duration = Duration::from_secs(10);
/// Pace of trying that again; there is no event for it in version 1.
const POLL: Duration = Duration::from_millis(50);
/// Grace where the manifest cannot be read any more.
const GRACE: Duration = Duration::from_secs(30);

/// The pods of one engine.
#[derive(Clone, Debug)]
pub struct Pods {
    paths: Paths,
    client: Client,
    store: Store,
}

/// Removes volumes, logs and records of all pods of an engine that has been
/// stopped: nothing of them runs any more.
///
/// # Errors
/// [`PodError::Left`] for the first pod of which something is left; the others are
/// tried all the same.
pub async fn forget_all(paths: &Paths) -> Result<(), PodError> {
    let store = Store::new(paths);
    let mut result = Ok(());
    for record in store.list() {
        let place = Place::new(paths, &record.uid, &record.full_name(), &record.handler, record.class);
        let what = remove_files(&store, &place, &record).await;
        if result.is_ok() && !what.is_empty() {
            result = Err(PodError::Left { pod: record.full_name(), what });
        }
    }
    result
}

/// A pod as `osc ps` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
    /// Runtime handler.
    pub runtime: String,
    /// One word: `Pending`, `Running`, `Succeeded`, `Failed` or `Lost`.
    pub status: &'static str,
    /// Containers that run, and all there should be.
    pub ready: (usize, usize),
    /// Restarts of all containers.
    pub restarts: u32,
    /// Addresses, the main one first.
    pub addresses: Vec<IpAddr>,
    /// Id of the sandbox.
    pub sandbox: Option<String>,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// Containers that exist, by name.
    pub containers: HashMap<String, ContainerSummary>,
}

/// A container of a [`Summary`].
#[derive(Clone, Debug, Serialize)]
pub struct ContainerSummary {
    /// Its id.
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// Its exit code, once it ended.
    pub exit_code: Option<i32>,
}

impl Summary {
    /// All that is known about a pod whose engine does not run.
    pub fn without_engine(record: &Record) -> Self {
        Self::new(record, &Seen::default(), "Unknown", Vec::new())
    }

    fn new(record: &Record, seen: &Seen, status: &'static str, addresses: Vec<IpAddr>) -> Self {
        let container = |attempt: &Attempt| ContainerSummary {
            id: attempt.id.clone(),
            running: attempt.state == State::Running,
            exit_code: match attempt.state {
                State::Exited { code, .. } => Some(code),
                State::Created | State::Running => None,
            },
        };
        let containers: HashMap<_, _> =
            seen.containers.iter().map(|(name, attempt)| (name.clone(), container(attempt))).collect();
        let names = record.container_names();
        let running = |name: &str| containers.get(name).is_some_and(|container| container.running);
        Self {
            namespace: record.namespace.clone(),
            name: record.name.clone(),
            uid: record.uid.clone(),
            runtime: record.handler.clone(),
            status,
            ready: (names.iter().filter(|&name| running(name)).count(), names.len()),
            restarts: seen.containers.values().map(|attempt| attempt.number).sum(),
            addresses,
            sandbox: match &seen.sandbox {
                Sandbox::Absent => None,
                Sandbox::Dead { id } | Sandbox::Ready { id } => Some(id.clone()),
            },
            created: record.created,
            containers,
        }
    }

    /// Whether a container runs.
    pub fn is_running(&self, container: &str) -> bool {
        self.containers.get(container).is_some_and(|container| container.running)
    }
}

impl Pods {
    /// The pods of the engine `client` talks to.
    pub fn new(paths: &Paths, client: Client) -> Self {
        Self { paths: paths.clone(), client, store: Store::new(paths) }
    }

    /// Records of all pods.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The engine's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the pod of a record keeps things.
    pub fn place(&self, record: &Record) -> Place {
        Place::new(&self.paths, &record.uid, &record.full_name(), &record.handler, record.class)
    }

    /// Makes sure that a pod can run and takes it down as wanted. Nothing else is
    /// made yet.
    ///
    /// # Errors
    /// Why it cannot run, or [`PodError::Exists`].
    pub async fn admit(&self, manifest: &Manifest, handler: &str) -> Result<(Record, Hold), PodError> {
        let pod = &manifest.pod;
        if pod.host_network && handler != "runc" {
            return Err(PodError::Handler {
                pod: pod.full_name(),
                what: "hostNetwork: a virtual machine has a network of its own, which",
                handler: handler.to_owned(),
            });
        }
        let record = Record::new(manifest, handler);
        // Before anything slow: a taken name is told at once.
        if let Ok(known) = self.store.get(&record.uid) {
            let differs = known.manifest != record.manifest || known.handler != record.handler;
            return Err(PodError::Exists { name: record.full_name(), differs });
        }
        images::ensure(&self.client, pod).await?;
        self.store.insert(&record)?;
        let hold = self.store.hold(&record, Deadline::after(LET_GO)).await?;
        Ok((record, hold))
    }

    /// Takes down a pod of a cluster as wanted, or again wanted. Nothing else is
    /// made yet; whether it can run is found out by trying.
    ///
    /// # Errors
    /// When the record cannot be written or another process has the pod.
    pub async fn adopt(&self, manifest: &Manifest, handler: &str) -> Result<(Record, Hold), PodError> {
        let record = Record::of_cluster(manifest, handler);
        match self.store.insert(&record) {
            Err(PodError::Exists { .. }) => {}
            result => result?,
        }
        let record = self.store.get(&record.uid)?;
        let hold = self.store.hold(&record, Deadline::after(LET_GO)).await?;
        Ok((record, hold))
    }

    /// Looks after a pod of a cluster.
    ///
    /// # Errors
    /// When its record cannot be understood any more.
    pub fn member(&self, record: &Record, membership: Membership) -> Result<Supervisor, PodError> {
        let pod = (**membership.latest.borrow()).clone();
        Ok(Supervisor::new(self.client.clone(), pod, self.place(record), Some(membership)))
    }

    /// Looks after an admitted pod.
    ///
    /// # Errors
    /// When its record cannot be understood any more.
    pub fn supervisor(&self, record: &Record) -> Result<Supervisor, PodError> {
        Ok(Supervisor::new(self.client.clone(), record.pod()?, self.place(record), None))
    }

    /// The pod meant by `name`.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub async fn find(&self, name: &str) -> Result<Record, PodError> {
        let uid = |labels: &HashMap<String, String>| labels.get(labels::UID).cloned();
        let sandboxes = self.client.sandboxes(HashMap::new()).await?;
        let ids: Vec<_> = sandboxes.iter().filter_map(|s| Some((uid(&s.labels)?, s.id.clone()))).collect();
        self.store.find(name, &ids)
    }

    /// Every pod with its state.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(&self) -> Result<Vec<Summary>, PodError> {
        let mut list = Vec::new();
        for record in self.store.list() {
            list.push(self.summary(&record).await?);
        }
        Ok(list)
    }

    /// What the engine says about a pod.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn seen(&self, record: &Record) -> Result<Seen, PodError> {
        Ok(observe(&self.client, &record.uid).await?)
    }

    /// One pod with its state.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn summary(&self, record: &Record) -> Result<Summary, PodError> {
        let seen = observe(&self.client, &record.uid).await?;
        let addresses = match &seen.sandbox {
            Sandbox::Ready { id } => addresses(&self.client, id).await.unwrap_or_default(), // it may die just now
            Sandbox::Absent | Sandbox::Dead { .. } => Vec::new(),
        };
        let status = judge(&seen, record.container_names().len());
        Ok(Summary::new(record, &seen, status, addresses))
    }

    /// Deletes a pod somebody else may look after: that process is asked to let
    /// go first.
    ///
    /// # Errors
    /// [`PodError::Held`], or as [`Self::delete`].
    pub async fn take_and_delete(&self, record: &Record) -> Result<(), PodError> {
        let hold = match self.store.try_hold(&record.uid)? {
            Some(hold) => hold,
            None => {
                if let Some(holder) = self.store.holder(&record.uid) {
                    let _ = kill(Pid::from_raw(holder), Signal::SIGTERM); // it may have just ended
                }
                self.store.hold(record, Deadline::after(LET_GO + grace(record))).await?
            }
        };
        self.delete(record, hold).await
    }

    /// Deletes a pod nobody looks after.
    ///
    /// # Errors
    /// [`PodError::Held`] if somebody does, or as [`Self::delete`].
    pub async fn delete_abandoned(&self, record: &Record) -> Result<(), PodError> {
        let hold = self.store.hold(record, Deadline::after(LET_GO)).await?;
        self.delete(record, hold).await
    }

    /// Deletes a pod from whatever state it is in: hooks, signals and grace as in
    /// Kubernetes, then sandbox, volumes, logs, cgroup and, last, the record. Every
    /// step is tried, and done again by the next call where it failed.
    ///
    /// # Errors
    /// [`PodError::Left`] with everything that could not be removed.
    pub async fn delete(&self, record: &Record, hold: Hold) -> Result<(), PodError> {
        let mut left = Vec::new();
        let pod = record.pod().ok();
        if let Err(error) = self.stop(record, pod.as_ref()).await {
            left.push(chain(&error));
        }
        for sandbox in self.client.sandboxes(selector(&record.uid)).await? {
            let stopped = self.client.stop_sandbox(&sandbox.id).await;
            let removed = self.client.remove_sandbox(&sandbox.id).await;
            left.extend(
                [stopped, removed].into_iter().filter_map(Result::err).filter(|e| !e.is_not_found()).map(|e| chain(&e)),
            );
        }
        if left.is_empty() {
            left.extend(remove_files(&self.store, &self.place(record), record).await);
        }
        if left.is_empty() {
            drop(hold);
            return Ok(());
        }
        Err(PodError::Left { pod: record.full_name(), what: left })
    }

    /// Removes sandboxes no record knows: of a pod whose record was lost.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn delete_unknown(&self) -> Result<(), PodError> {
        for sandbox in self.client.sandboxes(HashMap::new()).await? {
            let uid = sandbox.labels.get(labels::UID);
            if uid.is_none_or(|uid| self.store.get(uid).is_err()) {
                tracing::warn!(sandbox.id = sandbox.id, "removing sandbox of an unknown pod");
                self.client.stop_sandbox(&sandbox.id).await?;
                self.client.remove_sandbox(&sandbox.id).await?;
            }
        }
        Ok(())
    }

    /// Waits until the pod has put more into a volume than it may; what to say then.
    /// Cancel-safe.
    pub async fn overfull(&self, record: &Record, pod: &Pod) -> String {
        volumes::overfull(&self.place(record).dir, pod).await
    }

    /// Ends the containers of a pod but keeps its sandbox's record and its logs:
    /// what happens to a pod that is over.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn retire(&self, record: &Record, pod: &Pod) -> Result<(), PodError> {
        self.stop(record, Some(pod)).await?;
        for sandbox in self.client.sandboxes(selector(&record.uid)).await? {
            self.client.stop_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    /// Stops running containers, sidecars after all others.
    async fn stop(&self, record: &Record, pod: Option<&Pod>) -> Result<(), PodError> {
        let seen = observe(&self.client, &record.uid).await?;
        let Sandbox::Ready { id } = &seen.sandbox else { return Ok(()) };
        let address = addresses(&self.client, id).await.unwrap_or_default().first().copied();
        stop::all(&self.client, &seen, pod, address, grace(record)).await
    }
}

/// Removes what a pod has on the host; what is left, with reasons. The record goes
/// last, and only if nothing else is left.
async fn remove_files(store: &Store, place: &Place, record: &Record) -> Vec<String> {
    let mut left = Vec::new();
    let mut note = |what: String, result: std::io::Result<()>| {
        if let Err(error) = result {
            left.push(format!("{what} ({error})"));
        }
    };
    note(format!("volumes in {}", place.dir.display()), volumes::remove(&place.dir));
    note(format!("logs in {}", place.logs.display()), volumes::remove(&place.logs));
    let deadline = Deadline::after(EMPTY);
    let mut emptied = cgroup::remove(&place.cgroup);
    while emptied.is_err() && !deadline.passed() {
        tokio::time::sleep(POLL).await;
        emptied = cgroup::remove(&place.cgroup);
    }
    note(format!("cgroup {}", place.cgroup.display()), emptied);
    if left.is_empty()
        && let Err(error) = store.remove(&record.uid)
    {
        left.push(format!("record {} ({error})", record.uid));
    }
    left
}

fn grace(record: &Record) -> Duration {
    let seconds = record.manifest["spec"]["terminationGracePeriodSeconds"].as_u64();
    seconds.map_or(GRACE, Duration::from_secs)
}

/// One word for a pod.
fn judge(seen: &Seen, expected: usize) -> &'static str {
    let states = || seen.containers.values().map(|attempt| attempt.state);
    let running = states().filter(|state| *state == State::Running).count();
    let ended = states().filter(|state| matches!(state, State::Exited { .. })).count();
    let failed = states().any(|state| matches!(state, State::Exited { code, .. } if code != 0));
    match (&seen.sandbox, running) {
        (Sandbox::Absent, _) => "Pending",
        (Sandbox::Ready { .. }, 1..) => "Running",
        (_, 0) if expected > 0 && ended >= expected => {
            if failed {
                "Failed"
            } else {
                "Succeeded"
            }
        }
        (Sandbox::Ready { .. }, _) => "Pending",
        (Sandbox::Dead { .. }, _) => "Lost",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pod::probe::Health;

    #[test]
    fn a_pod_is_summed_up_in_one_word() {
        let ready = || Sandbox::Ready { id: "s".into() };
        let dead = || Sandbox::Dead { id: "s".into() };
        let ended = |code| State::Exited { code, ran: Duration::ZERO, since: Duration::ZERO };
        for (sandbox, states, want) in [
            (Sandbox::Absent, vec![], "Pending"),
            (ready(), vec![], "Pending"),
            (ready(), vec![State::Created], "Pending"),
            (ready(), vec![State::Running], "Running"),
            (ready(), vec![State::Running, ended(1)], "Running"),
            (ready(), vec![ended(0), ended(0)], "Succeeded"),
            (dead(), vec![ended(0), ended(3)], "Failed"),
            (dead(), vec![], "Lost"),
        ] {
            let attempt = |(n, &state): (usize, &State)| {
                let (id, health) = (n.to_string(), Health::WELL);
                (n.to_string(), Attempt { id, number: 0, state, health, detail: Arc::default(), previous: None })
            };
            let containers = states.iter().enumerate().map(attempt).collect();
            let seen = Seen { sandbox: sandbox.clone(), containers, ..Seen::default() };
            assert_eq!(judge(&seen, states.len().max(1)), want, "{sandbox:?} {states:?}");
        }
    }
}
