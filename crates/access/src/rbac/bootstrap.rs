//! The roles and bindings every cluster begins with.
//!
//! `view`, `edit` and `admin` aggregate whatever is labelled for them, so that roles installed with custom resources
//! extend them; what they hold at first is in `system:aggregate-to-…`.

use serde_json::{Value, json};

use super::role::Kind;
use super::rule::Rule;
use crate::identity::{AUTHENTICATED, MASTERS, NODES, SERVICE_ACCOUNTS, UNAUTHENTICATED};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const EVENTS: &[&str] = &["create", "patch", "update"];
const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];
const ISSUER: &[&str] =
    &["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"];

const CORE_VIEWED: &[&str] = &[
    "bindings",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "namespaces/status",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "pods/log",
    "pods/status",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "replicationcontrollers/status",
    "resourcequotas",
    "resourcequotas/status",
    "serviceaccounts",
    "services",
    "services/status",
];
const CORE_EDITED: &[&str] = &[
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "pods",
    "pods/attach",
    "pods/exec",
    "pods/portforward",
    "pods/proxy",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "secrets",
    "serviceaccounts",
    "services",
    "services/proxy",
];
const APPS_VIEWED: &[&str] = &[
    "controllerrevisions",
    "daemonsets",
    "daemonsets/status",
    "deployments",
    "deployments/scale",
    "deployments/status",
    "replicasets",
    "replicasets/scale",
    "replicasets/status",
    "statefulsets",
    "statefulsets/scale",
    "statefulsets/status",
];
const APPS_EDITED: &[&str] = &[
    "daemonsets",
    "deployments",
    "deployments/rollback",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
];
const BATCH_VIEWED: &[&str] = &["cronjobs", "cronjobs/status", "jobs", "jobs/status"];
const NETWORK_VIEWED: &[&str] = &["ingresses", "ingresses/status", "networkpolicies"];

/// Every object with its kind, cluster roles first.
pub fn objects() -> Vec<(Kind, Value)> {
    let roles = cluster_roles().into_iter().map(|role| (Kind::ClusterRole, role));
    let bindings = cluster_role_bindings().into_iter().map(|binding| (Kind::ClusterRoleBinding, binding));
    roles.chain(bindings).collect()
}

fn cluster_roles() -> Vec<Value> {
    let mut roles = vec![
        role("cluster-admin", super::index::everything()),
        role("system:discovery", vec![Rule::on_paths(DISCOVERY, &["get"])]),
        role("system:public-info-viewer", vec![Rule::on_paths(PUBLIC, &["get"])]),
        role("system:service-account-issuer-discovery", vec![Rule::on_paths(ISSUER, &["get"])]),
        role("system:basic-user", basic_user()),
        role("system:auth-delegator", auth_delegator()),
        role("system:node", node()),
        role("system:kube-scheduler", scheduler()),
        role("system:monitoring", vec![Rule::on_paths(&["/metrics", "/livez/*", "/readyz/*", "/healthz/*"], &["get"])]),
        aggregating("view", Some("edit"), "view"),
        aggregating("edit", Some("admin"), "edit"),
        aggregating("admin", None, "admin"),
    ];
    let held = [("view", aggregate_to_view()), ("edit", aggregate_to_edit()), ("admin", aggregate_to_admin())];
    roles.extend(held.into_iter().map(|(name, rules)| {
        let mut role = role(&format!("system:aggregate-to-{name}"), rules);
        role["metadata"]["labels"][aggregate_label(name)] = json!("true");
        role
    }));
    roles
}

fn cluster_role_bindings() -> Vec<Value> {
    vec![
        binding("cluster-admin", &[("Group", MASTERS)]),
        binding("system:discovery", &[("Group", AUTHENTICATED)]),
        binding("system:basic-user", &[("Group", AUTHENTICATED)]),
        binding("system:public-info-viewer", &[("Group", AUTHENTICATED), ("Group", UNAUTHENTICATED)]),
        binding("system:service-account-issuer-discovery", &[("Group", SERVICE_ACCOUNTS)]),
        binding("system:node", &[("Group", NODES)]),
        binding("system:kube-scheduler", &[("User", "system:kube-scheduler")]),
        binding("system:monitoring", &[("Group", "system:monitoring")]),
    ]
}

fn basic_user() -> Vec<Rule> {
    vec![
        Rule::on(&["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
        Rule::on(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
    ]
}

fn auth_delegator() -> Vec<Rule> {
    vec![
        Rule::on(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        Rule::on(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
    ]
}

/// What a node agent does. Which of these objects are its own business is for admission to check.
fn node() -> Vec<Rule> {
    let mut rules = auth_delegator();
    rules.extend([
        Rule::on(&[""], &["services", "configmaps", "secrets", "persistentvolumeclaims", "persistentvolumes"], READ),
        Rule::on(&[""], &["serviceaccounts"], &["get"]),
        Rule::on(&[""], &["serviceaccounts/token", "pods/eviction"], &["create"]),
        Rule::on(&[""], &["nodes"], &["create", "get", "list", "patch", "update", "watch"]),
        Rule::on(&[""], &["nodes/status", "pods/status"], &["patch", "update"]),
        Rule::on(&[""], &["pods"], &["create", "delete", "get", "list", "watch"]),
        Rule::on(&[""], &["persistentvolumeclaims/status"], &["get", "patch", "update"]),
        Rule::on(&["", "events.k8s.io"], &["events"], EVENTS),
        Rule::on(&["coordination.k8s.io"], &["leases"], &["create", "delete", "get", "patch", "update"]),
        Rule::on(&["node.k8s.io"], &["runtimeclasses"], READ),
        Rule::on(&["storage.k8s.io"], &["csidrivers", "volumeattachments"], READ),
        Rule::on(&["storage.k8s.io"], &["csinodes"], &["create", "delete", "get", "patch", "update"]),
        Rule::on(&["certificates.k8s.io"], &["certificatesigningrequests"], &["create", "get", "list", "watch"]),
    ]);
    rules
}

fn scheduler() -> Vec<Rule> {
    let mut rules = auth_delegator();
    rules.extend([
        Rule::on(&["", "events.k8s.io"], &["events"], EVENTS),
        Rule::on(&["coordination.k8s.io"], &["leases"], &["create", "get", "list", "patch", "update", "watch"]),
        Rule::on(&[""], &["nodes", "namespaces", "replicationcontrollers", "services"], READ),
        Rule::on(&[""], &["pods"], &["delete", "get", "list", "watch"]),
        Rule::on(&[""], &["bindings", "pods/binding"], &["create"]),
        Rule::on(&[""], &["pods/status"], &["patch", "update"]),
        Rule::on(&[""], &["persistentvolumeclaims", "persistentvolumes"], &["get", "list", "patch", "update", "watch"]),
        Rule::on(&["apps"], &["replicasets", "statefulsets"], READ),
        Rule::on(&["policy"], &["poddisruptionbudgets"], READ),
        Rule::on(
            &["storage.k8s.io"],
            &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"],
            READ,
        ),
    ]);
    rules
}

fn aggregate_to_view() -> Vec<Rule> {
    vec![
        Rule::on(&[""], CORE_VIEWED, READ),
        Rule::on(&["apps"], APPS_VIEWED, READ),
        Rule::on(&["batch"], BATCH_VIEWED, READ),
        Rule::on(&["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"], READ),
        Rule::on(&["discovery.k8s.io"], &["endpointslices"], READ),
        Rule::on(&["events.k8s.io"], &["events"], READ),
        Rule::on(&["networking.k8s.io"], NETWORK_VIEWED, READ),
        Rule::on(&["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"], READ),
    ]
}

fn aggregate_to_edit() -> Vec<Rule> {
    vec![
        Rule::on(&[""], CORE_EDITED, WRITE),
        // What these open is as good as writing.
        Rule::on(
            &[""],
            &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
            READ,
        ),
        Rule::on(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]),
        Rule::on(&[""], &["serviceaccounts"], &["impersonate"]),
        Rule::on(&["apps"], APPS_EDITED, WRITE),
        Rule::on(&["autoscaling"], &["horizontalpodautoscalers"], WRITE),
        Rule::on(&["batch"], &["cronjobs", "jobs"], WRITE),
        Rule::on(&["coordination.k8s.io"], &["leases"], READ_WRITE),
        Rule::on(&["networking.k8s.io"], &["ingresses", "networkpolicies"], WRITE),
        Rule::on(&["policy"], &["poddisruptionbudgets"], WRITE),
    ]
}

fn aggregate_to_admin() -> Vec<Rule> {
    vec![
        Rule::on(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
        Rule::on(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], READ_WRITE),
    ]
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
    })
}

fn role(name: &str, rules: Vec<Rule>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": metadata(name),
        "rules": rules,
    })
}

fn aggregate_label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

/// A role that holds what is labelled for `own`, and is itself part of `into`.
fn aggregating(name: &str, into: Option<&str>, own: &str) -> Value {
    let mut role = role(name, Vec::new());
    if let Some(into) = into {
        role["metadata"]["labels"][aggregate_label(into)] = json!("true");
    }
    let label = aggregate_label(own);
    role["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": { label: "true" } }] });
    role
}

/// Binds the cluster role of the same name.
fn binding(name: &str, subjects: &[(&str, &str)]) -> Value {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|(kind, name)| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name }))
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(name),
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": subjects,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::rbac::{Attributes, Authorizer};

    fn authorizer() -> Authorizer {
        let authorizer = Authorizer::new();
        for (kind, object) in objects() {
            authorizer.put(kind, &object).unwrap();
        }
        for name in ["view", "edit", "admin"] {
            let mut given = binding(name, &[("User", name)]);
            given["metadata"]["name"] = json!(format!("test-{name}"));
            authorizer.put(Kind::ClusterRoleBinding, &given).unwrap();
        }
        authorizer
    }

    #[test]
    fn everybody_may_what_the_first_roles_say() {
        let authorizer = authorizer();
        let user = |name: &str| Identity::new(name, ["x"]);
        let on = |verb, group, resource| Attributes::resource(verb, group, resource, "ns", "");
        let rows = [
            (Identity::anonymous(), Attributes::path("get", "/version"), true),
            (Identity::anonymous(), Attributes::path("get", "/api"), false),
            (Identity::anonymous(), on("list", "", "pods"), false),
            (user("bob"), Attributes::path("get", "/openapi/v3"), true),
            (user("bob"), on("create", "authorization.k8s.io", "selfsubjectaccessreviews"), true),
            (user("bob"), on("list", "", "pods"), false),
            (user("view"), on("list", "", "pods"), true),
            (user("view"), on("get", "", "pods").on_subresource("log"), true),
            (user("view"), on("list", "", "secrets"), false),
            (user("view"), on("create", "", "pods"), false),
            (user("edit"), on("list", "", "pods"), true),
            (user("edit"), on("create", "", "pods").on_subresource("exec"), true),
            (user("edit"), on("list", "", "secrets"), true),
            (user("edit"), on("create", "rbac.authorization.k8s.io", "roles"), false),
            (user("admin"), on("create", "rbac.authorization.k8s.io", "roles"), true),
            (user("admin"), on("delete", "apps", "deployments"), true),
            (user("admin"), on("list", "", "nodes"), false),
            (user("admin"), on("update", "", "resourcequotas"), false),
            (Identity::node("n"), on("update", "", "nodes").on_subresource("status"), true),
            (Identity::node("n"), on("create", "", "serviceaccounts").on_subresource("token"), true),
            (Identity::node("n"), on("delete", "", "secrets"), false),
            (user("system:kube-scheduler"), on("create", "", "pods").on_subresource("binding"), true),
            (Identity::service_account("a", "b", ""), Attributes::path("get", "/openid/v1/jwks"), true),
        ];
        for (identity, action, want) in rows {
            assert_eq!(authorizer.authorize(&identity, &action).is_allowed(), want, "{} {action:?}", identity.user);
        }
    }

    #[test]
    fn every_binding_has_its_role_and_names_are_unique() {
        let mut names = std::collections::HashSet::new();
        let objects = objects();
        for (kind, object) in &objects {
            assert!(names.insert((kind.plural(), object["metadata"]["name"].clone())), "{object}");
        }
        for (_, binding) in objects.iter().filter(|(kind, _)| *kind == Kind::ClusterRoleBinding) {
            assert!(names.contains(&("clusterroles", binding["roleRef"]["name"].clone())), "{binding}");
        }
    }
}
