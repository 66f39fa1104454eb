//! Fields that are stored although nobody wrote them.
//!
//! [`apply`] runs on every write, before admission, and may run again: it only fills what is
//! missing. It first brings the object into the form other parts rely on (see [`normalize`]).

mod config;
mod network;
mod normal;
mod pod;
mod storage;
mod workload;

use serde_json::Value;

use crate::{Resource, definitions};

pub use normal::normalize;

/// Normalises a built-in object and fills in what Kubernetes fills in; custom resources stay as
/// they are.
pub fn apply(resource: &Resource, object: &mut Value) {
    let Some(node) = definitions::schema_of(resource) else { return };
    normalize(node, object);
    fill(&resource.group, &resource.version, &resource.plural, object);
}

fn fill(group: &str, version: &str, plural: &str, object: &mut Value) {
    match (group, plural) {
        ("", "pods") => pod::pod(object),
        ("", "podtemplates") => pod::template(object),
        ("", "replicationcontrollers") => workload::replication_controller(object),
        ("apps", "deployments") => workload::deployment(object),
        ("apps", "replicasets") => workload::replica_set(object),
        ("apps", "daemonsets") => workload::daemon_set(object),
        ("apps", "statefulsets") => workload::stateful_set(object),
        ("batch", "jobs") => workload::job(object),
        ("batch", "cronjobs") => workload::cron_job(object),
        ("autoscaling", "horizontalpodautoscalers") => workload::autoscaler(object, version),
        ("", "services") => network::service(object),
        ("", "endpoints") => network::endpoints(object),
        ("discovery.k8s.io", "endpointslices") => network::endpoint_slice(object),
        ("networking.k8s.io", "networkpolicies") => network::policy(object),
        ("networking.k8s.io", "ingressclasses") => network::ingress_class(object),
        ("", "persistentvolumes") => storage::volume(object),
        ("", "persistentvolumeclaims") => storage::claim(object),
        ("storage.k8s.io", "storageclasses") => storage::class(object),
        ("storage.k8s.io", "csidrivers") => storage::driver(object),
        ("", "secrets") => config::secret(object),
        ("", "namespaces") => config::namespace(object),
        ("", "nodes") => config::node(object),
        ("", "limitranges") => config::limit_range(object),
        ("scheduling.k8s.io", "priorityclasses") => config::priority_class(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => config::role_binding(object),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => config::webhooks(object, true),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => config::webhooks(object, false),
        ("apiextensions.k8s.io", "customresourcedefinitions") => config::custom_resource_definition(object),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin;

    /// Applies the defaults of a resource, twice: the second time must change nothing.
    pub(super) fn applied(group: &str, plural: &str, mut object: Value) -> Value {
        let resource = builtin().iter().find(|resource| resource.is(group, plural)).expect("a built-in");
        apply(resource, &mut object);
        let mut again = object.clone();
        apply(resource, &mut again);
        assert_eq!(object, again);
        object
    }

    #[test]
    fn no_kind_minds_an_object_that_is_no_object() {
        for resource in builtin().iter() {
            for object in
                [json!(null), json!([]), json!({"spec": 3}), json!({"spec": {"template": [], "ports": {}}}), json!("x")]
            {
                let mut value = object.clone();
                apply(resource, &mut value);
            }
        }
    }
}
