//! What a daemon says about itself, for Prometheus.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use osc_service::{
    exposition::{Kind, Page},
    web::Tells,
};

use crate::pools::State;

/// Counters, and what the daemon reported last.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    updates: AtomicU64,
    failures: AtomicU64,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    config: String,
    state: State,
    drifted: bool,
    /// Why the API does not hear what is reported.
    unheard: Option<String>,
}

impl Metrics {
    /// Notes an update that was applied.
    pub(super) fn updated(&self) {
        self.updates.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes an attempt in vain.
    pub(super) fn failed(&self, state: State, drifted: bool) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut shown = self.shown();
        (shown.state, shown.drifted) = (state, drifted);
    }

    /// Notes what the node runs and what the daemon does about it.
    pub(super) fn show(&self, config: &str, state: State) {
        let mut shown = self.shown();
        shown.config = config.into();
        shown.state = state;
        shown.drifted = false;
    }

    /// Notes whether the API took the last report.
    pub(super) fn heard(&self, failure: Option<String>) {
        self.shown().unheard = failure;
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tells for Metrics {
    fn metrics(&self) -> String {
        let mut page = Page::default();
        let (updates, failures) = (self.updates.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed));
        page.one("mcd_updates_total", Kind::Counter, "Configurations applied.", updates);
        page.one("mcd_update_failures_total", Kind::Counter, "Attempts that did not get to their end.", failures);
        let shown = self.shown();
        page.one("mcd_config_drift", Kind::Gauge, "Whether managed files were changed.", u8::from(shown.drifted));
        page.metric("mcd_state", Kind::Gauge, "What the daemon does, and the configuration the node runs.");
        let state = if shown.state == State::Unknown { "Unknown" } else { shown.state.as_str() };
        page.sample("mcd_state", &[("state", state), ("config", &shown.config)], 1);
        page.finish()
    }

    fn ready(&self) -> Result<(), String> {
        self.shown().unheard.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_and_failures_show_until_they_are_over() {
        let metrics = Metrics::default();
        assert!(metrics.metrics().contains("mcd_state{state=\"Unknown\",config=\"\"} 1\n"));
        metrics.show("rendered-worker-1", State::Done);
        metrics.failed(State::Degraded, true);
        let text = metrics.metrics();
        assert!(text.contains("mcd_state{state=\"Degraded\",config=\"rendered-worker-1\"} 1\n"), "{text}");
        assert!(text.contains("mcd_config_drift 1\n") && text.contains("mcd_update_failures_total 1\n"), "{text}");
        metrics.show("rendered-worker-1", State::Done);
        assert!(metrics.metrics().contains("mcd_config_drift 0\n"));
        metrics.heard(Some("no API".into()));
        assert!(metrics.ready().is_err());
        metrics.heard(None);
        assert!(metrics.ready().is_ok());
    }
}
