//! What every object must have in `metadata`.

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    names,
    rules::{named, required},
};
use crate::{
    Resource, meta,
    selector::LabelSelector,
    value::{array, entries, text},
};

/// Annotations of one object may be this large together, in bytes of keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;

type NameCheck = fn(&str) -> Vec<String>;

/// Resources with names other than DNS subdomains.
const NAME_CHECKS: &[(&str, &str, NameCheck)] = &[
    ("", "namespaces", names::label),
    ("", "services", names::label_1035),
    ("rbac.authorization.k8s.io", "roles", names::path_segment),
    ("rbac.authorization.k8s.io", "rolebindings", names::path_segment),
    ("rbac.authorization.k8s.io", "clusterroles", names::path_segment),
    ("rbac.authorization.k8s.io", "clusterrolebindings", names::path_segment),
];

/// Judges the metadata of a new object.
pub(super) fn create(resource: &Resource, object: &Value, causes: &mut Vec<Cause>) {
    let metadata = &object["metadata"];
    let path = &Path::Root.field("metadata");
    name(resource, metadata, path, causes);
    match (resource.namespaced, text(metadata, "namespace")) {
        (true, "") => causes.push(Cause::required(path.field("namespace"), "")),
        (true, namespace) => named(namespace, names::label, &path.field("namespace"), causes),
        (false, "") => {}
        (false, _) => causes.push(Cause::forbidden(path.field("namespace"), "not allowed on this type")),
    }
    common(metadata, path, causes);
}

/// Judges the metadata of a changed object.
pub(super) fn update(resource: &Resource, old: &Value, object: &Value, causes: &mut Vec<Cause>) {
    let metadata = &object["metadata"];
    let path = &Path::Root.field("metadata");
    if resource.is_custom() || old["metadata"]["name"] != metadata["name"] {
        name(resource, metadata, path, causes);
    }
    common(metadata, path, causes);
    if meta::is_deleting(old) {
        let before = array(&old["metadata"], "finalizers");
        let added = array(metadata, "finalizers").iter().filter(|finalizer| !before.contains(finalizer));
        let added: Vec<String> = added.map(Value::to_string).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            causes.push(Cause::forbidden(path.field("finalizers"), &detail));
        }
    }
}

fn name(resource: &Resource, metadata: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let check = NAME_CHECKS.iter().find(|(group, plural, _)| resource.is(group, plural));
    let check = check.map_or(names::subdomain as NameCheck, |(_, _, check)| *check);
    let prefix = text(metadata, "generateName");
    if !prefix.is_empty() {
        // What comes after the prefix is five letters; it may end in what a name may not end in.
        named_like(prefix, &format!("{}a", prefix.trim_end_matches('-')), check, &path.field("generateName"), causes);
    }
    match text(metadata, "name") {
        "" => causes.push(Cause::required(path.field("name"), "name or generateName is required")),
        name => named(name, check, &path.field("name"), causes),
    }
}

/// Reports `shown` when `checked` is wrong.
fn named_like(shown: &str, checked: &str, check: NameCheck, path: &Path<'_>, causes: &mut Vec<Cause>) {
    // The prefix is cut before it is used, so its length does not matter.
    let wrong = check(checked).into_iter().filter(|why| !why.starts_with("must be no more"));
    causes.extend(wrong.map(|why| Cause::invalid(path, &shown.into(), &why)));
}

fn common(metadata: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    labels(metadata, "labels", path, causes);
    annotations(metadata, path, causes);
    owners(metadata, path, causes);
    finalizers(metadata, path, causes);
}

/// The labels at `key`.
pub(super) fn labels(holder: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field(key);
    for (label, value) in entries(holder, key) {
        named(label, names::qualified_name, &path, causes);
        named(value.as_str().unwrap_or_default(), names::label_value, &path, causes);
    }
}

fn annotations(metadata: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field("annotations");
    let mut size = 0;
    for (key, value) in entries(metadata, "annotations") {
        let wrong = names::qualified_name(&key.to_lowercase());
        causes.extend(wrong.into_iter().map(|why| Cause::invalid(path, &key.as_str().into(), &why)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        causes.push(Cause::too_long(path, MAX_ANNOTATIONS as u64));
    }
}

fn owners(metadata: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field("ownerReferences");
    let owners = array(metadata, "ownerReferences");
    for (index, owner) in owners.iter().enumerate() {
        let path = path.index(index);
        for key in ["apiVersion", "kind", "name", "uid"] {
            required(owner, key, &path, causes);
        }
    }
    let mut controllers = owners.iter().filter(|owner| owner["controller"] == true);
    if let (Some(first), Some(second)) = (controllers.next(), controllers.next()) {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            text(first, "name"),
            text(second, "name")
        );
        causes.push(Cause::invalid(path, &metadata["ownerReferences"], &detail));
    }
}

fn finalizers(metadata: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field("finalizers");
    let finalizers = array(metadata, "finalizers");
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        named(finalizer, names::qualified_name, &path, causes);
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.push(Cause::invalid(path, &metadata["finalizers"], detail));
    }
}

/// Judges a label selector object.
pub fn selector(selector: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    labels(selector, "matchLabels", path, causes);
    let list = path.field("matchExpressions");
    for (index, expression) in array(selector, "matchExpressions").iter().enumerate() {
        let path = list.index(index);
        let values = array(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(path.field("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(path.field("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                causes.push(Cause::invalid(path.field("operator"), &other.into(), "not a valid selector operator"));
            }
        }
        named(text(expression, "key"), names::qualified_name, &path.field("key"), causes);
        let values_path = path.field("values");
        for (index, value) in values.iter().enumerate() {
            named(value.as_str().unwrap_or_default(), names::label_value, &values_path.index(index), causes);
        }
    }
}

/// A selector of pods that must be there, must select something and must select the template.
pub(super) fn selects_template(spec: &Value, kind: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let selector_path = path.field("selector");
    let given = &spec["selector"];
    if !given.is_object() {
        causes.push(Cause::required(selector_path, ""));
        return;
    }
    let before = causes.len();
    selector(given, &selector_path, causes);
    if causes.len() > before {
        return;
    }
    match LabelSelector::from_object(given) {
        Ok(selector) if selector.is_everything() => {
            let detail = format!("empty selector is invalid for {kind}");
            causes.push(Cause::invalid(selector_path, given, &detail));
        }
        Ok(selector) if !selector.matches_object(&spec["template"]) => {
            let labels = &spec["template"]["metadata"]["labels"];
            let template = path.field("template");
            let metadata = template.field("metadata");
            let detail = "`selector` does not match template `labels`";
            causes.push(Cause::invalid(metadata.field("labels"), labels, detail));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};
    use super::*;

    fn of(metadata: Value) -> Vec<String> {
        wrong("", "configmaps", json!({"metadata": metadata}))
    }

    #[test]
    fn metadata_is_judged() {
        let rows = [
            (json!({"name": "a.b"}), ""),
            (json!({}), "metadata.name: Required value: name or generateName is required"),
            (json!({"name": "A"}), "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must"),
            (json!({"name": "a", "labels": {"a b": "c"}}), "metadata.labels: Invalid value: \"a b\": name part must"),
            (
                json!({"name": "a", "labels": {"a": "c d"}}),
                "metadata.labels: Invalid value: \"c d\": a valid label must",
            ),
            (json!({"name": "a", "annotations": {"A/b": ""}}), ""),
            (json!({"name": "a", "annotations": {"a": "x".repeat(300_000)}}), "metadata.annotations: Too long"),
            (json!({"name": "a", "finalizers": ["/"]}), "metadata.finalizers: Invalid value: \"/\""),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
                "metadata.ownerReferences[0].uid: Required value",
            ),
        ];
        for (metadata, want) in rows {
            let wrong = of(metadata.clone());
            match want {
                "" => assert_eq!(wrong, [""; 0], "{metadata}"),
                want => assert!(wrong.iter().any(|sentence| sentence.starts_with(want)), "{metadata}: {wrong:?}"),
            }
        }
    }

    #[test]
    fn kinds_have_names_of_their_own() {
        assert_ne!(wrong("", "namespaces", json!({"metadata": {"name": "a.b"}})), [""; 0]);
        assert_eq!(
            wrong("rbac.authorization.k8s.io", "clusterroles", json!({"metadata": {"name": "system:x"}})),
            [""; 0]
        );
        let service = wrong("", "services", json!({"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 1}]}}));
        assert!(service[0].contains("DNS-1035"), "{service:?}");
    }

    #[test]
    fn nothing_holds_up_what_is_being_deleted() {
        let old =
            json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!([]);
        assert_eq!(wrong_change("", "configmaps", &old, &new), [""; 0]);
        new["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        assert_eq!(
            wrong_change("", "configmaps", &old, &new),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}"
            ]
        );
    }
}
