//! Work queue of one controller.
//!
//! A key waits at most once, is worked on by at most one worker at a time, and
//! a key added while it is being worked on comes again afterwards. Failures put
//! a key back after a delay that doubles; success resets it.
//!
//! ```text
//!   add ──► ready ──► busy ──done──► (gone)
//!            ▲          │ └─added meanwhile──► ready
//!   delayed ─┘◄─retry───┘
//! ```

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt::Display,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use osc_fault::{Kind, chain};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// First delay after a failure.
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after many failures: a cured cause should not need a human to hurry it.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Limit of one reconciliation, so that a hanging API call never blocks a worker for ever.
const RECONCILE_LIMIT: Duration = Duration::from_secs(120);

/// A queue of keys; clones share it.
pub(crate) struct Queue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    busy: HashSet<K>,
    again: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    serial: u64,
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn push(&mut self, key: K) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn push_later(&mut self, key: K, at: Instant) {
        if let Some(slot) = self.due.get(&key).copied() {
            if slot.0 <= at {
                return;
            }
            self.delayed.remove(&slot);
        }
        self.serial += 1;
        let slot = (at, self.serial);
        self.delayed.insert(slot, key.clone());
        self.due.insert(key, slot);
    }

    /// Moves what is due to the ready line; returns when the next one is.
    fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some((&slot, _)) = self.delayed.first_key_value() {
            if slot.0 > now {
                return Some(slot.0);
            }
            if let Some(key) = self.delayed.remove(&slot) {
                self.due.remove(&key);
                self.push(key);
            }
        }
        None
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    pub(crate) fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            serial: 0,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a key in line.
    pub(crate) fn add(&self, key: K) {
        self.state().push(key);
        self.shared.changed.notify_one();
    }

    /// Puts a key in line after `delay`; an earlier appointment of the same key wins.
    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        self.state().push_later(key, Instant::now() + delay);
        self.shared.changed.notify_one();
    }

    /// Next key, marked busy. Cancel-safe.
    pub(crate) async fn next(&self) -> K {
        loop {
            let changed = self.shared.changed.notified();
            let wake = {
                let mut state = self.state();
                let wake = state.ripen(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.busy.insert(key.clone());
                    return key;
                }
                wake
            };
            match wake {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Ends the work on a key that went well.
    pub(crate) fn done(&self, key: &K) {
        let mut state = self.state();
        state.failures.remove(key);
        state.busy.remove(key);
        if state.again.remove(key) {
            state.push(key.clone());
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// Ends the work on a key that failed; it comes again after a growing delay.
    pub(crate) fn retry(&self, key: &K) -> Duration {
        let mut state = self.state();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = back_off(*failures);
        *failures = failures.saturating_add(1);
        state.busy.remove(key);
        state.again.remove(key);
        state.push_later(key.clone(), Instant::now() + delay);
        drop(state);
        self.shared.changed.notify_one();
        delay
    }

    /// Keys waiting, in line or for their time.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        state.ready.len() + state.delayed.len()
    }
}

/// Delay before attempt `failures + 2`.
pub(crate) fn back_off(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures.min(20)).min(LONGEST_DELAY)
}

/// Works on a queue until stopped, at most `parallel` keys at a time. What is
/// under way when the stop comes is dropped: every controller is idempotent.
pub(crate) async fn work<K, F, R>(
    controller: &'static str,
    queue: Queue<K>,
    parallel: usize,
    stop: CancellationToken,
    reconcile: F,
) where
    K: Clone + Eq + Hash + Ord + Display,
    F: Fn(K) -> R,
    R: Future<Output = Result<Option<Duration>, Error>>,
{
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            key = queue.next(), if running.len() < parallel => {
                let work = tokio::time::timeout(RECONCILE_LIMIT, reconcile(key.clone()));
                running.push(async move { (key, work.await) });
            }
            Some((key, result)) = running.next() => {
                let result = result.unwrap_or_else(|_| {
                    Err(Error::Timeout { controller, key: key.to_string(), limit: RECONCILE_LIMIT })
                });
                finish(controller, &queue, key, result);
            }
        }
    }
}

fn finish<K>(controller: &'static str, queue: &Queue<K>, key: K, result: Result<Option<Duration>, Error>)
where
    K: Clone + Eq + Hash + Ord + Display,
{
    match result {
        Ok(again) => {
            queue.done(&key);
            if let Some(delay) = again {
                queue.add_after(key, delay);
            }
        }
        Err(error) => {
            let delay = queue.retry(&key);
            match error.kind() {
                // Stale caches make these; the next round sees the newer object.
                Kind::Busy | Kind::NotFound => {
                    tracing::debug!(controller, %key, error = %chain(&error), "reconciliation came too early");
                }
                _ => tracing::warn!(
                    controller, %key, error = %chain(&error), retry_ms = delay.as_millis() as u64, "reconciliation failed"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute() {
        assert_eq!(back_off(0), Duration::from_millis(5));
        assert_eq!(back_off(3), Duration::from_millis(40));
        assert_eq!(back_off(14), LONGEST_DELAY);
        assert_eq!(back_off(u32::MAX), LONGEST_DELAY);
    }

    #[tokio::test]
    async fn a_key_added_while_busy_comes_again_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.len(), 1, "a key waits once");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.len(), 0, "not while it is worked on");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_appointment_wins() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(30));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_key_waits_longer_each_time_until_it_succeeds() {
        let queue = Queue::new();
        queue.add("a");
        for failure in 0..4 {
            queue.next().await;
            assert_eq!(queue.retry(&"a"), back_off(failure));
        }
        queue.next().await;
        queue.done(&"a");
        queue.add("a");
        queue.next().await;
        assert_eq!(queue.retry(&"a"), back_off(0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_allowed_number_run_at_once() {
        let queue = Queue::new();
        for key in 0..20 {
            queue.add(key);
        }
        let (now, most) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let stop = CancellationToken::new();
        let ended = std::cell::Cell::new(0);
        let worker = work("test", queue, 3, stop.clone(), |_| {
            let (now, most, ended, stop) = (&now, &most, &ended, &stop);
            async move {
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.set(now.get() - 1);
                ended.set(ended.get() + 1);
                if ended.get() == 20 {
                    stop.cancel();
                }
                Ok(None)
            }
        });
        worker.await;
        assert_eq!((most.get(), ended.get()), (3, 20));
    }
}
