//! The API's own extensions: webhooks and custom resources.

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    metadata, names,
    rules::{Seen, immutable, named, one_of, required, required_name, required_one_of},
};
use crate::value::{array, has, integer, text};

pub(super) fn webhooks(object: &Value, causes: &mut Vec<Cause>) {
    let list = Path::Root.field("webhooks");
    let mut seen = Seen::new();
    for (index, each) in array(object, "webhooks").iter().enumerate() {
        let path = list.index(index);
        webhook(each, &path, causes);
        seen.add(text(each, "name"), &path.field("name"), causes);
    }
}

fn webhook(webhook: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(name) = required(webhook, "name", path, causes) {
        named(name, names::subdomain, &path.field("name"), causes);
        if name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            causes.push(Cause::invalid(path.field("name"), &name.into(), detail));
        }
    }
    let config = &webhook["clientConfig"];
    let config_path = path.field("clientConfig");
    match (has(config, "url"), has(config, "service")) {
        (true, false) => {
            if !text(config, "url").starts_with("https://") {
                let detail = "'https' is the only allowed URL scheme";
                causes.push(Cause::invalid(config_path.field("url"), &config["url"], detail));
            }
        }
        (false, true) => {
            let path = config_path.field("service");
            required(&config["service"], "namespace", &path, causes);
            required(&config["service"], "name", &path, causes);
        }
        _ => causes.push(Cause::required(config_path, "exactly one of url or service is required")),
    }
    if text(webhook, "sideEffects").is_empty() {
        causes.push(Cause::required(path.field("sideEffects"), "must specify one of None, NoneOnDryRun"));
    }
    one_of(webhook, "sideEffects", &["None", "NoneOnDryRun"], path, causes);
    let versions = array(webhook, "admissionReviewVersions");
    let known = |version: &Value| matches!(version.as_str(), Some("v1" | "v1beta1"));
    if versions.is_empty() {
        let detail = "must specify one of v1, v1beta1";
        causes.push(Cause::required(path.field("admissionReviewVersions"), detail));
    } else if !versions.iter().any(known) {
        let detail = "must include at least one of v1, v1beta1";
        causes.push(Cause::invalid(path.field("admissionReviewVersions"), &webhook["admissionReviewVersions"], detail));
    }
    if let Some(seconds) = integer(webhook, "timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        causes.push(Cause::invalid(path.field("timeoutSeconds"), &seconds.into(), detail));
    }
    one_of(webhook, "failurePolicy", &["Fail", "Ignore"], path, causes);
    one_of(webhook, "matchPolicy", &["Equivalent", "Exact"], path, causes);
    one_of(webhook, "reinvocationPolicy", &["IfNeeded", "Never"], path, causes);
    for key in ["namespaceSelector", "objectSelector"] {
        metadata::selector(&webhook[key], &path.field(key), causes);
    }
    rules(webhook, path, causes);
}

fn rules(webhook: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("rules");
    for (index, rule) in array(webhook, "rules").iter().enumerate() {
        let path = list.index(index);
        for key in ["operations", "apiGroups", "apiVersions", "resources"] {
            if array(rule, key).is_empty() {
                causes.push(Cause::required(path.field(key), ""));
            }
        }
        let operations = path.field("operations");
        let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        for (index, operation) in array(rule, "operations").iter().enumerate() {
            if !operation.as_str().is_some_and(|operation| known.contains(&operation)) {
                causes.push(Cause::not_supported(operations.index(index), operation, &known));
            }
        }
        one_of(rule, "scope", &["*", "Cluster", "Namespaced"], &path, causes);
    }
}

/// Everything but the schemas, which [`osc_schema`] judges.
pub(super) fn custom_resource_definition(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, root) = (&object["spec"], &Path::Root);
    let path = &root.field("spec");
    let (group, given) = (text(spec, "group"), &spec["names"]);
    required_name(spec, "group", names::subdomain, path, causes);
    if !group.is_empty() && !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        causes.push(Cause::invalid(path.field("group"), &group.into(), detail));
    }
    let expected = format!("{}.{group}", text(given, "plural"));
    if text(&object["metadata"], "name") != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        let metadata = root.field("metadata");
        causes.push(Cause::invalid(metadata.field("name"), &object["metadata"]["name"], detail));
    }
    required_one_of(spec, "scope", &["Cluster", "Namespaced"], path, causes);
    crd_names(given, &path.field("names"), causes);
    versions(spec, path, causes);
    let conversion = path.field("conversion");
    if !matches!(text(&spec["conversion"], "strategy"), "" | "None") {
        causes.push(Cause::not_supported(conversion.field("strategy"), &spec["conversion"]["strategy"], &["None"]));
    }
    if spec["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        causes.push(Cause::invalid(path.field("preserveUnknownFields"), &Value::Bool(true), detail));
    }
    if let Some(old) = old {
        immutable(&old["spec"], spec, "group", path, causes);
        immutable(&old["spec"], spec, "scope", path, causes);
        let names = path.field("names");
        for key in ["kind", "plural"] {
            immutable(&old["spec"]["names"], given, key, &names, causes);
        }
        stored_versions(object, old, causes);
    }
}

fn crd_names(given: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for key in ["plural", "singular"] {
        required_name(given, key, names::label_1035, path, causes);
    }
    for key in ["kind", "listKind"] {
        if let Some(kind) = required(given, key, path, causes) {
            let wrong = names::label_1035(&kind.to_lowercase());
            let shown = kind.into();
            causes.extend(wrong.into_iter().map(|why| {
                Cause::invalid(
                    path.field(key),
                    &shown,
                    &format!("may have mixed case, but should otherwise match: {why}"),
                )
            }));
        }
    }
    if !text(given, "kind").is_empty() && text(given, "kind") == text(given, "listKind") {
        causes.push(Cause::invalid(
            path.field("listKind"),
            &given["listKind"],
            "kind and listKind may not be the same",
        ));
    }
    let list = path.field("shortNames");
    for (index, name) in array(given, "shortNames").iter().filter_map(Value::as_str).enumerate() {
        named(name, names::label_1035, &list.index(index), causes);
    }
}

fn versions(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("versions");
    let versions = array(spec, "versions");
    let mut seen = Seen::new();
    for (index, version) in versions.iter().enumerate() {
        let path = list.index(index);
        required_name(version, "name", names::label_1035, &path, causes);
        seen.add(text(version, "name"), &path.field("name"), causes);
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let schema = path.field("schema");
            causes.push(Cause::required(schema.field("openAPIV3Schema"), "schemas are required"));
        }
        columns(version, &path, causes);
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid(list, &spec["versions"], detail));
    }
}

fn columns(version: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("additionalPrinterColumns");
    for (index, column) in array(version, "additionalPrinterColumns").iter().enumerate() {
        let path = list.index(index);
        required(column, "name", &path, causes);
        required_one_of(column, "type", &["boolean", "date", "integer", "number", "string"], &path, causes);
        if let Some(json_path) = required(column, "jsonPath", &path, causes)
            && let Err(error) = osc_schema::JsonPath::parse(json_path)
        {
            causes.push(Cause::invalid(path.field("jsonPath"), &json_path.into(), &error.to_string()));
        }
    }
}

/// A version in which objects may still be stored must stay.
fn stored_versions(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let status = Path::Root.field("status");
    let list = status.field("storedVersions");
    let versions = array(&object["spec"], "versions");
    for (index, stored) in array(&old["status"], "storedVersions").iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            causes.push(Cause::invalid(list.index(index), stored, "must appear in spec.versions"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::wrong;
    use super::*;

    fn crd(change: fn(&mut Value)) -> Vec<String> {
        let mut crd = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        change(&mut crd);
        wrong("apiextensions.k8s.io", "customresourcedefinitions", crd)
    }

    #[test]
    fn custom_resource_definitions_are_judged() {
        type Change = fn(&mut Value);
        let rows: &[(Change, &str)] = &[
            (|_| {}, ""),
            (
                |crd| crd["metadata"]["name"] = "x.y".into(),
                "metadata.name: Invalid value: \"x.y\": must be spec.names.plural+\".\"+spec.group",
            ),
            (|crd| crd["spec"]["versions"][0]["storage"] = false.into(), "spec.versions: Invalid value: "),
            (
                |crd| crd["spec"]["versions"][0]["schema"] = json!({}),
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            ),
            (
                |crd| crd["spec"]["scope"] = "World".into(),
                "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
            ),
            (
                |crd| crd["spec"]["conversion"] = json!({"strategy": "Webhook"}),
                "spec.conversion.strategy: Unsupported value: \"Webhook\": supported values: \"None\"",
            ),
            (
                |crd| crd["spec"]["names"]["kind"] = "Wid get".into(),
                "spec.names.kind: Invalid value: \"Wid get\": may have mixed case",
            ),
        ];
        for (change, want) in rows {
            let wrong = crd(*change);
            match *want {
                "" => assert_eq!(wrong, [""; 0]),
                want => assert!(wrong.iter().any(|sentence| sentence.starts_with(want)), "{want}: {wrong:?}"),
            }
        }
    }

    #[test]
    fn webhooks_are_judged() {
        let good = json!({
            "name": "a.b.c", "clientConfig": {"service": {"namespace": "n", "name": "s"}}, "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        });
        let of = |webhook: &Value| {
            wrong("admissionregistration.k8s.io", "mutatingwebhookconfigurations", json!({"webhooks": [webhook]}))
        };
        assert_eq!(of(&good), [""; 0]);
        let rows = [
            (
                "name",
                json!("a.b"),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ),
            (
                "clientConfig",
                json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                "sideEffects",
                json!(null),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "admissionReviewVersions",
                json!(["v2"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ),
            (
                "rules",
                json!([{"operations": ["READ"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]),
                "webhooks[0].rules[0].operations[0]: Unsupported value: \"READ\"",
            ),
        ];
        for (key, value, want) in rows {
            let mut webhook = good.clone();
            webhook[key] = value;
            let wrong = of(&webhook);
            assert!(wrong.len() == 1 && wrong[0].starts_with(want), "{key}: {wrong:?}");
        }
    }
}
