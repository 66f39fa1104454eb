//! Rights: exactly what the code asks the API for.

use osc_objects::names::{NAMESPACE, kata, machine};
use serde_json::{Value, json};

use crate::{
    LEASE,
    webhook::{configuration::CONFIGURATION, keeper::SECRET},
};

/// Account of the operator. Its own, so that other pods of the namespace have no such rights.
pub(super) const ACCOUNT: &str = "controller-manager";
const ROLE: &str = "sandboxed-containers-operator";

/// Accounts, roles and bindings.
pub(super) fn objects() -> Vec<Value> {
    vec![
        account(ACCOUNT),
        monitor_account(),
        json!({"apiVersion": API, "kind": "ClusterRole", "metadata": {"name": ROLE}, "rules": cluster_rules()}),
        binding("ClusterRoleBinding", None, "ClusterRole"),
        role(NAMESPACE, namespace_rules()),
        binding("RoleBinding", Some(NAMESPACE), "Role"),
    ]
}

/// An account with rights in the whole cluster.
pub(super) fn of_account(name: &str, rules: Value) -> Vec<Value> {
    vec![
        account(name),
        json!({"apiVersion": API, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({
            "apiVersion": API,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }),
    ]
}

/// Rights of an account in the namespace it is in.
pub(super) fn in_our_namespace(name: &str, rules: Value) -> Vec<Value> {
    in_our_namespace_for(name, rules, json!({"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}))
}

/// Rights of `subject` in our namespace.
fn in_our_namespace_for(name: &str, rules: Value, subject: Value) -> Vec<Value> {
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    vec![
        json!({"apiVersion": API, "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": API,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [subject],
        }),
    ]
}

/// What is needed where the platform has a console.
pub(super) fn dashboard_objects() -> Vec<Value> {
    let rules =
        json!([rule("", &["configmaps"], &[], &["create"]), rule("", &["configmaps"], &[kata::DASHBOARD], &["get"]),]);
    vec![role(kata::DASHBOARD_NAMESPACE, rules), binding("RoleBinding", Some(kata::DASHBOARD_NAMESPACE), "Role")]
}

/// Lets the platform's Prometheus find what it scrapes.
pub(super) fn prometheus_objects() -> Vec<Value> {
    let rules = json!([rule("", &["services", "endpoints", "pods"], &[], &["get", "list", "watch"])]);
    let prometheus = json!({"kind": "ServiceAccount", "name": "prometheus-k8s", "namespace": "openshift-monitoring"});
    in_our_namespace_for("monitor-role", rules, prometheus)
}

const API: &str = "rbac.authorization.k8s.io/v1";

/// Rights in the whole cluster.
pub(super) fn cluster_rules() -> Value {
    let own = "kataconfiguration.openshift.io";
    let webhooks = "admissionregistration.k8s.io";
    json!([
        rule(own, &["kataconfigs"], &[], &["get", "list", "watch", "patch"]),
        rule(own, &["kataconfigs/status"], &[], &["update"]),
        rule(own, &["kataconfigs/finalizers"], &[], &["update"]),
        rule("", &["nodes"], &[], &["get", "list", "watch", "patch"]),
        rule("", &["pods"], &[], &["list", "watch"]),
        rule("", &["namespaces"], &[NAMESPACE], &["patch"]),
        rule(machine::GROUP, &["machineconfigs"], &[], &["get", "list", "watch", "create"]),
        rule(machine::GROUP, &["machineconfigs"], &[kata::EXTENSION_CONFIG, kata::IMAGE_CONFIG], &["delete"]),
        rule(machine::GROUP, &["machineconfigpools"], &[], &["get", "list", "watch", "create"]),
        rule(machine::GROUP, &["machineconfigpools"], &[kata::POOL], &["delete"]),
        rule(machine::GROUP, &["containerruntimeconfigs"], &[], &["get", "list", "watch", "create"]),
        rule(machine::GROUP, &["containerruntimeconfigs"], &[kata::LOG_LEVEL_CONFIG], &["patch", "delete"]),
        rule("node.k8s.io", &["runtimeclasses"], &[], &["get", "list", "watch", "create"]),
        rule("security.openshift.io", &["securitycontextconstraints"], &[], &["create"]),
        rule("security.openshift.io", &["securitycontextconstraints"], &[kata::SCC], &["get", "patch", "delete"]),
        rule(webhooks, &["validatingwebhookconfigurations"], &[], &["create"]),
        rule(webhooks, &["validatingwebhookconfigurations"], &[CONFIGURATION], &["get", "patch"]),
        rule("events.k8s.io", &["events"], &[], &["create", "patch"]),
    ])
}

/// Rights in the operator's namespace.
pub(super) fn namespace_rules() -> Value {
    json!([
        rule("", &["configmaps"], &[], &["get", "list", "watch"]),
        rule("", &["secrets"], &[], &["create"]),
        rule("", &["secrets"], &[SECRET], &["get", "update"]),
        rule("apps", &["daemonsets"], &[], &["list", "watch", "create"]),
        rule("apps", &["daemonsets"], &[kata::MONITOR], &["get", "patch", "delete"]),
        rule("coordination.k8s.io", &["leases"], &[], &["create"]),
        rule("coordination.k8s.io", &["leases"], &[LEASE], &["get", "update"]),
    ])
}

fn rule(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
    let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

/// Account of the monitor; it has no rights.
pub(super) fn monitor_account() -> Value {
    account("monitor")
}

pub(super) fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}})
}

fn role(namespace: &str, rules: Value) -> Value {
    json!({"apiVersion": API, "kind": "Role", "metadata": {"name": ROLE, "namespace": namespace}, "rules": rules})
}

fn binding(kind: &str, namespace: Option<&str>, role: &str) -> Value {
    let mut metadata = json!({"name": ROLE});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": API,
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    })
}
