//! What Prometheus scrapes and shows, for clusters with the Prometheus operator.

use osc_objects::names::{NAMESPACE, kata};
use serde_json::{Value, json};

use super::{Settings, dashboard, machine_config, rbac, rules, workload};

/// Name of the Service in front of the monitors.
const MONITOR_SERVICE: &str = "metrics";
/// Group and version of the Prometheus operator's kinds.
pub(super) const MONITORING: &str = "monitoring.coreos.com/v1";

/// Files of the directory for `kubectl apply -k`.
pub(super) fn files(settings: &Settings) -> Vec<(&'static str, Vec<Value>)> {
    let mut scraped = vec![operator_monitor()];
    if settings.machine_config.is_some() {
        let programs = machine_config::scraped();
        scraped.extend(programs.map(|(name, labels)| scrape(&workload::metrics_service_name(name), &labels)));
    }
    if settings.monitor_image.is_some() {
        scraped.extend([monitor_service(), monitor_monitor()]);
    }
    vec![
        ("scraping.yaml", scraped),
        ("rules.yaml", vec![rules::object(settings, settings.machine_config.is_some())]),
        ("access.yaml", rbac::prometheus_objects()),
        ("dashboard.yaml", vec![dashboard::object()]),
    ]
}

/// The same for the lifecycle manager, whose platform configures machines itself: a name
/// and one object each.
pub(super) fn olm_objects(settings: &Settings) -> Vec<(&'static str, Value)> {
    let mut objects = vec![
        ("controller-manager-metrics_servicemonitor", operator_monitor()),
        ("prometheus-sandboxed-containers-rules_prometheusrule", rules::object(settings, false)),
        ("grafana-dashboard-sandboxed-containers_configmap", dashboard::object()),
    ];
    if settings.monitor_image.is_some() {
        objects.extend([("metrics_service", monitor_service()), ("monitor_servicemonitor", monitor_monitor())]);
    }
    objects.extend(["monitor-role_role", "monitor-role_rolebinding"].into_iter().zip(rbac::prometheus_objects()));
    objects
}

fn operator_monitor() -> Value {
    scrape(&workload::metrics_service_name(workload::DEPLOYMENT), &workload::labels())
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
