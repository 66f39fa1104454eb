//! ClusterRoles that are the union of others.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::{Api, ResourceExt, api::Patch};
use serde_json::json;

use crate::{
    cache::Key,
    context::{Context, RESYNC, patching},
    error::{Attempt, Error},
    ownership::matches,
    queue::{Queue, work},
};

struct Aggregation {
    cx: Context,
    queue: Queue<Key>,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    let (on, roles) = (queue.clone(), cx.caches.cluster_roles.clone());
    cx.caches.cluster_roles.on_change(move |_| {
        for role in roles.all().iter().filter(|role| role.aggregation_rule.is_some()) {
            on.add(Key::of(role.as_ref()));
        }
    });
    let this = Arc::new(Aggregation { cx: cx.clone(), queue });
    let stop = cx.stop.clone();
    async move {
        work("clusterrole-aggregation", this.queue.clone(), 1, stop, |key| this.reconcile(key)).await;
    }
}

impl Aggregation {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(role) = self.cx.caches.cluster_roles.get(&key) else { return Ok(None) };
        let Some(rules) = union(&role, &self.cx.caches.cluster_roles.all()) else { return Ok(None) };
        if role.rules.clone().unwrap_or_default() != rules {
            let patch = json!({
                "metadata": {"uid": role.uid(), "resourceVersion": role.resource_version()}, "rules": rules});
            let api: Api<ClusterRole> = Api::all(self.cx.client.clone());
            let patched = api.patch(&key.name, &patching(), &Patch::Merge(patch)).await;
            patched.unless_gone("aggregate clusterrole", &key.name)?;
        }
        Ok(Some(RESYNC))
    }
}

/// Rules of all selected roles, each once, in order of the roles' names.
/// `None` for a role that aggregates nothing.
fn union(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.clone().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for other in all.iter().filter(|other| other.name_any() != role.name_any()) {
        if selectors.iter().any(|selector| matches(Some(selector), other.labels())) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    #[test]
    fn selected_rules_are_united_once() {
        let role = |name: &str, label: &str, verb: &str| -> Arc<ClusterRole> {
            Arc::new(object(json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": [{"verbs": [verb]}]})))
        };
        let all =
            [role("a", "edit", "get"), role("b", "edit", "list"), role("c", "view", "watch"), role("d", "edit", "get")];
        let aggregate: ClusterRole = object(json!({"metadata": {"name": "z"}, "aggregationRule": {
            "clusterRoleSelectors": [{"matchLabels": {"to": "edit"}}]}}));
        let verbs: Vec<_> = union(&aggregate, &all).unwrap().into_iter().flat_map(|rule| rule.verbs).collect();
        assert_eq!(verbs, ["get", "list"]);
        assert_eq!(union(&all[0], &all), None);
    }
}
