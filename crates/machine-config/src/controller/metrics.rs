//! What the controller says about itself and its pools, for Prometheus.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use osc_service::{
    exposition::{Kind, Page},
    web::Tells,
};

use crate::pools::status::Computed;

/// Rounds that fail one after another before the controller is not ready.
const PATIENCE: u32 = 3;

/// Counters, and what the last round saw.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    leading: AtomicBool,
    rounds: AtomicU64,
    failures: AtomicU64,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    /// Why rounds fail now.
    trouble: Option<String>,
    pools: Vec<PoolShown>,
    /// Nodes that cannot be emptied.
    stuck: BTreeSet<String>,
    /// Masters that custom pools select in vain, with these pools.
    overruled: Vec<(String, String)>,
}

/// What is told about one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolShown {
    pub(super) name: String,
    pub(super) paused: bool,
    pub(super) machines: usize,
    pub(super) updated: usize,
    pub(super) ready: usize,
    pub(super) unavailable: usize,
    pub(super) degraded: usize,
    /// Types of the conditions that hold.
    pub(super) holds: Vec<String>,
}

impl PoolShown {
    pub(super) fn new(name: &str, paused: bool, status: &Computed) -> Self {
        let holds = status.conditions.iter().filter(|one| one.status == "True").map(|one| one.kind.clone());
        Self {
            name: name.into(),
            paused,
            machines: status.machines,
            updated: status.updated,
            ready: status.ready,
            unavailable: status.unavailable,
            degraded: status.degraded,
            holds: holds.collect(),
        }
    }
}

impl Metrics {
    pub(super) fn lead(&self, leading: bool) {
        self.leading.store(leading, Ordering::Relaxed);
        if !leading {
            // Another replica tells now.
            *self.shown() = Shown::default();
        }
    }

    /// Notes the end of a round; `in_a_row` failed one after another.
    pub(super) fn round(&self, failure: Option<&str>, in_a_row: u32) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        if failure.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.shown().trouble = failure.filter(|_| in_a_row >= PATIENCE).map(str::to_owned);
    }

    pub(super) fn show(&self, pools: Vec<PoolShown>, overruled: Vec<(String, String)>) {
        let mut shown = self.shown();
        (shown.pools, shown.overruled) = (pools, overruled);
    }

    /// Notes whether a node cannot be emptied.
    pub(super) fn drain(&self, node: &str, stuck: bool) {
        let mut shown = self.shown();
        if stuck {
            shown.stuck.insert(node.into());
        } else {
            shown.stuck.remove(node);
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tells for Metrics {
    fn metrics(&self) -> String {
        let mut page = Page::default();
        let leading = u8::from(self.leading.load(Ordering::Relaxed));
        page.one("mcc_leader", Kind::Gauge, "Whether this replica acts.", leading);
        let rounds = self.rounds.load(Ordering::Relaxed);
        page.one("mcc_rounds_total", Kind::Counter, "Looks at the cluster.", rounds);
        let failures = self.failures.load(Ordering::Relaxed);
        page.one("mcc_round_failures_total", Kind::Counter, "Looks that ended before their end.", failures);
        let shown = self.shown();
        page.metric("mcc_drain_err", Kind::Gauge, "Nodes that could not be emptied within an hour.");
        for node in &shown.stuck {
            page.sample("mcc_drain_err", &[("node", node)], 1);
        }
        page.metric("mcc_pool_alert", Kind::Gauge, "Masters that a custom pool selects too; they stay masters.");
        for (node, pools) in &shown.overruled {
            page.sample("mcc_pool_alert", &[("node", node), ("pools", pools)], 1);
        }
        pools(&mut page, &shown.pools);
        page.finish()
    }

    fn ready(&self) -> Result<(), String> {
        self.shown().trouble.clone().map_or(Ok(()), Err)
    }
}

fn pools(page: &mut Page, pools: &[PoolShown]) {
    page.metric("mcc_pool_paused", Kind::Gauge, "Whether a pool starts no node because somebody paused it.");
    for pool in pools {
        page.sample("mcc_pool_paused", &[("pool", &pool.name)], u8::from(pool.paused));
    }
    page.metric("mcc_pool_machines", Kind::Gauge, "Nodes of a pool by what is true of them.");
    for pool in pools {
        for (state, count) in [
            ("all", pool.machines),
            ("updated", pool.updated),
            ("ready", pool.ready),
            ("unavailable", pool.unavailable),
            ("degraded", pool.degraded),
        ] {
            page.sample("mcc_pool_machines", &[("pool", &pool.name), ("state", state)], count);
        }
    }
    page.metric("mcc_pool_condition", Kind::Gauge, "Conditions of a pool that are true.");
    for pool in pools {
        for kind in &pool.holds {
            page.sample("mcc_pool_condition", &[("pool", &pool.name), ("type", kind)], 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leader_saw_is_told_until_it_leads_no_more() {
        let metrics = Metrics::default();
        let pool = PoolShown {
            name: "kata-oc".into(),
            paused: true,
            machines: 3,
            updated: 2,
            ready: 2,
            unavailable: 1,
            degraded: 0,
            holds: vec!["Updating".into()],
        };
        metrics.lead(true);
        metrics.show(vec![pool], vec![("m0".into(), "infra".into())]);
        metrics.drain("n1", true);
        let text = metrics.metrics();
        for line in [
            "mcc_leader 1",
            "mcc_drain_err{node=\"n1\"} 1",
            "mcc_pool_alert{node=\"m0\",pools=\"infra\"} 1",
            "mcc_pool_paused{pool=\"kata-oc\"} 1",
            "mcc_pool_machines{pool=\"kata-oc\",state=\"unavailable\"} 1",
            "mcc_pool_condition{pool=\"kata-oc\",type=\"Updating\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        metrics.drain("n1", false);
        assert!(!metrics.metrics().contains("mcc_drain_err{"));
        metrics.lead(false);
        assert!(!metrics.metrics().contains("kata-oc"), "another replica tells");
    }

    #[test]
    fn it_is_ready_unless_rounds_keep_failing() {
        let metrics = Metrics::default();
        for (failure, in_a_row, ready) in
            [(None, 0, true), (Some("x"), 1, true), (Some("x"), 2, true), (Some("x"), 3, false), (None, 0, true)]
        {
            metrics.round(failure, in_a_row);
            assert_eq!(metrics.ready().is_ok(), ready, "{failure:?} {in_a_row}");
        }
        assert!(metrics.metrics().contains("mcc_round_failures_total 3\n"));
    }
}
