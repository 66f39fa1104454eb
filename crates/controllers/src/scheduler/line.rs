//! Pods waiting for a node.
//!
//! ```text
//!   add ──► active ──pop──► (being placed) ──bound──► forgotten
//!             ▲                  │ nothing fits, or binding failed
//!             │                  ▼
//!             └── back-off over ─ parked
//!                 and the cluster changed (or a minute passed)
//! ```
//! Active pods leave by priority, then age. Time is an input.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use crate::cache::Key;

/// First back-off of a pod that fits nowhere.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// Longest back-off.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// A parked pod is tried again after this time even if nothing changed.
const FLUSH: Duration = Duration::from_secs(60);

type Rank = (Reverse<i32>, Timestamp, Key);

#[derive(Debug)]
enum Stage {
    Active(Rank),
    /// Not before `until`, and only once something changed or `FLUSH` passed.
    Parked {
        since: Instant,
        until: Instant,
        changed: bool,
    },
}

#[derive(Debug)]
struct Waiting {
    stage: Stage,
    rank: Rank,
    attempts: u32,
}

/// The line of one scheduler.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: HashMap<Key, Waiting>,
    active: BTreeSet<Rank>,
}

fn rank(pod: &Pod) -> Rank {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
    (Reverse(priority), created, Key::of(pod))
}

impl Line {
    /// Puts a new pod in line; one that waits already keeps its place and back-off.
    pub(crate) fn add(&mut self, pod: &Pod) {
        let rank = rank(pod);
        let key = rank.2.clone();
        if !self.waiting.contains_key(&key) {
            self.active.insert(rank.clone());
            self.waiting.insert(key, Waiting { stage: Stage::Active(rank.clone()), rank, attempts: 0 });
        }
    }

    /// Takes a pod that is bound or gone out of the line.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(Waiting { stage: Stage::Active(rank), .. }) = self.waiting.remove(key) {
            self.active.remove(&rank);
        }
    }

    /// Next pod to place. It stays known until [`remove`](Self::remove)d or [`park`](Self::park)ed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Key> {
        self.ripen(now);
        let (_, _, key) = self.active.pop_first()?;
        Some(key)
    }

    /// Puts a pod that could not be placed aside.
    pub(crate) fn park(&mut self, key: &Key, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        let back_off = FIRST_BACK_OFF.saturating_mul(1 << waiting.attempts.min(8)).min(LONGEST_BACK_OFF);
        waiting.attempts = waiting.attempts.saturating_add(1);
        waiting.stage = Stage::Parked { since: now, until: now + back_off, changed: false };
    }

    /// Something changed that may give parked pods a place.
    pub(crate) fn cluster_changed(&mut self) {
        for waiting in self.waiting.values_mut() {
            if let Stage::Parked { changed, .. } = &mut waiting.stage {
                *changed = true;
            }
        }
    }

    /// Something about this pod itself changed.
    pub(crate) fn pod_changed(&mut self, key: &Key) {
        if let Some(Waiting { stage: Stage::Parked { changed, .. }, .. }) = self.waiting.get_mut(key) {
            *changed = true;
        }
    }

    /// When [`pop`](Self::pop) may next have something, if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|waiting| due(&waiting.stage)).min()
    }

    fn ripen(&mut self, now: Instant) {
        for waiting in self.waiting.values_mut() {
            if due(&waiting.stage).is_some_and(|due| due <= now) {
                waiting.stage = Stage::Active(waiting.rank.clone());
                self.active.insert(waiting.rank.clone());
            }
        }
    }
}

fn due(stage: &Stage) -> Option<Instant> {
    match stage {
        Stage::Active(_) => None,
        Stage::Parked { until, changed: true, .. } => Some(*until),
        Stage::Parked { since, .. } => Some(*since + FLUSH),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pod;

    fn waiting(name: &str, priority: i32, created: &str) -> Pod {
        pod(json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"priority": priority}}))
    }

    fn key(name: &str) -> Key {
        Key::cluster(name)
    }

    #[test]
    fn priority_first_then_age() {
        let mut line = Line::default();
        line.add(&waiting("young", 0, "2026-01-01T00:00:02Z"));
        line.add(&waiting("old", 0, "2026-01-01T00:00:01Z"));
        line.add(&waiting("important", 100, "2026-01-01T00:00:03Z"));
        line.add(&waiting("gone", 200, "2026-01-01T00:00:03Z"));
        line.remove(&key("gone"));
        let now = Instant::now();
        let order: Vec<_> = std::iter::from_fn(|| line.pop(now)).map(|key| key.name).collect();
        assert_eq!(order, ["important", "old", "young"]);
    }

    #[test]
    fn a_parked_pod_waits_for_a_change_and_its_back_off() {
        let mut line = Line::default();
        let start = Instant::now();
        line.add(&waiting("p", 0, "2026-01-01T00:00:00Z"));
        assert_eq!(line.pop(start), Some(key("p")));
        line.park(&key("p"), start);
        line.add(&waiting("p", 0, "2026-01-01T00:00:00Z"));
        assert_eq!(line.pop(start + Duration::from_secs(5)), None, "nothing changed");
        line.cluster_changed();
        assert_eq!(line.pop(start + Duration::from_millis(500)), None, "back-off not over");
        assert_eq!(line.wake_at(), Some(start + FIRST_BACK_OFF));
        assert_eq!(line.pop(start + FIRST_BACK_OFF), Some(key("p")));
        line.park(&key("p"), start);
        assert_eq!(line.pop(start + FLUSH), Some(key("p")), "tried again without a change");
    }
}
