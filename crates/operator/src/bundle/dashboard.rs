//! The dashboard, as consoles and Grafana read it.

use osc_objects::names::{NAMESPACE, kata};
use serde_json::{Value, json};

/// A row of panels; each with its title, unit, legend and expression.
const ROWS: [[(&str, &str, &str, &str); 3]; 2] = [
    [
        ("Running VMs", "short", "VMs", "count(kata_guest_load{item=\"load1\"})"),
        (
            "CPU per VM",
            "percent",
            "{{sandbox_id}}",
            "sum by (sandbox_id) (rate(kata_guest_cpu_time{cpu=\"total\",item!~\"idle|iowait\"}[5m])) / 10",
        ),
        (
            "Memory per VM",
            "bytes",
            "{{sandbox_id}}",
            "kata_guest_meminfo{item=\"mem_total\"} - ignoring(item) kata_guest_meminfo{item=\"mem_free\"}",
        ),
    ],
    [
        ("Nodes", "short", "{{state}}", "sum by (state) (kata_config_nodes)"),
        ("Conditions", "short", "{{type}} {{reason}}", "kata_config_condition == 1"),
        ("Cost of VMs beside their guests", "bytes", "{{sandbox_id}}", "kata_shim_pod_overhead_memory_in_bytes"),
    ],
];

/// The ConfigMap; the operator copies it to where the platform's console looks.
pub(super) fn object() -> Value {
    let text = serde_json::to_string_pretty(&dashboard()).unwrap_or_default(); // plain data cannot fail
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": kata::DASHBOARD,
            "namespace": NAMESPACE,
            "labels": {"console.openshift.io/dashboard": "true", "grafana_dashboard": "1"},
        },
        "data": {"kata-resources.json": text},
    })
}

fn dashboard() -> Value {
    let mut panels = Vec::new();
    for (row, cells) in ROWS.iter().enumerate() {
        for (column, &(title, unit, legend, expression)) in cells.iter().enumerate() {
            panels.push(json!({
                "id": panels.len() + 1,
                "title": title,
                "type": "graph",
                "datasource": "$datasource",
                "gridPos": {"x": column * 8, "y": row * 8, "w": 8, "h": 8},
                "targets": [{"expr": expression, "legendFormat": legend, "refId": "A"}],
                "yaxes": [{"format": unit, "min": 0}, {"format": "short", "show": false}],
            }));
        }
    }
    json!({
        "title": "Sandboxed Containers",
        "uid": "sandboxed-containers",
        "tags": ["sandboxed-containers"],
        "schemaVersion": 16,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "hide": 0}]},
        "panels": panels,
    })
}
