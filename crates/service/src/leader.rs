//! Who of several replicas acts: the holder of a Lease.
//!
//! Every change of the Lease names the version it was made from, so of two that try at
//! once one fails. A holder that cannot renew stops acting before others may take over.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use tokio_util::sync::CancellationToken;

use osc_fault::chain;

/// Limit for handing over the lead.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// Longest answer of the API.
const ANSWER: Duration = Duration::from_secs(10);

/// Times of a Lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// A leader silent for this long is replaced.
    pub duration: Duration,
    /// How often it is renewed, and how often others look.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), retry: Duration::from_secs(2) }
    }
}

/// Which Lease is held, and by whom.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name; fixed for a program, so that its releases exclude each other.
    pub lease: &'static str,
    /// Name of this replica.
    pub identity: String,
    /// Times.
    pub times: LeaseTimes,
}

/// A Lease that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API refused.
    #[error("cannot {verb} lease {lease}: check the rights of this program and the connection")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Name of the Lease.
        lease: &'static str,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// The API did not answer.
    #[error("cannot {verb} lease {lease}: no answer within {ANSWER:?}")]
    Silent {
        /// What was tried.
        verb: &'static str,
        /// Name of the Lease.
        lease: &'static str,
    },
}

impl LeaseError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409))
    }
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is none.
    Create,
    /// It is ours, or nobody's.
    Take { transition: bool },
    /// Another holds it.
    Wait,
}

fn step(lease: Option<&LeaseSpec>, me: &str, now: Timestamp) -> Step {
    let Some(lease) = lease else { return Step::Create };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    if holder == me {
        return Step::Take { transition: false };
    }
    let seconds = i64::from(lease.lease_duration_seconds.unwrap_or(0));
    let ends = lease.renew_time.as_ref().map(|renewed| renewed.0.saturating_add(SignedDuration::from_secs(seconds)));
    let over = ends.is_none_or(|ends| ends.is_ok_and(|ends| ends < now));
    if holder.is_empty() || over { Step::Take { transition: true } } else { Step::Wait }
}

/// How work ended that only a leader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop; the lead is handed over.
    Stopped,
    /// The work ended by itself.
    ByItself,
}

/// One replica's hold on a Lease.
#[derive(Clone)]
pub struct Leader {
    api: Api<Lease>,
    candidate: Candidate,
}

impl Leader {
    /// A replica that leads nobody yet.
    pub fn new(client: Client, candidate: Candidate) -> Self {
        Self { api: Api::namespaced(client, &candidate.namespace), candidate }
    }

    /// Begins `work` anew whenever this replica gets the lead, and drops it when the lead is
    /// lost, until `stop` is cancelled. `told` hears whether it leads.
    pub async fn lead<W: Future<Output = ()>>(
        &self,
        stop: &CancellationToken,
        told: impl Fn(bool),
        work: impl Fn() -> W,
    ) -> Ended {
        let identity = self.candidate.identity.as_str();
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                () = self.acquire() => {}
            }
            tracing::info!(identity, lease = self.candidate.lease, "leading");
            told(true);
            let ended = tokio::select! {
                () = stop.cancelled() => Some(Ended::Stopped),
                () = self.keep() => None,
                () = work() => Some(Ended::ByItself),
            };
            told(false);
            if let Some(ended) = ended {
                break ended;
            }
            tracing::warn!(identity, lease = self.candidate.lease, "lead lost");
        };
        match tokio::time::timeout(RELEASE_LIMIT, self.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "lease not released; it runs out by itself"),
            Err(_) => tracing::warn!("lease not released in time; it runs out by itself"),
        }
        ended
    }

    /// Waits until this replica leads. Cancel-safe.
    async fn acquire(&self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = chain(&error), "lease not held"),
            }
            tokio::time::sleep(self.candidate.times.retry).await;
        }
    }

    /// Keeps the lead; returns when it is lost. Cancel-safe.
    async fn keep(&self) {
        let times = self.candidate.times;
        // Stops well before others may start.
        let limit = times.duration.mul_f32(2.0 / 3.0);
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(times.retry).await;
            let left = limit.saturating_sub(renewed.elapsed());
            let begun = tokio::time::Instant::now();
            match tokio::time::timeout(left.max(Duration::from_millis(1)), self.attempt()).await {
                Ok(Ok(true)) => renewed = begun,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "lease not renewed"),
                Err(_) => {}
            }
            if renewed.elapsed() >= limit {
                return;
            }
        }
    }

    /// Lets others take over at once. A renewal that was under way may still arrive, so the
    /// version is read again as often as needed; the caller sets the limit.
    async fn release(&self) -> Result<(), LeaseError> {
        let name = self.candidate.lease;
        loop {
            let Some(mut lease) = self.ask("read", self.api.get_opt(name)).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.candidate.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            match self.ask("release", self.api.replace(name, &PostParams::default(), &lease)).await {
                Err(error) if error.is_conflict() => {}
                done => return done.map(drop),
            }
        }
    }

    /// Tries once; whether this replica leads now.
    async fn attempt(&self) -> Result<bool, LeaseError> {
        let (now, name) = (Timestamp::now(), self.candidate.lease);
        let found = self.ask("read", self.api.get_opt(name)).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let done = match step(spec, &self.candidate.identity, now) {
            Step::Wait => return Ok(false),
            Step::Create => {
                let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(None, true, now)) };
                self.ask("create", self.api.create(&PostParams::default(), &lease)).await
            }
            Step::Take { transition } => {
                let mut lease = found.unwrap_or_default();
                lease.spec = Some(self.spec(lease.spec.as_ref(), transition, now));
                self.ask("hold", self.api.replace(name, &PostParams::default(), &lease)).await
            }
        };
        match done {
            Err(error) if error.is_conflict() => Ok(false),
            other => other.map(|_| true),
        }
    }

    async fn ask<T>(
        &self,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, LeaseError> {
        let lease = self.candidate.lease;
        match tokio::time::timeout(ANSWER, request).await {
            Ok(answer) => answer.map_err(|source| LeaseError::Api { verb, lease, source: Box::new(source) }),
            Err(_) => Err(LeaseError::Silent { verb, lease }),
        }
    }

    fn spec(&self, old: Option<&LeaseSpec>, transition: bool, now: Timestamp) -> LeaseSpec {
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        let since = old.and_then(|old| old.acquire_time.clone()).filter(|_| !transition);
        LeaseSpec {
            holder_identity: Some(self.candidate.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.candidate.times.duration.as_secs()).unwrap_or(i32::MAX).max(1),
            ),
            acquire_time: since.or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions.saturating_add(i32::from(transition))),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let held = |by: &str, renewed: i64| LeaseSpec {
            holder_identity: Some(by.into()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(at(renewed))),
            ..LeaseSpec::default()
        };
        for (lease, now, wanted) in [
            (None, 0, Step::Create),
            (Some(held("me", 0)), 5, Step::Take { transition: false }),
            (Some(held("me", 0)), 500, Step::Take { transition: false }),
            (Some(held("other", 0)), 15, Step::Wait),
            (Some(held("other", 0)), 16, Step::Take { transition: true }),
            (Some(held("", 0)), 1, Step::Take { transition: true }),
            (
                Some(LeaseSpec { holder_identity: Some("other".into()), ..LeaseSpec::default() }),
                1,
                Step::Take { transition: true },
            ),
        ] {
            assert_eq!(step(lease.as_ref(), "me", at(now)), wanted, "{lease:?} at {now}");
        }
    }
}
