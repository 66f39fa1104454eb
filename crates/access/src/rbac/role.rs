//! Roles and bindings as the index keeps them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::rule::Rule;
use crate::identity::{Identity, service_account_of};

/// The four kinds of `rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rules within a namespace.
    Role,
    /// Rules everywhere, and for cluster-scoped kinds and paths.
    ClusterRole,
    /// Gives a role or cluster role to somebody within a namespace.
    RoleBinding,
    /// Gives a cluster role to somebody everywhere.
    ClusterRoleBinding,
}

impl Kind {
    /// The kind with this plural.
    pub fn from_plural(plural: &str) -> Option<Kind> {
        Some(match plural {
            "roles" => Kind::Role,
            "clusterroles" => Kind::ClusterRole,
            "rolebindings" => Kind::RoleBinding,
            "clusterrolebindings" => Kind::ClusterRoleBinding,
            _ => return None,
        })
    }

    /// Its plural.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Role => "roles",
            Kind::ClusterRole => "clusterroles",
            Kind::RoleBinding => "rolebindings",
            Kind::ClusterRoleBinding => "clusterrolebindings",
        }
    }
}

/// The object is none of its kind.
#[derive(Debug, thiserror::Error)]
#[error("object is not a valid {}", kind.plural())]
pub struct Malformed {
    /// What it was meant to be.
    pub kind: Kind,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Role {
    pub metadata: Metadata,
    pub rules: Option<Vec<Rule>>,
    pub aggregation_rule: Option<Aggregation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub name: String,
    pub namespace: String,
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Aggregation {
    pub cluster_role_selectors: Option<Vec<Selector>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Selector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Expression>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Expression {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Binding {
    pub metadata: Metadata,
    pub subjects: Option<Vec<Subject>>,
    pub role_ref: RoleRef,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(kind: Kind, object: &Value) -> Result<T, Malformed> {
    T::deserialize(object).map_err(|source| Malformed { kind, source })
}

impl Role {
    pub fn rules(&self) -> &[Rule] {
        self.rules.as_deref().unwrap_or_default()
    }

    /// The selectors of an aggregating cluster role; none for ordinary roles.
    pub fn selectors(&self) -> Option<&[Selector]> {
        self.aggregation_rule.as_ref().map(|rule| rule.cluster_role_selectors.as_deref().unwrap_or_default())
    }
}

impl Selector {
    pub fn matches(&self, role: &Role) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let labels = role.metadata.labels.as_ref().unwrap_or(&NONE);
        let equal = self.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        equal && self.match_expressions.iter().flatten().all(|expression| expression.matches(labels))
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let values = self.values.as_deref().unwrap_or_default();
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => !value.is_some_and(|value| values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            // Refused at creation; granting nothing is the safe reading.
            _ => false,
        }
    }
}

impl Binding {
    pub fn names(&self, identity: &Identity) -> bool {
        self.subjects.iter().flatten().any(|subject| subject.is(identity, &self.metadata.namespace))
    }
}

impl Subject {
    /// `home` is the namespace of the binding, where an account without namespace is looked for.
    fn is(&self, identity: &Identity, home: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == identity.user,
            "Group" => identity.is_in(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { home } else { &self.namespace };
                service_account_of(&identity.user) == Some((namespace, &self.name))
            }
            _ => false,
        }
    }
}
