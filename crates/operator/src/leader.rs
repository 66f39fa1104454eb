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
use osc_fault::chain;

use crate::{
    error::{Attempt, Error, code},
    options::LeaseTimes,
};

/// Name of the Lease; fixed, so that releases exclude each other.
pub(crate) const LEASE: &str = "290f4947.kataconfiguration.openshift.io";

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

/// One replica's hold on the Lease.
#[derive(Clone)]
pub(crate) struct Leader {
    api: Api<Lease>,
    me: String,
    times: LeaseTimes,
}

impl Leader {
    pub(crate) fn new(client: Client, namespace: &str, me: String, times: LeaseTimes) -> Self {
        Self { api: Api::namespaced(client, namespace), me, times }
    }

    /// Waits until this replica leads. Cancel-safe.
    pub(crate) async fn acquire(&self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = chain(&error), "lease not readable"),
            }
            tokio::time::sleep(self.times.retry).await;
        }
    }

    /// Keeps the lead; returns when it is lost. Cancel-safe.
    pub(crate) async fn keep(&self) {
        // Stops well before others may start.
        let limit = self.times.duration.mul_f32(2.0 / 3.0);
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(self.times.retry).await;
            let left = limit.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left.max(Duration::from_millis(1)), self.attempt()).await {
                Ok(Ok(true)) => renewed = tokio::time::Instant::now(),
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
    pub(crate) async fn release(&self) -> Result<(), Error> {
        loop {
            let Some(mut lease) = self.api.get_opt(LEASE).await.reading(LEASE)? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.me) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            match self.api.replace(LEASE, &PostParams::default(), &lease).await {
                Err(error) if code(&error) == Some(409) => {}
                done => return done.during("release lease", LEASE).map(|_| ()),
            }
        }
    }

    /// Tries once; whether this replica leads now.
    async fn attempt(&self) -> Result<bool, Error> {
        let now = Timestamp::now();
        let found = self.api.get_opt(LEASE).await.reading(LEASE)?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let done = match step(spec, &self.me, now) {
            Step::Wait => return Ok(false),
            Step::Create => {
                let metadata = ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(None, true, now)) };
                self.api.create(&PostParams::default(), &lease).await
            }
            Step::Take { transition } => {
                let mut lease = found.unwrap_or_default();
                lease.spec = Some(self.spec(lease.spec.as_ref(), transition, now));
                self.api.replace(LEASE, &PostParams::default(), &lease).await
            }
        };
        match done {
            Err(error) if code(&error) == Some(409) => Ok(false),
            other => other.during("hold lease", LEASE).map(|_| true),
        }
    }

    fn spec(&self, old: Option<&LeaseSpec>, transition: bool, now: Timestamp) -> LeaseSpec {
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        let since = old.and_then(|old| old.acquire_time.clone()).filter(|_| !transition);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(i32::try_from(self.times.duration.as_secs()).unwrap_or(i32::MAX).max(1)),
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
