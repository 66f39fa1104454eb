//! Rules Kubernetes checks by hand, beyond what a schema says.
//!
//! [`create`] and [`update`] report everything wrong at once, each with the field path and wording
//! of Kubernetes. They expect objects after [`crate::defaults::apply`] and
//! [`crate::strategy`]; types of fields are the schema's concern, so a field of the wrong type
//! counts as missing here.

mod autoscaler;
mod config;
mod extension;
mod ingress;
mod job_policy;
mod limits;
mod metadata;
pub mod names;
mod network;
mod network_policy;
mod pod;
mod rbac;
mod rules;
mod storage;
mod workload;

use osc_schema::Path;
use serde_json::Value;

use crate::Resource;

pub use metadata::selector as label_selector;
pub use osc_schema::Cause;

/// Judges a new object.
pub fn create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata::create(resource, object, &mut causes);
    if !resource.is_custom() {
        judge(resource, object, None, &mut causes);
    }
    causes
}

/// Judges an object that replaces `old`, through the main endpoint or a subresource.
pub fn update(resource: &Resource, old: &Value, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata::update(resource, old, object, &mut causes);
    // Whatever is being deleted, or changes nothing but metadata and status, may be as wrong as it was.
    if !resource.is_custom() && !same_content(old, object) {
        judge(resource, object, Some(old), &mut causes);
    }
    causes
}

/// Judges the ephemeral containers of a pod, written through their own endpoint.
pub fn ephemeral_containers(old: &Value, pod: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    pod::ephemeral_containers(old, pod, &mut causes);
    causes
}

fn same_content(old: &Value, new: &Value) -> bool {
    let content = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
        fields.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    content(old) == content(new)
}

fn judge(resource: &Resource, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => match old {
            None => pod::create(object, causes),
            Some(old) => pod::update(old, object, causes),
        },
        ("", "podtemplates") => pod::template(&object["template"], &root.field("template"), causes),
        ("", "replicationcontrollers") => workload::replication_controller(object, causes),
        ("apps", "deployments") => workload::deployment(object, old, causes),
        ("apps", "replicasets") => workload::replica_set(object, old, causes),
        ("apps", "daemonsets") => workload::daemon_set(object, old, causes),
        ("apps", "statefulsets") => workload::stateful_set(object, old, causes),
        ("apps", "controllerrevisions") => config::controller_revision(object, old, causes),
        ("batch", "jobs") => workload::job(object, old, causes),
        ("batch", "cronjobs") => workload::cron_job(object, causes),
        ("autoscaling", "horizontalpodautoscalers") => autoscaler::autoscaler(object, causes),
        ("", "services") => network::service(object, old, causes),
        ("", "endpoints") => network::endpoints(object, causes),
        ("discovery.k8s.io", "endpointslices") => network::endpoint_slice(object, old, causes),
        ("networking.k8s.io", "ingresses") => ingress::ingress(object, causes),
        ("networking.k8s.io", "ingressclasses") => ingress::class(object, old, causes),
        ("networking.k8s.io", "networkpolicies") => network_policy::policy(object, causes),
        ("", "persistentvolumes") => storage::volume(object, causes),
        ("", "persistentvolumeclaims") => storage::claim(object, old, causes),
        ("storage.k8s.io", "storageclasses") => storage::class(object, old, causes),
        ("", "configmaps") => config::config_map(object, old, causes),
        ("", "secrets") => config::secret(object, old, causes),
        ("", "nodes") => config::node(object, causes),
        ("", "resourcequotas") => limits::quota(object, old, causes),
        ("", "limitranges") => limits::range(object, causes),
        ("coordination.k8s.io", "leases") => config::lease(object, causes),
        ("node.k8s.io", "runtimeclasses") => config::runtime_class(object, old, causes),
        ("policy", "poddisruptionbudgets") => config::disruption_budget(object, causes),
        ("scheduling.k8s.io", "priorityclasses") => config::priority_class(object, old, causes),
        ("rbac.authorization.k8s.io", "roles") => rbac::role(object, true, causes),
        ("rbac.authorization.k8s.io", "clusterroles") => rbac::role(object, false, causes),
        ("rbac.authorization.k8s.io", "rolebindings") => rbac::binding(object, old, true, causes),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => rbac::binding(object, old, false, causes),
        ("admissionregistration.k8s.io", _) => extension::webhooks(object, causes),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            extension::custom_resource_definition(object, old, causes);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{builtin, defaults};

    /// What is wrong with a new object, metadata aside, as sentences.
    pub(super) fn wrong(group: &str, plural: &str, mut object: Value) -> Vec<String> {
        let resource = builtin().iter().find(|resource| resource.is(group, plural)).expect("a built-in");
        if object["metadata"].is_null() {
            object["metadata"] = json!({"name": "x"});
        }
        if resource.namespaced {
            object["metadata"]["namespace"] = "default".into();
        }
        defaults::apply(resource, &mut object);
        create(resource, &object).iter().map(ToString::to_string).collect()
    }

    /// What is wrong with a change.
    pub(super) fn wrong_change(group: &str, plural: &str, old: &Value, new: &Value) -> Vec<String> {
        let resource = builtin().iter().find(|resource| resource.is(group, plural)).expect("a built-in");
        let (mut old, mut new) = (old.clone(), new.clone());
        defaults::apply(resource, &mut old);
        defaults::apply(resource, &mut new);
        update(resource, &old, &new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_kind_minds_rubbish() {
        let rubbish = [
            json!(null),
            json!([]),
            json!({"spec": 3, "metadata": []}),
            json!({"spec": {"template": [], "ports": {}, "containers": [1, null, {"ports": [1]}], "volumes": [[]]}}),
            json!({"webhooks": [1], "rules": [1], "subjects": [1], "roleRef": 1, "data": [], "handler": {}}),
        ];
        for resource in builtin().iter() {
            for object in &rubbish {
                let _ = create(resource, object);
                let _ = update(resource, object, &json!({}));
                let _ = update(resource, &json!({}), object);
            }
        }
    }
}
