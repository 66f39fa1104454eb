//! What the operator says about itself, in the text format of Prometheus.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use osc_objects::{Condition, ConditionStatus, KataConfigStatus, KataNodes};
use osc_service::{
    exposition::{Kind, Page},
    web::Tells,
};

/// Counters and the status last decided.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    passes: AtomicU64,
    failures: AtomicU64,
    leading: AtomicBool,
    shown: Mutex<Option<(KataNodes, Vec<Condition>)>>,
}

impl Metrics {
    pub(crate) fn passed(&self, well: bool) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        if !well {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn lead(&self, leading: bool) {
        self.leading.store(leading, Ordering::Relaxed);
    }

    pub(crate) fn show(&self, status: Option<&KataConfigStatus>) {
        let shown = status.map(|status| (status.kata_nodes.clone(), status.conditions.clone()));
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

impl Tells for Metrics {
    fn metrics(&self) -> String {
        let mut page = Page::default();
        let passes = self.passes.load(Ordering::Relaxed);
        let failures = self.failures.load(Ordering::Relaxed);
        let leading = u8::from(self.leading.load(Ordering::Relaxed));
        page.one("osc_operator_passes_total", Kind::Counter, "Passes over the cluster.", passes);
        page.one("osc_operator_pass_failures_total", Kind::Counter, "Passes that failed.", failures);
        page.one("osc_operator_leader", Kind::Gauge, "Whether this replica acts.", leading);
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((nodes, conditions)) = shown {
            installation(&mut page, &nodes, &conditions);
        }
        page.finish()
    }
}

fn installation(page: &mut Page, nodes: &KataNodes, conditions: &[Condition]) {
    let holds = |type_: &str| {
        conditions.iter().any(|condition| condition.type_ == type_ && condition.status == ConditionStatus::True)
    };
    let success = !holds("InProgress") && !holds("Degraded") && nodes.ready_node_count == nodes.node_count;
    page.one(
        "kata_config_installation_success",
        Kind::Gauge,
        "Whether every wanted node runs sandboxes and nothing is in the way.",
        u8::from(success),
    );
    page.metric("kata_config_nodes", Kind::Gauge, "Nodes by what happens to them.");
    for (state, list) in [
        ("installed", &nodes.installed),
        ("installing", &nodes.installing),
        ("waiting_to_install", &nodes.waiting_to_install),
        ("failed_to_install", &nodes.failed_to_install),
        ("uninstalling", &nodes.uninstalling),
        ("waiting_to_uninstall", &nodes.waiting_to_uninstall),
        ("failed_to_uninstall", &nodes.failed_to_uninstall),
    ] {
        page.sample("kata_config_nodes", &[("state", state)], list.len());
    }
    page.metric("kata_config_condition", Kind::Gauge, "Conditions of the KataConfig; 1 when true.");
    for condition in conditions {
        let labels = [("type", condition.type_.as_str()), ("reason", condition.reason.as_str())];
        page.sample("kata_config_condition", &labels, u8::from(condition.status == ConditionStatus::True));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use osc_objects::Conditions;

    use super::*;

    #[test]
    fn installation_success_reads_the_status_that_exists() {
        let metrics = Metrics::default();
        assert!(!metrics.metrics().contains("installation_success"), "nothing is known without a KataConfig");
        let mut status = KataConfigStatus::default();
        status.kata_nodes.node_count = 1;
        status.conditions.set("InProgress", ConditionStatus::True, "Installing", "", Timestamp::UNIX_EPOCH);
        metrics.show(Some(&status));
        assert!(metrics.metrics().contains("kata_config_installation_success 0\n"));
        assert!(metrics.metrics().contains("kata_config_condition{type=\"InProgress\",reason=\"Installing\"} 1\n"));
        status.kata_nodes.ready_node_count = 1;
        status.kata_nodes.installed = vec!["w0".into()];
        status.conditions.set("InProgress", ConditionStatus::False, "", "", Timestamp::UNIX_EPOCH);
        metrics.show(Some(&status));
        assert!(metrics.metrics().contains("kata_config_installation_success 1\n"));
        assert!(metrics.metrics().contains("kata_config_nodes{state=\"installed\"} 1\n"));
    }
}
