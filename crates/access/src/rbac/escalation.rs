//! Nobody hands out permissions they do not hold.
//!
//! Writing a role needs every permission in it, or the verb `escalate` on it. Writing a binding needs every
//! permission of the role it refers to, or the verb `bind` on that role.

use serde_json::Value;

use super::attributes::Attributes;
use super::compact::{describe, quoted};
use super::index::{Authorizer, everything, missing_role};
use super::role::{Binding, Kind, Malformed, Metadata, Role, RoleRef, parse};
use super::rule::Rule;
use crate::identity::{Identity, MASTERS};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Most permissions that are compared one by one; the largest role known has some thousand.
const MOST_PARTS: usize = 20_000;

/// Why a role or binding may not be written.
#[derive(Debug, thiserror::Error)]
pub enum Escalation {
    /// It would give permissions that the user lacks: answer 403 with this message.
    #[error("{message}")]
    Denied {
        /// The whole message.
        message: String,
    },
    /// The binding refers to a role that does not exist: answer 404 with this message.
    #[error("{message}")]
    RoleNotFound {
        /// The whole message.
        message: String,
    },
    /// The object is not of its kind: answer 400.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Authorizer {
    /// Whether `identity` may write `object`, which replaces `old`. Beyond this, it needs the ordinary permission to
    /// create or change the object.
    pub fn check_escalation(
        &self,
        identity: &Identity,
        kind: Kind,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Escalation> {
        let granting = match kind {
            Kind::Role | Kind::ClusterRole => ["rules", "aggregationRule"],
            Kind::RoleBinding | Kind::ClusterRoleBinding => ["roleRef", "subjects"],
        };
        let unchanged = |field: &&str| old.is_some_and(|old| old.get(*field) == object.get(*field));
        if identity.is_in(MASTERS) || granting.iter().all(unchanged) {
            return Ok(());
        }
        let wish = Wish::of(kind, object)?;
        let (namespace, name) = (wish.metadata().namespace.as_str(), wish.metadata().name.as_str());
        let (verb, plural, role) = wish.pass(kind);
        if self.authorize(identity, &Attributes::resource(verb, GROUP, plural, namespace, role)).is_allowed() {
            return Ok(());
        }
        self.confirm(identity, kind, namespace, name, &self.wanted(&wish)?)
    }

    /// All that an object gives.
    fn wanted(&self, wish: &Wish) -> Result<Vec<Rule>, Escalation> {
        match wish {
            // What an aggregating role will hold is up to whoever labels other roles: only full power may allow that.
            Wish::Role(role) if role.selectors().is_some() => Ok(everything()),
            Wish::Role(role) => Ok(role.rules().to_vec()),
            Wish::Binding(Binding { metadata, role_ref, .. }) => {
                match self.read().rules_of(role_ref, &metadata.namespace) {
                    Some(rules) => Ok(rules.into_iter().cloned().collect()),
                    None => Err(Escalation::RoleNotFound { message: missing_role_plural(role_ref) }),
                }
            }
        }
    }

    fn confirm(
        &self,
        identity: &Identity,
        kind: Kind,
        namespace: &str,
        name: &str,
        wanted: &[Rule],
    ) -> Result<(), Escalation> {
        let target = Attributes::resource("", GROUP, kind.plural(), namespace, name);
        let count = wanted.iter().map(Rule::part_count).fold(0, usize::saturating_add);
        if count > MOST_PARTS {
            let why = format!("it holds {count} permissions, of which at most {MOST_PARTS} can be checked: split it");
            return Err(Escalation::Denied { message: target.is_forbidden(&why) });
        }
        let held = self.rules_for(identity, namespace);
        let missing: Vec<Rule> =
            wanted.iter().flat_map(Rule::parts).filter(|part| !held.iter().any(|own| own.covers(part))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            identity.user,
            quoted(&identity.groups),
            describe(missing)
        );
        Err(Escalation::Denied { message: target.is_forbidden(&why) })
    }
}

/// An object by which somebody gives permissions.
enum Wish {
    Role(Role),
    Binding(Binding),
}

impl Wish {
    fn of(kind: Kind, object: &Value) -> Result<Self, Malformed> {
        Ok(match kind {
            Kind::Role | Kind::ClusterRole => Self::Role(parse(kind, object)?),
            Kind::RoleBinding | Kind::ClusterRoleBinding => Self::Binding(parse(kind, object)?),
        })
    }

    fn metadata(&self) -> &Metadata {
        match self {
            Self::Role(role) => &role.metadata,
            Self::Binding(binding) => &binding.metadata,
        }
    }

    /// What lets everything pass: a verb, and the role it must be allowed on.
    fn pass(&self, kind: Kind) -> (&'static str, &'static str, &str) {
        match self {
            Self::Role(role) => ("escalate", kind.plural(), &role.metadata.name),
            Self::Binding(Binding { role_ref, .. }) => {
                ("bind", if role_ref.kind == "Role" { "roles" } else { "clusterroles" }, &role_ref.name)
            }
        }
    }
}

/// Like the message for a missing object, which names the plural.
fn missing_role_plural(reference: &RoleRef) -> String {
    missing_role(reference).replacen('.', "s.", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Jane may read pods and secrets named `s`, and handle all roles and bindings of namespace `a`.
    fn authorizer(extra: &[Value]) -> Authorizer {
        let authorizer = Authorizer::new();
        let mut rules = vec![
            json!({ "apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"] }),
            json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"], "verbs": ["get"] }),
            json!({ "apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["*"] }),
            json!({ "nonResourceURLs": ["/metrics/*"], "verbs": ["get"] }),
        ];
        rules.extend_from_slice(extra);
        let own = json!({ "metadata": { "name": "own" }, "rules": rules });
        authorizer.put(Kind::ClusterRole, &own).unwrap();
        let admin = json!({ "metadata": { "name": "all" }, "rules": [
            { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] });
        authorizer.put(Kind::ClusterRole, &admin).unwrap();
        let binding = json!({ "metadata": { "name": "b" }, "roleRef": { "kind": "ClusterRole", "name": "own" },
            "subjects": [{ "kind": "User", "name": "jane" }] });
        authorizer.put(Kind::ClusterRoleBinding, &binding).unwrap();
        authorizer
    }

    fn role(rules: Value) -> Value {
        json!({ "metadata": { "name": "r", "namespace": "a" }, "rules": rules })
    }

    fn jane() -> Identity {
        Identity::new("jane", ["dev"])
    }

    #[test]
    fn a_role_needs_every_permission_in_it() {
        let authorizer = authorizer(&[]);
        let rows = [
            (json!([]), true),
            (json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }]), true),
            (json!([{ "apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["list", "get"] }]), true),
            (json!([{ "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"], "verbs": ["get"] }]), true),
            (json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["*"] }]), false),
            (json!([{ "apiGroups": [""], "resources": ["*"], "verbs": ["get"] }]), false),
            (json!([{ "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"] }]), false),
            (json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"], "verbs": ["get"] }]), true),
            (json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["t"], "verbs": ["get"] }]), false),
            (json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }]), false),
            (json!([{ "apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"] }]), true),
            (json!([{ "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"] }]), false),
            (json!([{ "nonResourceURLs": ["/metrics/cpu"], "verbs": ["get"] }]), true),
            (json!([{ "nonResourceURLs": ["/metrics/*"], "verbs": ["get"] }]), true),
            (json!([{ "nonResourceURLs": ["/metrics*"], "verbs": ["get"] }]), false),
        ];
        for (rules, want) in rows {
            let seen = authorizer.check_escalation(&jane(), Kind::Role, &role(rules.clone()), None);
            assert_eq!(seen.is_ok(), want, "{rules}: {seen:?}");
        }
    }

    #[test]
    fn the_message_lists_what_is_missing() {
        let object =
            role(json!([{ "apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "delete", "watch"] }]));
        let seen = authorizer(&[]).check_escalation(&jane(), Kind::Role, &object, None).unwrap_err().to_string();
        let want = concat!(
            r#"roles.rbac.authorization.k8s.io "r" is forbidden: user "jane" (groups=["dev" "system:authenticated"]) "#,
            "is attempting to grant RBAC permissions not currently held:\n",
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#,
            "\n",
            r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "delete" "watch"]}"#,
        );
        assert_eq!(seen, want);
    }

    #[test]
    fn escalate_and_bind_lift_the_rule() {
        let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
        let binding = json!({ "metadata": { "name": "b", "namespace": "a" },
            "roleRef": { "kind": "ClusterRole", "name": "all" }, "subjects": [] });
        let may =
            |verb: &str, resource: &str| json!({ "apiGroups": [GROUP], "resources": [resource], "verbs": [verb] });
        for (extra, role_allowed, binding_allowed) in [
            (vec![], false, false),
            (vec![may("escalate", "roles")], true, false),
            (vec![may("bind", "clusterroles")], false, true),
            (vec![may("bind", "roles")], false, false),
            (vec![may("*", "*")], true, true),
        ] {
            let authorizer = authorizer(&extra);
            let seen = authorizer.check_escalation(&jane(), Kind::Role, &role(all.clone()), None);
            assert_eq!(seen.is_ok(), role_allowed, "role {extra:?}");
            let seen = authorizer.check_escalation(&jane(), Kind::RoleBinding, &binding, None);
            assert_eq!(seen.is_ok(), binding_allowed, "binding {extra:?}");
            let master = Identity::administrator();
            assert!(authorizer.check_escalation(&master, Kind::RoleBinding, &binding, None).is_ok());
        }
    }

    #[test]
    fn unchanged_rules_and_bindings_need_no_permission() {
        let authorizer = authorizer(&[]);
        let all = role(json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]));
        let mut labelled = all.clone();
        labelled["metadata"]["labels"] = json!({ "a": "b" });
        assert!(authorizer.check_escalation(&jane(), Kind::Role, &labelled, Some(&all)).is_ok());
        let aggregate = json!({ "metadata": { "name": "r" }, "aggregationRule": { "clusterRoleSelectors": [] } });
        assert!(authorizer.check_escalation(&jane(), Kind::ClusterRole, &aggregate, None).is_err());
        let bound = json!({ "metadata": { "name": "b" }, "roleRef": { "kind": "ClusterRole", "name": "all" },
            "subjects": [{ "kind": "User", "name": "x" }] });
        let mut wider = bound.clone();
        wider["subjects"][0]["name"] = json!("jane");
        assert!(authorizer.check_escalation(&jane(), Kind::ClusterRoleBinding, &bound, Some(&bound)).is_ok());
        assert!(authorizer.check_escalation(&jane(), Kind::ClusterRoleBinding, &wider, Some(&bound)).is_err());
    }

    #[test]
    fn a_binding_to_nothing_is_told_apart() {
        let binding = json!({ "metadata": { "name": "b", "namespace": "a" }, "subjects": [],
            "roleRef": { "kind": "Role", "name": "none" } });
        let seen = authorizer(&[]).check_escalation(&jane(), Kind::RoleBinding, &binding, None).unwrap_err();
        assert!(matches!(seen, Escalation::RoleNotFound { .. }));
        assert_eq!(seen.to_string(), r#"roles.rbac.authorization.k8s.io "none" not found"#);
    }

    #[test]
    fn the_work_for_one_role_is_bounded() {
        let many: Vec<String> = (0..200).map(|n| format!("x{n}")).collect();
        let object = role(json!([{ "apiGroups": many, "resources": many, "verbs": many }]));
        let seen = authorizer(&[]).check_escalation(&jane(), Kind::Role, &object, None).unwrap_err();
        assert!(seen.to_string().contains("8000000 permissions"), "{seen}");
    }
}
