//! What a supervisor has to do with a cluster: whom it tells, and what keeps
//! containers waiting.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use osc_agent_protocol::kind::chain;
use tokio::{sync::watch, time::Instant};

use crate::pod::{
    cluster::Cluster,
    error::PodError,
    model::{Container, Pod},
    next::Seen,
};

/// Delay after the first failure to fetch or make; doubles up to [`HOLD_MAX`].
const HOLD: Duration = Duration::from_secs(10);
const HOLD_MAX: Duration = Duration::from_secs(300);
/// What is missing may come at any moment.
const HOLD_MISSING: Duration = Duration::from_secs(3);
/// A failed fetch is told as such for so long, and then as a back-off.
const NEWS: Duration = Duration::from_secs(2);

/// Something worth an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The container it is about, and whether that is an init container.
    pub container: Option<(String, bool)>,
    /// Whether something is wrong.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Note {
    /// About the pod as a whole.
    pub fn pod(warning: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { container: None, warning, reason, message: message.into() }
    }
}

/// Where notes go. It must not block.
pub type Journal = Arc<dyn Fn(Note) + Send + Sync>;

/// What ties a supervisor to a cluster. Without it, a pod that does not start is
/// a failure; with it, a reason to try again.
pub struct Membership {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Told of everything worth an event.
    pub journal: Journal,
    /// The pod as the API has it now.
    pub latest: watch::Receiver<Arc<Pod>>,
    /// Gets what is seen of the pod, whenever that changes.
    pub report: watch::Sender<Report>,
    /// Containers, by id, that had been started and were ready before.
    pub before: HashMap<String, (bool, bool)>,
}

/// What is seen of a pod.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the engine says.
    pub seen: Seen,
    /// Why containers wait: a word and a sentence.
    pub waiting: BTreeMap<String, (&'static str, String)>,
    /// Addresses of the pod, the main one first.
    pub addresses: Vec<IpAddr>,
}

/// Why a container could not be made, and until when that is left alone.
#[derive(Clone, Debug)]
pub(super) struct Held {
    reason: &'static str,
    message: String,
    since: Instant,
    until: Instant,
    delay: Duration,
}

impl Held {
    /// After `error` at `since`; `before` is the failure before that, if there was one.
    pub(super) fn after(error: &PodError, before: Option<&Self>, since: Instant) -> Self {
        let (reason, slows_down) = match error {
            PodError::Image { source: Some(_), .. } => ("ErrImagePull", true),
            PodError::Image { source: None, .. } => ("ErrImageNeverPull", false),
            PodError::Target { .. } => ("CreateContainerConfigError", false),
            PodError::Missing { .. } | PodError::Api { .. } | PodError::Root { .. } | PodError::Volume { .. } => {
                ("CreateContainerConfigError", false)
            }
            _ => ("CreateContainerError", true),
        };
        let delay = match before.filter(|before| before.is_like(reason)) {
            _ if !slows_down => HOLD_MISSING,
            Some(before) => (before.delay * 2).min(HOLD_MAX),
            None => HOLD,
        };
        Self { reason, message: chain(error), since, until: since + delay, delay }
    }

    fn is_like(&self, reason: &str) -> bool {
        self.reason == reason || (self.reason == "ImagePullBackOff" && reason == "ErrImagePull")
    }

    /// How long it is still left alone.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// A failed fetch becomes a back-off after a while; whether it just did.
    pub(super) fn settle(&mut self, image: &str, now: Instant) -> bool {
        let turns = self.reason == "ErrImagePull" && now.saturating_duration_since(self.since) >= NEWS;
        if turns {
            self.reason = "ImagePullBackOff";
            self.message = format!("Back-off pulling image {image:?}: ErrImagePull: {}", self.message);
        }
        turns
    }

    pub(super) fn told(&self) -> (&'static str, String) {
        (self.reason, self.message.clone())
    }
}

/// The name of a container and whether it is an init container.
pub(super) fn about(pod: &Pod, container: &Container) -> Option<(String, bool)> {
    Some((container.name.clone(), pod.init.iter().any(|init| init.name == container.name)))
}

/// How a failure of the pod as a whole is told. That the engine is being
/// restarted is not the pod's affair.
pub(super) fn note_of(error: &PodError) -> Option<Note> {
    let text = chain(error);
    match error {
        PodError::Volume { volume, reason, source } => {
            let cause = source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
            let message = format!("MountVolume.SetUp failed for volume {volume:?} : {reason}{cause}");
            Some(Note::pod(true, "FailedMount", message))
        }
        PodError::Sandbox { source, .. } if !source.is_unreachable() => {
            Some(Note::pod(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {text}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::CriError;

    fn pull() -> PodError {
        let source = CriError::Silent { call: "pull_image", object: "i".into(), waited: HOLD };
        PodError::Image { image: "i".into(), reason: "cannot be fetched", source: Some(source) }
    }

    #[test]
    fn a_failed_fetch_backs_off_and_says_so() {
        let now = Instant::now();
        let mut held = Held::after(&pull(), None, now);
        assert_eq!((held.reason, held.delay), ("ErrImagePull", HOLD));
        assert!(!held.settle("i", now));
        assert!(held.settle("i", now + NEWS) && !held.settle("i", now + NEWS));
        assert_eq!(held.reason, "ImagePullBackOff");
        let mut delays = Vec::new();
        for _ in 0..6 {
            held = Held::after(&pull(), Some(&held), now);
            delays.push(held.delay.as_secs());
        }
        assert_eq!(delays, [20, 40, 80, 160, 300, 300]);
        let missing = PodError::Missing { what: "secret", name: "s".into(), key: None };
        held = Held::after(&missing, Some(&held), now);
        assert_eq!((held.reason, held.delay), ("CreateContainerConfigError", HOLD_MISSING));
        assert_eq!(Held::after(&pull(), Some(&held), now).delay, HOLD);
    }
}
