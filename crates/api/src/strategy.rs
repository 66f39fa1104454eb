//! Which parts of an object a request may write: everything but status on the main endpoint, only
//! status on `/status`, and what the server itself puts into new objects.
//!
//! Call these after [`crate::defaults::apply`]: some parts follow from defaulted fields.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    Resource, meta, pod,
    value::{fill, map_mut, text},
};

/// Makes `object` a new one: metadata, generation, the first status.
pub fn prepare_create(resource: &Resource, object: &mut Value, now: Timestamp) {
    meta::prepare_create(resource, object, now);
    // A node agent registers its node in one go, status included.
    if resource.subresource("status").is_some() && !resource.is("", "nodes") {
        remove(object, "status");
    }
    if resource.is_custom() {
        return;
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => {
            let class = pod::qos_class(object);
            set(object, "status", json!({"phase": "Pending", "qosClass": class}));
        }
        ("", "namespaces") => {
            set(object, "spec", json!({"finalizers": ["kubernetes"]}));
            set(object, "status", json!({"phase": "Active"}));
        }
        ("", "persistentvolumes" | "persistentvolumeclaims") => set(object, "status", json!({"phase": "Pending"})),
        ("", "services") | ("networking.k8s.io", "ingresses") => {
            set(object, "status", json!({"loadBalancer": {}}));
        }
        ("batch", "jobs") => select_by_uid(object),
        _ => {
            if let Some(status) = first_status(resource) {
                set(object, "status", status);
            }
        }
    }
}

/// The status of what a controller has not seen yet: typed clients insist on the numbers
/// that every status has.
fn first_status(resource: &Resource) -> Option<Value> {
    let zeros = |fields: &[&str]| fields.iter().map(|field| ((*field).to_owned(), json!(0))).collect();
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("apps", "deployments") | ("batch", "cronjobs") | ("", "resourcequotas") => json!({}),
        ("apps", "replicasets") | ("", "replicationcontrollers") => zeros(&["replicas"]),
        ("apps", "statefulsets") => zeros(&["availableReplicas", "replicas"]),
        ("apps", "daemonsets") => {
            zeros(&["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"])
        }
        ("policy", "poddisruptionbudgets") => {
            zeros(&["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"])
        }
        ("autoscaling", "horizontalpodautoscalers") => zeros(&["desiredReplicas"]),
        _ => return None,
    })
}

/// Completes `new`, which replaces `old` through the main endpoint.
pub fn prepare_update(resource: &Resource, old: &Value, new: &mut Value) {
    if resource.subresource("status").is_some() {
        copy(old, new, "status");
    }
    if resource.is("", "namespaces") {
        let finalizers = old["spec"]["finalizers"].clone();
        if !finalizers.is_null() {
            fill(new, "spec", json!({}));
            if let Some(spec) = map_mut(new, "spec") {
                set(spec, "finalizers", finalizers);
            }
        }
    }
    meta::prepare_update(resource, old, new);
}

/// Completes `new`, which replaces the status of `old`; everything else stays as it was.
///
/// Node agents also write labels and annotations of pods and nodes this way.
pub fn prepare_status_update(resource: &Resource, old: &Value, new: &mut Value) {
    let with_metadata = resource.is("", "pods") || resource.is("", "nodes");
    let mut given = std::mem::replace(new, old.clone());
    match given.get_mut("status").map(Value::take) {
        Some(status) => set(new, "status", status),
        None => remove(new, "status"),
    }
    if let Some(metadata) = map_mut(&mut given, "metadata") {
        let keys: &[&str] = if with_metadata {
            &["labels", "annotations", "finalizers", "managedFields", "resourceVersion"]
        } else {
            &["managedFields", "resourceVersion"]
        };
        let target = meta::metadata_mut(new);
        for key in keys {
            match metadata.get_mut(key).map(Value::take) {
                Some(value) => target.insert((*key).to_owned(), value),
                None => target.remove(*key),
            };
        }
    }
}

/// Labels by which a Job finds its pods.
const JOB_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// A Job selects its pods by its own uid unless told otherwise.
fn select_by_uid(job: &mut Value) {
    let (uid, name) = (text(&job["metadata"], "uid").to_owned(), text(&job["metadata"], "name").to_owned());
    set(job, "status", json!({}));
    let Some(spec) = map_mut(job, "spec") else { return };
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    if let Some(template) = map_mut(spec, "template") {
        let metadata = meta::metadata_mut(template);
        let labels = metadata.entry("labels").or_insert_with(|| Value::Object(Map::new()));
        for (label, value) in [(JOB_UID, &uid), (JOB_NAME, &name), ("controller-uid", &uid), ("job-name", &name)] {
            if let Some(labels) = labels.as_object_mut() {
                labels.insert(label.to_owned(), value.clone().into());
            }
        }
    }
    fill(spec, "selector", json!({"matchLabels": {(JOB_UID): uid}}));
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

fn copy(from: &Value, to: &mut Value, key: &str) {
    match from.get(key) {
        Some(value) => set(to, key, value.clone()),
        None => remove(to, key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    fn resource(group: &str, plural: &str) -> &'static Resource {
        builtin().iter().find(|resource| resource.is(group, plural)).expect("a built-in")
    }

    #[test]
    fn new_objects_have_the_first_status() {
        let rows = [
            ("", "pods", json!({"phase": "Pending", "qosClass": "BestEffort"})),
            ("", "namespaces", json!({"phase": "Active"})),
            ("apps", "deployments", json!({})),
            ("apps", "statefulsets", json!({"availableReplicas": 0, "replicas": 0})),
            ("", "nodes", json!({"phase": "mine"})),
        ];
        for (group, plural, want) in rows {
            let mut object =
                json!({"metadata": {"name": "a"}, "spec": {"containers": [{}]}, "status": {"phase": "mine"}});
            prepare_create(resource(group, plural), &mut object, Timestamp::UNIX_EPOCH);
            assert_eq!(object["status"], want, "{plural}");
        }
    }

    #[test]
    fn jobs_select_their_pods_by_uid() {
        let mut job = json!({"metadata": {"name": "j"}, "spec": {"template": {}}});
        prepare_create(resource("batch", "jobs"), &mut job, Timestamp::UNIX_EPOCH);
        let uid = job["metadata"]["uid"].clone();
        assert_eq!(job["spec"]["selector"]["matchLabels"], json!({(JOB_UID): uid}));
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    }

    #[test]
    fn endpoints_write_only_their_part() {
        let deployments = resource("apps", "deployments");
        let old = json!({"metadata": {"uid": "u", "generation": 1}, "spec": {"a": 1}, "status": {"b": 1}});
        let mut main = json!({"metadata": {}, "spec": {"a": 2}, "status": {"b": 2}});
        prepare_update(deployments, &old, &mut main);
        assert_eq!(main, json!({"metadata": {"uid": "u", "generation": 2}, "spec": {"a": 2}, "status": {"b": 1}}));
        let mut status = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"a": 2}, "status": {"b": 2}});
        prepare_status_update(deployments, &old, &mut status);
        assert_eq!(status, json!({"metadata": {"uid": "u", "generation": 1}, "spec": {"a": 1}, "status": {"b": 2}}));
        let mut pod = json!({"metadata": {"labels": {"x": "y"}}, "status": {}});
        prepare_status_update(resource("", "pods"), &old, &mut pod);
        assert_eq!(pod["metadata"]["labels"], json!({"x": "y"}));
    }
}
