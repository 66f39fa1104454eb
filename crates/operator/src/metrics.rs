//! What the operator says about itself, in the text format of Prometheus.

use std::{
    fmt::Write as _,
    sync::Arc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hyper::StatusCode;
use osc_objects::{Condition, ConditionStatus, KataConfigStatus, KataNodes};
use tokio::net::TcpListener;

use crate::http;

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

    /// The text that is scraped.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let plain = |value: u64| [(String::new(), value)];
        let passes = self.passes.load(Ordering::Relaxed);
        let failures = self.failures.load(Ordering::Relaxed);
        let leading = u64::from(self.leading.load(Ordering::Relaxed));
        metric("osc_operator_passes_total", "counter", "Passes over the cluster.", &plain(passes));
        metric("osc_operator_pass_failures_total", "counter", "Passes that failed.", &plain(failures));
        metric("osc_operator_leader", "gauge", "Whether this replica acts.", &plain(leading));
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((nodes, conditions)) = shown else { return text };
        let holds = |type_: &str| {
            conditions.iter().any(|condition| condition.type_ == type_ && condition.status == ConditionStatus::True)
        };
        let success = !holds("InProgress") && !holds("Degraded") && nodes.ready_node_count == nodes.node_count;
        metric(
            "kata_config_installation_success",
            "gauge",
            "Whether every wanted node runs sandboxes and nothing is in the way.",
            &plain(u64::from(success)),
        );
        metric("kata_config_nodes", "gauge", "Nodes by what happens to them.", &by_list(&nodes));
        let conditions: Vec<_> = conditions.iter().map(sample).collect();
        metric("kata_config_condition", "gauge", "Conditions of the KataConfig; 1 when true.", &conditions);
        text
    }
}

fn by_list(nodes: &KataNodes) -> Vec<(String, u64)> {
    [
        ("installed", &nodes.installed),
        ("installing", &nodes.installing),
        ("waiting_to_install", &nodes.waiting_to_install),
        ("failed_to_install", &nodes.failed_to_install),
        ("uninstalling", &nodes.uninstalling),
        ("waiting_to_uninstall", &nodes.waiting_to_uninstall),
        ("failed_to_uninstall", &nodes.failed_to_uninstall),
    ]
    .map(|(state, list)| (format!("{{state=\"{state}\"}}"), u64::try_from(list.len()).unwrap_or(u64::MAX)))
    .into()
}

/// Types and reasons are words of this program, so nothing needs escaping.
fn sample(condition: &Condition) -> (String, u64) {
    let labels = format!("{{type=\"{}\",reason=\"{}\"}}", condition.type_, condition.reason);
    (labels, u64::from(condition.status == ConditionStatus::True))
}

/// Serves `/metrics` and `/healthz` until dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    http::serve(listener, move |path| match path {
        "/metrics" => (StatusCode::OK, metrics.render()),
        "/healthz" | "/readyz" => (StatusCode::OK, "ok".into()),
        _ => (StatusCode::NOT_FOUND, "not found: try /metrics".into()),
    })
    .await;
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use osc_objects::Conditions;

    use super::*;

    #[test]
    fn installation_success_reads_the_status_that_exists() {
        let metrics = Metrics::default();
        assert!(!metrics.render().contains("installation_success"), "nothing is known without a KataConfig");
        let mut status = KataConfigStatus::default();
        status.kata_nodes.node_count = 1;
        status.conditions.set("InProgress", ConditionStatus::True, "Installing", "", Timestamp::UNIX_EPOCH);
        metrics.show(Some(&status));
        assert!(metrics.render().contains("kata_config_installation_success 0\n"));
        assert!(metrics.render().contains("kata_config_condition{type=\"InProgress\",reason=\"Installing\"} 1\n"));
        status.kata_nodes.ready_node_count = 1;
        status.kata_nodes.installed = vec!["w0".into()];
        status.conditions.set("InProgress", ConditionStatus::False, "", "", Timestamp::UNIX_EPOCH);
        metrics.show(Some(&status));
        assert!(metrics.render().contains("kata_config_installation_success 1\n"));
        assert!(metrics.render().contains("kata_config_nodes{state=\"installed\"} 1\n"));
    }
}
