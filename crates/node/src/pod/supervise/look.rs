//! What has become of the pod.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use osc_agent_protocol::kind::chain;

use super::{Event, Note, Report, Supervisor, addresses, membership::about};
use crate::{
    logs::rotate,
    pod::{
        error::PodError,
        next::{Attempt, Sandbox, Seen, State, pause, policy},
        observe::{now, observe_anew, span},
        probe::{Health, Target},
    },
};

impl Supervisor {
    /// Asks the engine, and tells of containers that ended since. Whether
    /// anything changed, or something new is asked for.
    pub(super) async fn look(&mut self, tell: &mut (impl FnMut(Event) + Send)) -> Result<bool, PodError> {
        let more = self.take_latest();
        let mut seen = observe_anew(&self.client, &self.pod.uid, &mut self.known).await?;
        self.examine(&mut seen).await;
        let settled = self.settle_held(&mut seen);
        for (name, attempt) in &seen.containers {
            let State::Exited { code, .. } = attempt.state else { continue };
            let before = self.last.containers.get(name).filter(|before| before.id == attempt.id);
            if !before.is_some_and(|before| matches!(before.state, State::Exited { .. })) {
                tell(Event::Ended { container: name.clone(), code });
                self.note_back_off(name, attempt);
            }
        }
        let changed = settled || outline(&seen) != outline(&self.last) || seen.sandbox != self.last.sandbox;
        self.last = seen;
        self.report(changed).await;
        Ok(changed || more)
    }

    /// Labels, annotations and the like may have changed. Whether there are more
    /// containers than before.
    fn take_latest(&mut self) -> bool {
        let before = self.pod.ephemeral.len();
        if let Some(membership) = &mut self.membership
            && membership.latest.has_changed().unwrap_or(false)
        {
            self.pod = (**membership.latest.borrow_and_update()).clone();
        }
        self.pod.ephemeral.len() > before
    }

    /// Adds what probes say, and begins to probe what has been started.
    async fn examine(&mut self, seen: &mut Seen) {
        let Sandbox::Ready { id: sandbox } = &seen.sandbox else {
            return self.prober.retain(|_| false);
        };
        let sandbox = sandbox.clone();
        for (name, attempt) in &mut seen.containers {
            let Some(container) = self.pod.container(name).filter(|c| c.has_probes()).cloned() else { continue };
            if attempt.state != State::Running {
                continue;
            }
            if !self.prober.knows(&attempt.id) {
                let address = self.addresses(&sandbox).await.ok().and_then(|addresses| addresses.first().copied());
                let before = self.membership.as_ref().and_then(|membership| membership.before.get(&attempt.id));
                let target = Target {
                    id: attempt.id.clone(),
                    address: address.unwrap_or_else(|| self.host_address()),
                    age: span(attempt.detail.started, now()),
                    before: before.copied(),
                };
                self.prober.begin(&container, &target);
            }
            attempt.health = self.prober.health(&attempt.id).unwrap_or(Health::WELL);
        }
        let running = |attempt: &Attempt, id: &str| attempt.id == id && attempt.state == State::Running;
        self.prober.retain(|id| seen.containers.values().any(|attempt| running(attempt, id)));
    }

    /// Where containers in the host's network are reached.
    fn host_address(&self) -> IpAddr {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.membership.as_ref().map_or(loopback, |membership| membership.cluster.node.address)
    }

    /// Adds what could not be made; whether there is news about it.
    fn settle_held(&mut self, seen: &mut Seen) -> bool {
        let mut news = Vec::new();
        for (name, held) in &mut self.held {
            seen.held.insert(name.clone(), held.left());
            if let Some(container) = self.pod.container(name)
                && held.settle(&container.image, tokio::time::Instant::now())
            {
                news.push(Note {
                    container: about(&self.pod, container),
                    warning: false,
                    reason: "BackOff",
                    message: format!("Back-off pulling image {:?}", container.image),
                });
            }
        }
        let any = !news.is_empty();
        news.into_iter().for_each(|note| self.note(note));
        any
    }

    fn note_back_off(&self, name: &str, attempt: &Attempt) {
        let Some(container) = self.pod.container(name) else { return };
        if pause(policy(&self.pod, container), attempt).is_some_and(|pause| !pause.is_zero()) {
            let pod = &self.pod;
            self.note(Note {
                container: about(pod, container),
                warning: true,
                reason: "BackOff",
                message: format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    pod.name, pod.namespace, pod.uid
                ),
            });
        }
    }

    /// Hands on what is seen.
    pub(super) async fn report(&mut self, changed: bool) {
        if self.membership.is_none() {
            return;
        }
        let addresses = match self.last.sandbox.clone() {
            Sandbox::Ready { id } => self.addresses(&id).await.unwrap_or_default(),
            Sandbox::Dead { .. } | Sandbox::Absent => Vec::new(),
        };
        let waiting: BTreeMap<_, _> = self.held.iter().map(|(name, held)| (name.clone(), held.told())).collect();
        // The first is news even if there is nothing to see.
        let changed = !std::mem::replace(&mut self.reported, true) || changed;
        let Some(membership) = &self.membership else { return };
        membership.report.send_if_modified(|report| {
            let news = changed || report.waiting != waiting || report.addresses != addresses;
            if news {
                *report = Report { seen: self.last.clone(), waiting, addresses };
            }
            news
        });
    }

    /// Puts large logs of running containers aside. Failing is no reason to end
    /// anything: it is tried again.
    pub(super) async fn rotate_logs(&self) {
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

    /// Addresses of the sandbox; they do not change during its life.
    pub(super) async fn addresses(&mut self, sandbox: &str) -> Result<Vec<IpAddr>, PodError> {
        if self.pod.host_network {
            return Ok(vec![self.host_address()]);
        }
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

/// What makes a change of the containers.
fn outline(seen: &Seen) -> Vec<(&str, u8, &Health)> {
    let rank = |state: State| match state {
        State::Created => 0,
        State::Running => 1,
        State::Exited { .. } => 2,
    };
    let attempts = seen.containers.values();
    let mut outline: Vec<_> = attempts.map(|a| (a.id.as_str(), rank(a.state), &a.health)).collect();
    outline.sort_by_key(|(id, ..)| *id);
    outline
}
