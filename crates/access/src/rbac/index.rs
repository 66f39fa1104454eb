//! The index of roles and bindings, and the decision.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;

use super::attributes::{Attributes, Target};
use super::role::{Binding, Kind, Malformed, Metadata, Role, RoleRef, parse};
use super::rule::Rule;
use crate::identity::{Identity, MASTERS};

/// Decides from an index of roles and bindings kept in memory.
#[derive(Debug, Default)]
pub struct Authorizer {
    index: RwLock<Index>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead.
    Allowed {
        /// Which binding allows it, for reviews.
        reason: String,
    },
    /// No rule allows it.
    Denied {
        /// The message of the 403.
        message: String,
        /// Bindings to roles that do not exist, which may be the cause.
        reason: String,
    },
}

impl Decision {
    /// Whether to go ahead.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed { .. })
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    cluster_roles: BTreeMap<String, Role>,
    cluster_bindings: BTreeMap<String, Binding>,
    /// By namespace, then name, as are the bindings.
    roles: HashMap<String, BTreeMap<String, Role>>,
    bindings: HashMap<String, BTreeMap<String, Binding>>,
}

impl Authorizer {
    /// Knows no role yet: only members of `system:masters` may do anything.
    pub fn new() -> Authorizer {
        Authorizer::default()
    }

    /// Takes in an object that was created or changed.
    pub fn put(&self, kind: Kind, object: &Value) -> Result<(), Malformed> {
        self.write().put(kind, object)
    }

    /// Takes in all objects of a kind, and forgets those that are not among them: for whoever lost track of changes.
    /// An object that is malformed grants nothing; the first such is told.
    pub fn replace<'a>(&self, kind: Kind, objects: impl IntoIterator<Item = &'a Value>) -> Result<(), Malformed> {
        let mut fresh = Index::default();
        let mut first = Ok(());
        for object in objects {
            let put = fresh.put(kind, object);
            first = first.and(put);
        }
        let mut index = self.write();
        match kind {
            Kind::ClusterRole => index.cluster_roles = fresh.cluster_roles,
            Kind::ClusterRoleBinding => index.cluster_bindings = fresh.cluster_bindings,
            Kind::Role => index.roles = fresh.roles,
            Kind::RoleBinding => index.bindings = fresh.bindings,
        }
        first
    }

    /// Forgets an object that was deleted.
    pub fn remove(&self, kind: Kind, namespace: &str, name: &str) {
        let mut index = self.write();
        match kind {
            Kind::ClusterRole => {
                index.cluster_roles.remove(name);
            }
            Kind::ClusterRoleBinding => {
                index.cluster_bindings.remove(name);
            }
            Kind::Role => remove_from(&mut index.roles, namespace, name),
            Kind::RoleBinding => remove_from(&mut index.bindings, namespace, name),
        }
    }

    /// Whether `identity` may do this.
    pub fn authorize(&self, identity: &Identity, action: &Attributes<'_>) -> Decision {
        if identity.is_in(MASTERS) {
            return Decision::Allowed { reason: String::new() };
        }
        let namespace = match action.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        let index = self.read();
        let mut missing = Vec::new();
        for grant in index.grants(identity, namespace) {
            match index.rules_of(&grant.binding.role_ref, &grant.binding.metadata.namespace) {
                Some(rules) if rules.iter().any(|rule| rule.allows(action)) => {
                    return Decision::Allowed { reason: grant.reason() };
                }
                Some(_) => {}
                None => missing.push(missing_role(&grant.binding.role_ref)),
            }
        }
        let mut message = action.forbidden(identity);
        let mut reason = String::new();
        if !missing.is_empty() {
            missing.dedup();
            let list = if missing.len() == 1 { missing.remove(0) } else { format!("[{}]", missing.join(", ")) };
            reason = format!("RBAC: {list}");
            message = format!("{message}: {reason}");
        }
        Decision::Denied { message, reason }
    }

    /// All rules of `identity` within `namespace`, for SelfSubjectRulesReview.
    pub fn rules_for(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let index = self.read();
        let mut rules = if identity.is_in(MASTERS) { everything() } else { Vec::new() };
        for grant in index.grants(identity, namespace) {
            let granted = index.rules_of(&grant.binding.role_ref, &grant.binding.metadata.namespace);
            rules.extend(granted.into_iter().flatten().cloned());
        }
        rules
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Index> {
        // Every change is one insertion or removal: a panic elsewhere leaves no half of one behind.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules of somebody who may do everything.
pub(super) fn everything() -> Vec<Rule> {
    vec![Rule::on(&["*"], &["*"], &["*"]), Rule::on_paths(&["*"], &["*"])]
}

/// A binding that names an identity.
struct Grant<'a> {
    kind: &'static str,
    binding: &'a Binding,
}

impl Grant<'_> {
    fn reason(&self) -> String {
        let Binding { metadata, role_ref, .. } = self.binding;
        let slash = if metadata.namespace.is_empty() { "" } else { "/" };
        let place = format!("{}{slash}{}", metadata.name, metadata.namespace);
        format!("RBAC: allowed by {} \"{place}\" of {} \"{}\"", self.kind, role_ref.kind, role_ref.name)
    }
}

impl Index {
    fn put(&mut self, kind: Kind, object: &Value) -> Result<(), Malformed> {
        match kind {
            Kind::ClusterRole => {
                let role: Role = parse(kind, object)?;
                self.cluster_roles.insert(role.metadata.name.clone(), role);
            }
            Kind::Role => {
                let role: Role = parse(kind, object)?;
                let Metadata { name, namespace, .. } = &role.metadata;
                self.roles.entry(namespace.clone()).or_default().insert(name.clone(), role);
            }
            Kind::ClusterRoleBinding => {
                let binding: Binding = parse(kind, object)?;
                self.cluster_bindings.insert(binding.metadata.name.clone(), binding);
            }
            Kind::RoleBinding => {
                let binding: Binding = parse(kind, object)?;
                let Metadata { name, namespace, .. } = &binding.metadata;
                self.bindings.entry(namespace.clone()).or_default().insert(name.clone(), binding);
            }
        }
        Ok(())
    }

    fn grants<'a>(&'a self, identity: &'a Identity, namespace: &str) -> impl Iterator<Item = Grant<'a>> {
        let everywhere = self.cluster_bindings.values().map(|binding| Grant { kind: "ClusterRoleBinding", binding });
        let here = self.bindings.get(namespace).into_iter().flat_map(BTreeMap::values);
        let here = here.map(|binding| Grant { kind: "RoleBinding", binding });
        everywhere.chain(here).filter(move |grant| grant.binding.names(identity))
    }

    /// The rules behind a reference from a binding in `namespace` (empty for cluster bindings); nothing when the role
    /// does not exist.
    pub fn rules_of(&self, reference: &RoleRef, namespace: &str) -> Option<Vec<&Rule>> {
        match reference.kind.as_str() {
            "Role" => Some(self.roles.get(namespace)?.get(&reference.name)?.rules().iter().collect()),
            "ClusterRole" => {
                let role = self.cluster_roles.get(&reference.name)?;
                let mut rules = Vec::new();
                self.collect(role, &mut HashSet::new(), &mut rules);
                Some(rules)
            }
            _ => None,
        }
    }

    /// An aggregating role has the rules of those it selects, whatever its own list says: that is only a copy of them,
    /// perhaps of yesterday. `seen` ends circles.
    fn collect<'a>(&'a self, role: &'a Role, seen: &mut HashSet<&'a str>, rules: &mut Vec<&'a Rule>) {
        if !seen.insert(&role.metadata.name) {
            return;
        }
        let Some(selectors) = role.selectors() else {
            rules.extend(role.rules());
            return;
        };
        for other in self.cluster_roles.values() {
            if selectors.iter().any(|selector| selector.matches(other)) {
                self.collect(other, seen, rules);
            }
        }
    }
}

pub(super) fn missing_role(reference: &RoleRef) -> String {
    format!("{}.rbac.authorization.k8s.io {:?} not found", reference.kind.to_lowercase(), reference.name)
}

fn remove_from<T>(objects: &mut HashMap<String, BTreeMap<String, T>>, namespace: &str, name: &str) {
    if let Some(own) = objects.get_mut(namespace) {
        own.remove(name);
        if own.is_empty() {
            objects.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(name: &str, namespace: &str, resource: &str, verbs: &[&str]) -> Value {
        json!({
            "metadata": { "name": name, "namespace": namespace, "labels": { "to-sum": resource } },
            "rules": [{ "apiGroups": [""], "resources": [resource], "verbs": verbs }],
        })
    }

    fn binding(name: &str, namespace: &str, role: (&str, &str), subject: Value) -> Value {
        json!({
            "metadata": { "name": name, "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1 },
            "subjects": [subject],
        })
    }

    fn authorizer() -> Authorizer {
        let authorizer = Authorizer::new();
        let put = |kind, object| authorizer.put(kind, &object).unwrap();
        put(Kind::ClusterRole, role("read-pods", "", "pods", &["get", "list"]));
        put(Kind::ClusterRole, role("read-nodes", "", "nodes", &["get"]));
        put(Kind::Role, role("edit-secrets", "a", "secrets", &["update"]));
        put(
            Kind::ClusterRole,
            json!({ "metadata": { "name": "sum" }, "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }],
                "aggregationRule": { "clusterRoleSelectors": [
                    { "matchLabels": { "to-sum": "pods" } },
                    { "matchExpressions": [{ "key": "to-sum", "operator": "In", "values": ["nodes"] }] },
                ] } }),
        );
        let user = |name: &str| json!({ "kind": "User", "name": name });
        put(Kind::ClusterRoleBinding, binding("1", "", ("ClusterRole", "read-nodes"), user("jane")));
        put(Kind::RoleBinding, binding("2", "a", ("ClusterRole", "read-pods"), user("jane")));
        put(Kind::RoleBinding, binding("3", "a", ("Role", "edit-secrets"), json!({ "kind": "Group", "name": "dev" })));
        put(Kind::ClusterRoleBinding, binding("4", "", ("ClusterRole", "sum"), user("sum")));
        put(
            Kind::RoleBinding,
            binding("5", "a", ("ClusterRole", "read-pods"), json!({ "kind": "ServiceAccount", "name": "robot" })),
        );
        put(Kind::ClusterRoleBinding, binding("6", "", ("ClusterRole", "gone"), user("ghost")));
        authorizer
    }

    #[test]
    fn bindings_decide_where_rules_hold() {
        let authorizer = authorizer();
        let jane = Identity::new("jane", ["x"]);
        let dev = Identity::new("someone", ["dev"]);
        let sum = Identity::new("sum", ["x"]);
        let robot = Identity::service_account("a", "robot", "");
        let foreign_robot = Identity::service_account("b", "robot", "");
        let master = Identity::administrator();
        let rows = [
            (&jane, "get", "nodes", "", true),
            (&jane, "delete", "nodes", "", false),
            (&jane, "list", "pods", "a", true),
            (&jane, "list", "pods", "b", false),
            (&jane, "list", "pods", "", false),
            (&jane, "update", "secrets", "a", false),
            (&dev, "update", "secrets", "a", true),
            (&dev, "update", "secrets", "b", false),
            (&sum, "list", "pods", "b", true),
            (&sum, "get", "nodes", "", true),
            (&sum, "update", "secrets", "a", false),
            (&robot, "get", "pods", "a", true),
            (&robot, "get", "pods", "b", false),
            (&foreign_robot, "get", "pods", "a", false),
            (&master, "anything", "at all", "b", true),
        ];
        for (identity, verb, resource, namespace, want) in rows {
            let action = Attributes::resource(verb, "", resource, namespace, "");
            let seen = authorizer.authorize(identity, &action);
            assert_eq!(seen.is_allowed(), want, "{} {verb} {resource} {namespace}: {seen:?}", identity.user);
        }
    }

    #[test]
    fn changes_count_at_once() {
        let authorizer = authorizer();
        let jane = Identity::new("jane", ["x"]);
        let nodes = Attributes::resource("get", "", "nodes", "", "n");
        let pods = Attributes::resource("get", "", "pods", "a", "p");
        authorizer.remove(Kind::ClusterRoleBinding, "", "1");
        assert!(!authorizer.authorize(&jane, &nodes).is_allowed());
        assert!(authorizer.authorize(&jane, &pods).is_allowed());
        authorizer.put(Kind::ClusterRole, &role("read-pods", "", "services", &["get"])).unwrap();
        assert!(!authorizer.authorize(&jane, &pods).is_allowed());
        authorizer.remove(Kind::RoleBinding, "a", "2");
        authorizer.remove(Kind::RoleBinding, "nowhere", "2");
        assert!(authorizer.rules_for(&jane, "a").is_empty());
    }

    #[test]
    fn a_fresh_list_replaces_what_was_known() {
        let authorizer = authorizer();
        let jane = Identity::new("jane", ["x"]);
        let (nodes, pods) =
            (Attributes::resource("get", "", "nodes", "", "n"), Attributes::resource("get", "", "pods", "a", "p"));
        let kept = binding("7", "", ("ClusterRole", "read-pods"), json!({ "kind": "User", "name": "jane" }));
        assert!(authorizer.replace(Kind::ClusterRoleBinding, [&kept, &json!({ "subjects": 1 })]).is_err());
        assert!(!authorizer.authorize(&jane, &nodes).is_allowed(), "its binding is gone");
        authorizer.replace(Kind::RoleBinding, []).unwrap();
        assert!(authorizer.authorize(&jane, &pods).is_allowed(), "by the new binding");
    }

    #[test]
    fn answers_give_their_reason() {
        let authorizer = authorizer();
        let pods = Attributes::resource("get", "", "pods", "a", "");
        let Decision::Allowed { reason } = authorizer.authorize(&Identity::new("jane", ["x"]), &pods) else { panic!() };
        assert_eq!(reason, r#"RBAC: allowed by RoleBinding "2/a" of ClusterRole "read-pods""#);
        let seen = authorizer.authorize(&Identity::new("ghost", ["x"]), &pods);
        let Decision::Denied { message, reason } = seen else { panic!() };
        assert_eq!(reason, r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#);
        assert!(message.ends_with(&format!(r#"in the namespace "a": {reason}"#)), "{message}");
    }

    #[test]
    fn circles_of_aggregation_end() {
        let authorizer = Authorizer::new();
        let circle = |name: &str| {
            json!({ "metadata": { "name": name, "labels": { "in": "circle" } },
                "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "in": "circle" } }] } })
        };
        authorizer.put(Kind::ClusterRole, &circle("x")).unwrap();
        authorizer.put(Kind::ClusterRole, &circle("y")).unwrap();
        let jane = json!({ "kind": "User", "name": "jane" });
        authorizer.put(Kind::ClusterRoleBinding, &binding("b", "", ("ClusterRole", "x"), jane)).unwrap();
        assert!(authorizer.rules_for(&Identity::new("jane", ["x"]), "").is_empty());
    }

    #[test]
    fn malformed_objects_are_refused() {
        let authorizer = Authorizer::new();
        assert!(authorizer.put(Kind::Role, &json!({ "rules": 3 })).is_err());
        assert!(authorizer.put(Kind::RoleBinding, &json!("x")).is_err());
    }
}
