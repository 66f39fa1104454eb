//! Configuration, identity and the API's own extensions.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::value::{fill, fill_number, fill_text, items_mut, map_mut, text};

/// The group of users, groups and roles.
const RBAC: &str = "rbac.authorization.k8s.io";

/// `stringData` is for writing only: it goes into `data`.
pub(super) fn secret(object: &mut Value) {
    fill_text(object, "type", "Opaque");
    let Some(map) = object.as_object_mut() else { return };
    if !map
        .get("stringData")
        .is_some_and(|plain| plain.as_object().is_some_and(|plain| plain.values().all(Value::is_string)))
    {
        return;
    }
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let data = map.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if let Some(data) = data.as_object_mut() {
        let encoded =
            plain.into_iter().map(|(key, text)| (key, STANDARD.encode(text.as_str().unwrap_or_default()).into()));
        data.extend(encoded);
    }
}

pub(super) fn namespace(object: &mut Value) {
    let name = text(&object["metadata"], "name").to_owned();
    if let Some(metadata) = map_mut(object, "metadata").filter(|_| !name.is_empty()) {
        fill(metadata, "labels", json!({}));
        if let Some(labels) = map_mut(metadata, "labels").and_then(Value::as_object_mut) {
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
        }
    }
}

/// What is not reserved can be used.
pub(super) fn node(object: &mut Value) {
    if let Some(status) = map_mut(object, "status")
        && let Some(capacity) = status.get("capacity").filter(|capacity| capacity.is_object()).cloned()
    {
        fill(status, "allocatable", capacity);
    }
}

/// A container's default limit is its maximum, its default request its default limit or minimum.
pub(super) fn limit_range(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    for limit in items_mut(spec, "limits") {
        if text(limit, "type") != "Container" {
            continue;
        }
        for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let Some(amounts) = limit.get(source).and_then(Value::as_object).cloned() else { continue };
            fill(limit, target, json!({}));
            amounts.into_iter().for_each(|(name, amount)| fill(&mut limit[target], &name, amount));
        }
    }
}

pub(super) fn priority_class(object: &mut Value) {
    fill_text(object, "preemptionPolicy", "PreemptLowerPriority");
}

pub(super) fn role_binding(object: &mut Value) {
    if let Some(role) = map_mut(object, "roleRef") {
        fill_text(role, "apiGroup", RBAC);
    }
    for subject in items_mut(object, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            fill_text(subject, "apiGroup", RBAC);
        }
    }
}

pub(super) fn webhooks(object: &mut Value, mutating: bool) {
    for webhook in items_mut(object, "webhooks").filter(|webhook| webhook.is_object()) {
        fill_text(webhook, "failurePolicy", "Fail");
        fill_text(webhook, "matchPolicy", "Equivalent");
        fill(webhook, "namespaceSelector", json!({}));
        fill(webhook, "objectSelector", json!({}));
        fill(webhook, "timeoutSeconds", 10);
        if mutating {
            fill_text(webhook, "reinvocationPolicy", "Never");
        }
        items_mut(webhook, "rules").for_each(|rule| fill_text(rule, "scope", "*"));
        if let Some(service) = map_mut(webhook, "clientConfig").and_then(|config| map_mut(config, "service")) {
            fill_number(service, "port", 443);
        }
    }
}

pub(super) fn custom_resource_definition(object: &mut Value) {
    let Some(spec) = map_mut(object, "spec") else { return };
    fill(spec, "conversion", json!({"strategy": "None"}));
    if let Some(names) = map_mut(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            fill_text(names, "singular", &kind.to_lowercase());
            fill_text(names, "listKind", &format!("{kind}List"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::tests::applied;

    #[test]
    fn secrets_keep_only_encoded_data() {
        let secret = applied("", "secrets", json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}}));
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eQ==", "b": "eg=="}}));
    }

    #[test]
    fn names_follow_from_other_names() {
        let namespace = applied("", "namespaces", json!({"metadata": {"name": "a"}}));
        assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
        let crd = applied(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            json!({"spec": {"names": {"kind": "Widget", "plural": "widgets"}}}),
        );
        assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(crd["spec"]["conversion"], json!({"strategy": "None"}));
    }

    #[test]
    fn webhooks_are_stored_like_this() {
        let given = json!({"webhooks": [{"name": "a.b.c", "clientConfig": {"service": {}}, "rules": [{}]}]});
        let stored = applied("admissionregistration.k8s.io", "mutatingwebhookconfigurations", given);
        let want = json!({
            "name": "a.b.c", "clientConfig": {"service": {"port": 443}}, "rules": [{"scope": "*"}],
            "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
            "reinvocationPolicy": "Never", "timeoutSeconds": 10,
        });
        assert_eq!(stored["webhooks"][0], want);
    }
}
