//! Which columns which built-in resource has, and those of the smaller kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, Cell, Column, NAME, age, column, condition, joined, network, or_none, pod, size, storage, wide, workload,
};
use crate::value::{array, entries, has, integer, text};

const CREATED: Column = column("Created At", Cell::Created);

/// Group, plural and columns.
const LAYOUTS: &[(&str, &str, &[Column])] = &[
    ("", "pods", pod::PODS),
    ("", "podtemplates", workload::POD_TEMPLATES),
    ("", "replicationcontrollers", workload::REPLICATION_CONTROLLERS),
    ("apps", "deployments", workload::DEPLOYMENTS),
    ("apps", "replicasets", workload::REPLICA_SETS),
    ("apps", "daemonsets", workload::DAEMON_SETS),
    ("apps", "statefulsets", workload::STATEFUL_SETS),
    ("apps", "controllerrevisions", workload::CONTROLLER_REVISIONS),
    ("batch", "jobs", workload::JOBS),
    ("batch", "cronjobs", workload::CRON_JOBS),
    ("autoscaling", "horizontalpodautoscalers", workload::AUTOSCALERS),
    ("", "services", network::SERVICES),
    ("", "endpoints", network::ENDPOINTS),
    ("discovery.k8s.io", "endpointslices", network::ENDPOINT_SLICES),
    ("networking.k8s.io", "ingresses", network::INGRESSES),
    ("networking.k8s.io", "ingressclasses", network::INGRESS_CLASSES),
    ("networking.k8s.io", "networkpolicies", network::NETWORK_POLICIES),
    ("", "persistentvolumes", storage::VOLUMES),
    ("", "persistentvolumeclaims", storage::CLAIMS),
    ("storage.k8s.io", "storageclasses", storage::CLASSES),
    ("storage.k8s.io", "csidrivers", storage::DRIVERS),
    ("storage.k8s.io", "csinodes", storage::DRIVER_NODES),
    ("storage.k8s.io", "volumeattachments", storage::ATTACHMENTS),
    ("", "nodes", NODES),
    ("", "events", EVENTS),
    ("events.k8s.io", "events", EVENTS),
    ("", "namespaces", &[NAME, column("Status", Cell::Text("/status/phase")), AGE]),
    (
        "",
        "configmaps",
        &[NAME, column("Data", Cell::Counted(|map| size(map, "data").saturating_add(size(map, "binaryData")))), AGE],
    ),
    (
        "",
        "secrets",
        &[NAME, column("Type", Cell::Text("/type")), column("Data", Cell::Counted(|secret| size(secret, "data"))), AGE],
    ),
    ("", "serviceaccounts", &[NAME, column("Secrets", Cell::Counted(|account| size(account, "secrets"))), AGE]),
    (
        "",
        "resourcequotas",
        &[
            NAME,
            column("Request", Cell::Made(|quota, _| quota_of(quota, false))),
            column("Limit", Cell::Made(|quota, _| quota_of(quota, true))),
            AGE,
        ],
    ),
    ("", "limitranges", &[NAME, CREATED]),
    ("node.k8s.io", "runtimeclasses", &[NAME, column("Handler", Cell::Text("/handler")), AGE]),
    (
        "policy",
        "poddisruptionbudgets",
        &[
            NAME,
            column("Min Available", Cell::Made(|budget, _| not_applicable(budget, "minAvailable"))),
            column("Max Unavailable", Cell::Made(|budget, _| not_applicable(budget, "maxUnavailable"))),
            column("Allowed Disruptions", Cell::Number("/status/disruptionsAllowed")),
            AGE,
        ],
    ),
    (
        "scheduling.k8s.io",
        "priorityclasses",
        &[
            NAME,
            column("Value", Cell::Number("/value")),
            column("Global-Default", Cell::Made(|class, _| (class["globalDefault"] == true).to_string())),
            column("PreemptionPolicy", Cell::Text("/preemptionPolicy")),
            AGE,
        ],
    ),
    ("coordination.k8s.io", "leases", &[NAME, column("Holder", Cell::Text("/spec/holderIdentity")), AGE]),
    ("rbac.authorization.k8s.io", "roles", &[NAME, CREATED]),
    ("rbac.authorization.k8s.io", "clusterroles", &[NAME, CREATED]),
    ("rbac.authorization.k8s.io", "rolebindings", BINDINGS),
    ("rbac.authorization.k8s.io", "clusterrolebindings", BINDINGS),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", WEBHOOKS),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", WEBHOOKS),
    ("apiextensions.k8s.io", "customresourcedefinitions", &[NAME, CREATED]),
    (
        "apiregistration.k8s.io",
        "apiservices",
        &[
            NAME,
            column(
                "Service",
                Cell::Made(|api, _| match &api["spec"]["service"] {
                    service if service.is_object() => {
                        format!("{}/{}", text(service, "namespace"), text(service, "name"))
                    }
                    _ => "Local".to_owned(),
                }),
            ),
            column(
                "Available",
                Cell::Made(|api, _| {
                    condition(api, "Available").map_or("True", |condition| text(condition, "status")).to_owned()
                }),
            ),
            AGE,
        ],
    ),
];

const NODES: &[Column] = &[
    NAME,
    column("Status", Cell::Made(|node, _| node_status(node))),
    column("Roles", Cell::Made(|node, _| roles(node))),
    AGE,
    column("Version", Cell::Text("/status/nodeInfo/kubeletVersion")),
    wide("Internal-IP", Cell::Made(|node, _| address(node, "InternalIP"))),
    wide("External-IP", Cell::Made(|node, _| address(node, "ExternalIP"))),
    wide("OS-Image", Cell::Made(|node, _| unknown(text(&node["status"]["nodeInfo"], "osImage")))),
    wide("Kernel-Version", Cell::Made(|node, _| unknown(text(&node["status"]["nodeInfo"], "kernelVersion")))),
    wide(
        "Container-Runtime",
        Cell::Made(|node, _| unknown(text(&node["status"]["nodeInfo"], "containerRuntimeVersion"))),
    ),
];

const EVENTS: &[Column] = &[
    column("Last Seen", Cell::Made(last_seen)),
    column("Type", Cell::Text("/type")),
    column("Reason", Cell::Text("/reason")),
    column(
        "Object",
        Cell::Made(|event, _| {
            let object = if has(event, "regarding") { &event["regarding"] } else { &event["involvedObject"] };
            match (text(object, "kind").to_lowercase(), text(object, "name")) {
                (kind, "") => kind,
                (kind, name) => format!("{kind}/{name}"),
            }
        }),
    ),
    wide("Subobject", Cell::Text("/involvedObject/fieldPath")),
    wide("Source", Cell::Made(|event, _| source(event))),
    column(
        "Message",
        Cell::Made(|event, _| {
            let message = if has(event, "note") { text(event, "note") } else { text(event, "message") };
            message.trim().to_owned()
        }),
    ),
    wide("First Seen", Cell::Made(|event, now| age::since(first_time(event), now))),
    wide("Count", Cell::Counted(count)),
    wide("Name", Cell::Name),
];

const BINDINGS: &[Column] = &[
    NAME,
    column(
        "Role",
        Cell::Made(|binding, _| {
            let role = &binding["roleRef"];
            format!("{}/{}", text(role, "kind"), text(role, "name"))
        }),
    ),
    AGE,
    wide("Users", Cell::Made(|binding, _| subjects(binding, "User"))),
    wide("Groups", Cell::Made(|binding, _| subjects(binding, "Group"))),
    wide("ServiceAccounts", Cell::Made(|binding, _| subjects(binding, "ServiceAccount"))),
];

const WEBHOOKS: &[Column] = &[NAME, column("Webhooks", Cell::Counted(|config| size(config, "webhooks"))), AGE];

/// The columns of a resource.
pub(super) fn columns(group: &str, plural: &str) -> &'static [Column] {
    let found = LAYOUTS.iter().find(|(g, p, _)| *g == group && *p == plural);
    found.map_or(&[NAME, AGE], |(_, _, columns)| columns)
}

fn node_status(node: &Value) -> String {
    let ready = match condition(node, "Ready").map(|condition| text(condition, "status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    let cordoned = node["spec"]["unschedulable"] == true;
    format!("{ready}{}", if cordoned { ",SchedulingDisabled" } else { "" })
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = entries(&node["metadata"], "labels")
        .filter_map(|(label, value)| match label.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if label == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or_none(roles.join(","))
}

fn address(node: &Value, kind: &str) -> String {
    let found = array(&node["status"], "addresses").iter().find(|address| text(address, "type") == kind);
    or_none(found.map(|address| text(address, "address").to_owned()).unwrap_or_default())
}

fn unknown(text: &str) -> String {
    if text.is_empty() { "<unknown>" } else { text }.to_owned()
}

fn first_time(event: &Value) -> &Value {
    let keys = ["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"];
    keys.into_iter().find(|key| has(event, key)).map_or(&Value::Null, |key| &event[key])
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    let keys = ["lastTimestamp", "deprecatedLastTimestamp"];
    if has(&event["series"], "lastObservedTime") {
        return age::since(&event["series"]["lastObservedTime"], now);
    }
    match keys.into_iter().find(|key| has(event, key)) {
        Some(key) => age::since(&event[key], now),
        None => age::since(first_time(event), now),
    }
}

fn count(event: &Value) -> i64 {
    let count = integer(&event["series"], "count").or(integer(event, "count")).or(integer(event, "deprecatedCount"));
    count.unwrap_or(1).max(1)
}

fn source(event: &Value) -> String {
    let source = &event["source"];
    let pair = if text(source, "component").is_empty() {
        [text(event, "reportingComponent"), text(event, "reportingInstance")]
    } else {
        [text(source, "component"), text(source, "host")]
    };
    pair.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn subjects(binding: &Value, kind: &str) -> String {
    let names = array(binding, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
    let names: Vec<String> = names
        .map(|subject| match (kind, text(subject, "namespace")) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", text(subject, "name")),
            _ => text(subject, "name").to_owned(),
        })
        .collect();
    names.join(", ")
}

fn quota_of(quota: &Value, limits: bool) -> String {
    let status = &quota["status"];
    let hard = entries(status, "hard").filter(|(name, _)| name.starts_with("limits.") == limits);
    let pairs = hard.map(|(name, hard)| {
        let used = text(&status["used"], name);
        format!("{name}: {}/{}", if used.is_empty() { "0" } else { used }, hard.as_str().unwrap_or_default())
    });
    joined(pairs.collect::<Vec<_>>().iter().map(String::as_str)).replace(',', ", ")
}

fn not_applicable(budget: &Value, key: &str) -> String {
    match &budget["spec"][key] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "N/A".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::row;

    #[test]
    fn rows_read_like_those_of_kubernetes() {
        let metadata = json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let node = json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1", "osImage": "os"},
            },
        });
        assert_eq!(
            row("", "nodes", node),
            "n|Ready,SchedulingDisabled|control-plane,worker|60m|v1|10.0.0.1|<none>|os|<unknown>|<unknown>"
        );
        let event = json!({
            "metadata": metadata, "type": "Warning", "reason": "Failed", "message": " m\n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-01-01T00:59:30Z",
            "firstTimestamp": "2026-01-01T00:30:00Z", "source": {"component": "c", "host": "h"},
        });
        assert_eq!(row("", "events", event), "30s|Warning|Failed|pod/p||c, h|m|30m|3|x");
        let map = json!({"metadata": metadata, "data": {"a": "b"}, "binaryData": {"c": ""}});
        assert_eq!(row("", "configmaps", map), "x|2|60m");
        let budget =
            json!({"metadata": metadata, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}});
        assert_eq!(row("policy", "poddisruptionbudgets", budget), "x|50%|N/A|1|60m");
        let quota = json!({"metadata": metadata, "status": {"hard": {"pods": "2", "limits.cpu": "1", "services": "1"}, "used": {"pods": "1"}}});
        assert_eq!(row("", "resourcequotas", quota), "x|pods: 1/2, services: 0/1|limits.cpu: 0/1|60m");
    }
}
