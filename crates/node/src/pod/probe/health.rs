//! Asks the probes of running containers and keeps what they add up to.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{Probe, Streak, ask::ask};
use crate::{cri::Client, pod::model::Container};

/// How a running container is, as its probes see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether its startup probe has succeeded, or there is none.
    pub started: bool,
    /// Whether its readiness probe succeeds, or there is none.
    pub ready: bool,
    /// The probe that wants it to be stopped.
    pub failed: Option<Failed>,
}

/// A probe that wants its container to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `startup` or `liveness`.
    pub probe: &'static str,
    /// Grace the probe gives, if not the pod's.
    pub grace: Option<Duration>,
}

impl Health {
    /// Of a container without probes.
    pub const WELL: Self = Self { started: true, ready: true, failed: None };

    /// A container that has just been started.
    fn new(container: &Container) -> Self {
        let started = container.startup.is_none();
        Self { started, ready: started && container.readiness.is_none(), failed: None }
    }
}

/// A running container to look after.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// Where questions go.
    pub address: IpAddr,
    /// How long it has been running.
    pub age: Duration,
    /// What it was before, should another process have looked after it.
    pub before: Option<(bool, bool)>,
}

/// Told of every answer that is no: container, probe, reason.
pub type Complain = Arc<dyn Fn(&str, &'static str, &str) + Send + Sync>;

/// Looks after the running containers of one pod. Ends with its owner.
pub struct Prober {
    client: Client,
    changed: Arc<Notify>,
    complain: Complain,
    running: HashMap<String, JoinSet<()>>,
    health: Arc<Mutex<HashMap<String, Health>>>,
}

impl Prober {
    /// Notifies `changed` when a container's health does.
    pub fn new(client: Client, changed: Arc<Notify>, complain: Complain) -> Self {
        Self { client, changed, complain, running: HashMap::new(), health: Arc::default() }
    }

    /// Health of the container of that id, if it is looked after.
    pub fn health(&self, id: &str) -> Option<Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Whether the container of that id is looked after.
    pub fn knows(&self, id: &str) -> bool {
        self.running.contains_key(id)
    }

    /// Begins to look after a container.
    pub fn begin(&mut self, container: &Container, target: &Target) {
        let mut health = Health::new(container);
        if let Some((started, ready)) = target.before {
            (health.started, health.ready) = (health.started || started, health.ready || ready);
        }
        self.health.lock().unwrap_or_else(PoisonError::into_inner).insert(target.id.clone(), health);
        let mut tasks = JoinSet::new();
        let kinds =
            [("startup", &container.startup), ("liveness", &container.liveness), ("readiness", &container.readiness)];
        for (kind, probe) in kinds {
            if let Some(probe) = probe.clone() {
                let asker = Asker {
                    client: self.client.clone(),
                    changed: self.changed.clone(),
                    complain: self.complain.clone(),
                    health: self.health.clone(),
                    name: container.name.clone(),
                    target: target.clone(),
                    kind,
                    probe,
                    ready_when_started: container.readiness.is_none(),
                };
                tasks.spawn(asker.run());
            }
        }
        self.running.insert(target.id.clone(), tasks);
    }

    /// Lets go of all containers but those that still run.
    pub fn retain(&mut self, still: impl Fn(&str) -> bool) {
        self.running.retain(|id, _| still(id));
        self.health.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| still(id));
    }
}

/// Asks one probe of one container.
struct Asker {
    client: Client,
    changed: Arc<Notify>,
    complain: Complain,
    health: Arc<Mutex<HashMap<String, Health>>>,
    name: String,
    target: Target,
    kind: &'static str,
    probe: Probe,
    /// Whether there is no readiness probe.
    ready_when_started: bool,
}

impl Asker {
    async fn run(self) {
        let mut streak = Streak::default();
        let mut next = Instant::now() + self.probe.delay.saturating_sub(self.target.age);
        loop {
            tokio::time::sleep_until(next).await;
            next = Instant::now() + self.probe.period;
            // The startup probe gates the others, and is over once it succeeded.
            match (self.kind, self.read(|health| health.started)) {
                (_, None) | ("startup", Some(true)) => return,
                ("startup", _) | (_, Some(true)) => {}
                (_, Some(false)) => {
                    next = Instant::now() + self.probe.period.min(Duration::from_secs(1));
                    continue;
                }
            }
            let answer = ask(&self.client, &self.target.id, self.target.address, &self.probe).await;
            if let Err(reason) = &answer {
                (self.complain)(&self.name, self.kind, reason);
            }
            if let Some(verdict) = streak.add(answer.is_ok(), &self.probe) {
                self.apply(verdict);
            }
        }
    }

    fn read<T>(&self, of: impl Fn(&Health) -> T) -> Option<T> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).get(&self.target.id).map(of)
    }

    fn apply(&self, verdict: bool) {
        let mut table = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(health) = table.get_mut(&self.target.id) else { return };
        let before = health.clone();
        match (self.kind, verdict) {
            ("startup", true) => health.started = true,
            ("readiness", good) => health.ready = good,
            ("liveness", true) => {}
            (probe, _) => health.failed = Some(Failed { probe, grace: self.probe.grace }),
        }
        // Without a readiness probe, started is ready.
        if self.kind == "startup" && verdict && self.ready_when_started {
            health.ready = true;
        }
        if *health != before {
            self.changed.notify_one();
        }
    }
}
