//! What Prometheus warns about.
//!
//! Every reason of condition `Degraded` has an alert of its own. Every alert has an entry in
//! the runbook.

use osc_objects::{
    kata_config::{DegradedReason, InProgressReason},
    names::NAMESPACE,
};
use serde_json::{Value, json};

use super::{Settings, monitoring::MONITORING};

/// Where explanations are.
const RUNBOOK: &str = "docs/runbook.md";

/// All rules; with `machine_config`, also about what configures machines where the platform
/// does not.
pub(super) fn object(settings: &Settings, machine_config: bool) -> Value {
    let mut rules = Vec::new();
    if settings.monitor_image.is_some() {
        rules.push(json!({
            "record": "cluster:kata_monitor_running_shim_count:sum",
            "expr": "sum(kata_monitor_running_shim_count)",
        }));
    }
    rules.extend(of_the_operator());
    let reasons = DegradedReason::ALL.iter().filter(|reason| **reason != DegradedReason::AsExpected);
    rules.extend(reasons.map(|reason| degraded(*reason)));
    rules.extend([
        stuck("KataConfigInstallStuck", InProgressReason::Installing),
        stuck("KataConfigUpdateStuck", InProgressReason::Updating),
        stuck("KataConfigUninstallStuck", InProgressReason::Uninstalling),
    ]);
    if machine_config {
        rules.extend(of_the_controller());
        rules.extend(of_pools());
        rules.extend(of_daemons());
    }
    json!({
        "apiVersion": MONITORING,
        "kind": "PrometheusRule",
        "metadata": {"name": "prometheus-sandboxed-containers-rules", "namespace": NAMESPACE},
        "spec": {"groups": [{"name": "sandboxed-containers", "rules": rules}]},
    })
}

fn of_the_operator() -> [Value; 2] {
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

fn of_the_controller() -> [Value; 2] {
    [
        alert(
            "MachineConfigControllerNotLeading",
            "max(mcc_leader) == 0 or absent(mcc_leader)",
            "10m",
            ("critical", "machine-config-controller-not-leading"),
            "No replica of the machine-config controller acts",
        ),
        alert(
            "MachineConfigControllerFails",
            "increase(mcc_round_failures_total[15m]) > 5",
            "15m",
            ("warning", "machine-config-controller-fails"),
            "Rounds of the machine-config controller fail again and again",
        ),
    ]
}

/// Only the leader tells about pools and drains, so the greatest value is its.
fn of_pools() -> [Value; 4] {
    [
        alert(
            "MCCDrainError",
            "max by (node) (mcc_drain_err) == 1",
            "1m",
            ("warning", "node-not-emptied"),
            "Node {{ $labels.node }} could not be emptied within an hour; its update waits",
        ),
        alert(
            "MCCPoolAlert",
            "max by (node, pools) (mcc_pool_alert) == 1",
            "15m",
            ("warning", "master-in-a-custom-pool"),
            "Pools {{ $labels.pools }} select {{ $labels.node }}, which stays in pool master",
        ),
        alert(
            "MachineConfigPoolPaused",
            "max by (pool) (mcc_pool_paused) == 1 and max by (pool) (mcc_pool_machines{state=\"updated\"}) < \
             max by (pool) (mcc_pool_machines{state=\"all\"})",
            "1h",
            ("warning", "pool-paused-with-work-to-do"),
            "Pool {{ $labels.pool }} is paused, and some of its nodes wait for their configuration",
        ),
        alert(
            "MachineConfigPoolRenderDegraded",
            "max by (pool) (mcc_pool_condition{type=\"RenderDegraded\"}) == 1",
            "10m",
            ("warning", "pool-not-rendered"),
            "The MachineConfigs of pool {{ $labels.pool }} cannot be merged; its nodes stay as they are",
        ),
    ]
}

/// A node whose files were changed is degraded for that reason, which is told once.
fn of_daemons() -> [Value; 2] {
    [
        alert(
            "MCDConfigDrift",
            "mcd_config_drift == 1",
            "5m",
            ("warning", "managed-files-changed"),
            "Somebody changed managed files on the node of pod {{ $labels.pod }}",
        ),
        alert(
            "MachineConfigDaemonFails",
            "mcd_state{state=~\"Degraded|Unreconcilable\"} == 1 unless on (pod) mcd_config_drift == 1",
            "10m",
            ("warning", "node-not-updated"),
            "The node of pod {{ $labels.pod }} could not be updated; it stays what it was",
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
