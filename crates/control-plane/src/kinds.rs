//! The few kinds that need more than the common rules on their way to the store.

use osc_api::{Resource, status::Status};
use osc_schema::Cause;
use serde_json::{Value, json};

use crate::{api::Api, crds, resources::Served, services};

/// Grace period of pods that name none, in seconds.
const POD_GRACE: i64 = 30;

/// Kinds that are stored and checked, and that nothing here acts on: group, plural, what
/// their makers are told.
const IDLE: &[(&str, &str, &str)] = &[
    (
        "autoscaling",
        "horizontalpodautoscalers",
        "this cluster has no metrics: the autoscaler is stored, but it does not scale anything",
    ),
    (
        "networking.k8s.io",
        "networkpolicies",
        "this cluster does not enforce network policies: it is stored, but it does not keep anybody out",
    ),
];

/// What the makers of objects of some kinds should know.
pub(crate) fn warning(resource: &Resource) -> Option<String> {
    let idle = IDLE.iter().find(|(group, plural, _)| resource.is(group, plural));
    idle.map(|(_, _, warning)| (*warning).to_owned())
}

/// What the server adds to new objects of some kinds.
pub(crate) async fn before_create(api: &Api, served: &Served, object: &mut Value) -> Result<(), Status> {
    let resource = &served.resource;
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        crds::before_create(object);
    } else if resource.is("", "services") {
        services::allocate(api, object).await?;
    } else if let Some(custom) = &served.custom {
        crds::check_not_terminating(api, &custom.definition)?;
    }
    Ok(())
}

/// What an update of some kinds must leave alone.
pub(crate) fn before_update(served: &Served, new: &mut Value, old: &Value) {
    if served.resource.is("", "services") {
        services::keep_addresses(new, old);
    }
}

/// Rules of some kinds beyond those in `osc-api`.
pub(crate) fn check(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") { crds::check(new, old) } else { Vec::new() }
}

/// Whether a deletion answers with the object that went. It does for these kinds, and
/// typed clients take it for one; for all others it answers with a Status.
pub(crate) fn shown_when_gone(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(
            resource.plural.as_str(),
            "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ),
        "storage.k8s.io" => {
            matches!(resource.plural.as_str(), "csidrivers" | "csinodes" | "storageclasses" | "volumeattachments")
        }
        _ => false,
    }
}

/// Seconds an object of this kind gets before it goes.
pub(crate) fn grace(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    if !resource.is("", "pods") {
        return 0;
    }
    let placed = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let over = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !placed || over {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    match asked.or(own).unwrap_or(POD_GRACE) {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

/// Whether nothing holds a deleted object any longer.
pub(crate) fn may_go(resource: &Resource, object: &Value) -> bool {
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    object["metadata"]["deletionTimestamp"].is_string()
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && empty(&object["metadata"]["finalizers"])
        && (!resource.is("", "namespaces") || empty(&object["spec"]["finalizers"]))
}

/// What changes in an object when its deletion begins.
pub(crate) fn deletion_begins(resource: &Resource, object: &mut Value) {
    if resource.is("", "namespaces") {
        object["status"]["phase"] = json!("Terminating");
    } else if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        crds::deletion_begins(object);
    }
}

#[cfg(test)]
mod tests {
    use osc_api::builtin;

    use super::*;

    #[test]
    fn only_running_pods_get_time() {
        let pods = builtin().find("", "v1", "pods").unwrap();
        let nodes = builtin().find("", "v1", "nodes").unwrap();
        let running =
            json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 7}, "status": {"phase": "Running"}});
        let rows = [
            (nodes, json!({}), Some(5), 0),
            (pods, json!({"spec": {}}), Some(5), 0),
            (pods, json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}), Some(5), 0),
            (pods, json!({"spec": {"nodeName": "n"}}), None, 30),
            (pods, running.clone(), None, 7),
            (pods, running.clone(), Some(60), 60),
            (pods, running.clone(), Some(0), 0),
            (pods, running, Some(-1), 1),
        ];
        for (resource, object, asked, want) in rows {
            assert_eq!(grace(resource, &object, asked), want, "{object} {asked:?}");
        }
    }

    #[test]
    fn finalizers_of_both_kinds_hold_namespaces() {
        let namespaces = builtin().find("", "v1", "namespaces").unwrap();
        let rows = [
            (json!({"metadata": {}}), false),
            (json!({"metadata": {"deletionTimestamp": "t"}}), true),
            (json!({"metadata": {"deletionTimestamp": "t", "finalizers": ["x"]}}), false),
            (json!({"metadata": {"deletionTimestamp": "t"}, "spec": {"finalizers": ["kubernetes"]}}), false),
            (json!({"metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 30}}), false),
        ];
        for (object, want) in rows {
            assert_eq!(may_go(namespaces, &object), want, "{object}");
        }
    }
}
