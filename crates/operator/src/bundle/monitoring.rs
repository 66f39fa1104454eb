//! What Prometheus scrapes and warns about, for clusters with the Prometheus operator.
//!
//! Every reason of condition `Degraded` has an alert of its own, and an entry in the
//! runbook under the same name.

use osc_objects::{
    kata_config::{DegradedReason, InProgressReason},
    names::{NAMESPACE, kata},
};
use serde_json::{Value, json};

use super::{Settings, dashboard, rbac, workload};

/// Where explanations are.
const RUNBOOK: &str = "docs/runbook.md";
/// Name of the Service in front of the monitors.
const MONITOR_SERVICE: &str = "metrics";
const MONITORING: &str = "monitoring.coreos.com/v1";

/// Files of the directory for `kubectl apply -k`.
pub(super) fn files(settings: &Settings) -> Vec<(&'static str, Vec<Value>)> {
    let mut scraped = vec![operator_monitor()];
    if settings.monitor_image.is_some() {
        scraped.extend([monitor_service(), monitor_monitor()]);
    }
    vec![
        ("scraping.yaml", scraped),
        ("rules.yaml", vec![rules(settings)]),
        ("access.yaml", rbac::prometheus_objects()),
        ("dashboard.yaml", vec![dashboard::object()]),
    ]
}

/// The same for the lifecycle manager: a name and one object each.
pub(super) fn olm_objects(settings: &Settings) -> Vec<(&'static str, Value)> {
    let mut objects = vec![
        ("controller-manager-metrics_servicemonitor", operator_monitor()),
        ("prometheus-sandboxed-containers-rules_prometheusrule", rules(settings)),
        ("grafana-dashboard-sandboxed-containers_configmap", dashboard::object()),
    ];
    if settings.monitor_image.is_some() {
        objects.extend([("metrics_service", monitor_service()), ("monitor_servicemonitor", monitor_monitor())]);
    }
    objects.extend(["monitor-role_role", "monitor-role_rolebinding"].into_iter().zip(rbac::prometheus_objects()));
    objects
}

fn operator_monitor() -> Value {
    scrape(workload::METRICS_SERVICE, &workload::labels())
}

fn monitor_monitor() -> Value {
    scrape(kata::MONITOR, &json!({"name": kata::MONITOR}))
}

fn scrape(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": MONITORING,
        "kind": "ServiceMonitor",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "endpoints": [{"port": "metrics", "path": "/metrics"}]},
    })
}

fn monitor_service() -> Value {
    let labels = json!({"name": kata::MONITOR});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": MONITOR_SERVICE, "namespace": NAMESPACE, "labels": labels},
        "spec": {"selector": labels, "ports": [
            {"name": "metrics", "port": 8090, "targetPort": "metrics", "protocol": "TCP"},
        ]},
    })
}

fn rules(settings: &Settings) -> Value {
    let mut rules = Vec::new();
    if settings.monitor_image.is_some() {
        rules.push(json!({
            "record": "cluster:kata_monitor_running_shim_count:sum",
            "expr": "sum(kata_monitor_running_shim_count)",
        }));
    }
    rules.extend(operator_alerts());
    let reasons = DegradedReason::ALL.iter().filter(|reason| **reason != DegradedReason::AsExpected);
    rules.extend(reasons.map(|reason| degraded(*reason)));
    rules.extend([
        stuck("KataConfigInstallStuck", InProgressReason::Installing),
        stuck("KataConfigUpdateStuck", InProgressReason::Updating),
        stuck("KataConfigUninstallStuck", InProgressReason::Uninstalling),
    ]);
    json!({
        "apiVersion": MONITORING,
        "kind": "PrometheusRule",
        "metadata": {"name": "prometheus-sandboxed-containers-rules", "namespace": NAMESPACE},
        "spec": {"groups": [{"name": "sandboxed-containers", "rules": rules}]},
    })
}

fn operator_alerts() -> [Value; 2] {
    [
        alert(
            "SandboxedContainersOperatorNotLeading",
            "max(osc_operator_leader) == 0 or absent(osc_operator_leader)",
            "10m",
            ("critical", "operator-not-leading"),
            "No replica of the sandboxed containers operator acts",
        ),
        alert(
            "SandboxedContainersOperatorFails",
            "increase(osc_operator_pass_failures_total[15m]) > 5",
            "15m",
            ("warning", "operator-fails"),
            "Passes of the sandboxed containers operator fail again and again",
        ),
    ]
}

/// What waits for people is pressing; what may resolve by itself gets some time.
fn degraded(reason: DegradedReason) -> Value {
    let name = reason.as_str();
    let (after, severity) = match reason {
        DegradedReason::NodeDegraded
        | DegradedReason::NodeUnreconcilable
        | DegradedReason::PoolDegraded
        | DegradedReason::MachineConfigApiMissing => ("10m", "critical"),
        DegradedReason::BlockedByPods | DegradedReason::DrainBlocked | DegradedReason::ApiFailure => ("30m", "warning"),
        _ => ("10m", "warning"),
    };
    alert(
        &format!("KataConfig{name}"),
        &format!("kata_config_condition{{type=\"Degraded\",reason=\"{name}\"}} == 1"),
        after,
        (severity, &name.to_lowercase()),
        &format!("The KataConfig is degraded: {name}; its condition Degraded says what to do"),
    )
}

fn stuck(name: &str, reason: InProgressReason) -> Value {
    let reason = reason.as_str();
    alert(
        name,
        &format!("kata_config_condition{{type=\"InProgress\",reason=\"{reason}\"}} == 1"),
        "2h",
        ("warning", &reason.to_lowercase()),
        &format!("The KataConfig has been {reason} for two hours"),
    )
}

fn alert(name: &str, expression: &str, after: &str, (severity, entry): (&str, &str), summary: &str) -> Value {
    json!({
        "alert": name,
        "expr": expression,
        "for": after,
        "labels": {"severity": severity, "namespace": NAMESPACE},
        "annotations": {"summary": summary, "runbook": format!("{RUNBOOK}#{entry}")},
    })
}
