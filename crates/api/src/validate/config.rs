//! Configuration and the smaller kinds.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    metadata, names, pod,
    rules::{amounts, count_or_percent, immutable, named, not_negative, one_of, required, required_one_of},
};
use crate::value::{array, entries, has, integer, text};

/// ConfigMaps and Secrets may hold this much, in bytes.
const MAX_SIZE: usize = 1024 * 1024;

/// Nothing of an immutable ConfigMap or Secret may change, nor may it become mutable.
fn frozen(old: Option<&Value>, object: &Value, keys: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    let detail = "field is immutable when `immutable` is set";
    if object["immutable"] != true {
        causes.push(Cause::forbidden("immutable", detail));
    }
    for key in keys.iter().filter(|key| old[**key] != object[**key]) {
        causes.push(Cause::forbidden(key, detail));
    }
}

pub(super) fn config_map(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    let mut size = 0;
    for holder in ["data", "binaryData"] {
        let path = root.field(holder);
        for (key, value) in entries(object, holder) {
            named_key(key, &path, causes);
            size += value.as_str().map_or(0, str::len);
        }
    }
    for (key, _) in entries(object, "binaryData").filter(|(key, _)| has(&object["data"], key)) {
        let path = root.field("data");
        causes.push(Cause::invalid(path.key(key), &key.as_str().into(), "duplicate of key present in binaryData"));
    }
    if size > MAX_SIZE {
        causes.push(Cause::too_long("", MAX_SIZE as u64));
    }
    frozen(old, object, &["data", "binaryData"], causes);
}

fn named_key(key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    named(key, names::config_key, &path.key(key), causes);
}

/// What a Secret of some type must hold: type and keys.
const SECRET_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

pub(super) fn secret(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    let path = root.field("data");
    let mut size = 0;
    for (key, value) in entries(object, "data") {
        named_key(key, &path, causes);
        size += value.as_str().map_or(0, str::len) / 4 * 3;
    }
    if size > MAX_SIZE {
        causes.push(Cause::too_long(path, MAX_SIZE as u64));
    }
    let kind = text(object, "type");
    let needed = SECRET_KEYS.iter().find(|(name, _)| *name == kind).map(|(_, keys)| *keys).unwrap_or_default();
    for key in needed.iter().filter(|key| !has(&object["data"], key)) {
        causes.push(Cause::required(path.key(key), ""));
    }
    match kind {
        "kubernetes.io/dockercfg" => credentials(object, ".dockercfg", &path, causes),
        "kubernetes.io/dockerconfigjson" => credentials(object, ".dockerconfigjson", &path, causes),
        "kubernetes.io/service-account-token" => {
            let metadata = root.field("metadata");
            let annotations = metadata.field("annotations");
            let account = "kubernetes.io/service-account.name";
            if text(&object["metadata"]["annotations"], account).is_empty() {
                causes.push(Cause::required(annotations.key(account), ""));
            }
        }
        _ => {}
    }
    if let Some(old) = old {
        immutable(old, object, "type", root, causes);
    }
    frozen(old, object, &["data"], causes);
}

/// Credentials are JSON; what is wrong with them is not repeated.
fn credentials(secret: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let bytes = STANDARD.decode(text(&secret["data"], key)).unwrap_or_default();
    let is_map = serde_json::from_slice::<Value>(&bytes).is_ok_and(|value| value.is_object());
    if has(&secret["data"], key) && !is_map {
        causes.push(Cause::invalid(path.key(key), &"<secret contents redacted>".into(), "must be a JSON object"));
    }
}

pub(super) fn node(object: &Value, causes: &mut Vec<Cause>) {
    let spec = Path::Root.field("spec");
    let list = spec.field("taints");
    let mut seen = std::collections::HashSet::new();
    for (index, taint) in array(&object["spec"], "taints").iter().enumerate() {
        let path = list.index(index);
        named(text(taint, "key"), names::qualified_name, &path.field("key"), causes);
        named(text(taint, "value"), names::label_value, &path.field("value"), causes);
        required_one_of(taint, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], &path, causes);
        if !seen.insert((text(taint, "key"), text(taint, "effect"))) {
            causes.push(Cause::duplicate(path, taint));
        }
    }
}

pub(super) fn lease(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    if let Some(duration) = integer(spec, "leaseDurationSeconds").filter(|duration| *duration <= 0) {
        causes.push(Cause::invalid(path.field("leaseDurationSeconds"), &duration.into(), "must be greater than 0"));
    }
    not_negative(spec, "leaseTransitions", path, causes);
}

pub(super) fn runtime_class(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    named(text(object, "handler"), names::label, &root.field("handler"), causes);
    if let Some(old) = old {
        immutable(old, object, "handler", root, causes);
    }
    amounts(&object["overhead"], "podFixed", &root.field("overhead"), causes);
    let scheduling = root.field("scheduling");
    metadata::labels(&object["scheduling"], "nodeSelector", &scheduling, causes);
    pod::tolerations(array(&object["scheduling"], "tolerations"), &scheduling.field("tolerations"), causes);
}

pub(super) fn disruption_budget(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
        causes.push(Cause::invalid(path, spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        count_or_percent(spec, key, path, causes);
        super::rules::at_most_all(spec, key, path, causes);
    }
    one_of(spec, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], path, causes);
    metadata::selector(&spec["selector"], &path.field("selector"), causes);
}

/// Priorities above this are for the system.
const MAX_USER_PRIORITY: i64 = 1_000_000_000;
/// The system's own classes.
const SYSTEM_PRIORITIES: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(super) fn priority_class(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    let (name, value) = (text(&object["metadata"], "name"), integer(object, "value").unwrap_or(0));
    if name.starts_with("system-") {
        if !SYSTEM_PRIORITIES.contains(&(name, value)) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            let metadata = root.field("metadata");
            causes.push(Cause::forbidden(metadata.field("name"), detail));
        }
    } else if value > MAX_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}");
        causes.push(Cause::forbidden(root.field("value"), &detail));
    }
    one_of(object, "preemptionPolicy", &["Never", "PreemptLowerPriority"], root, causes);
    if let Some(old) = old {
        if integer(old, "value").unwrap_or(0) != value {
            causes.push(Cause::forbidden(root.field("value"), "may not be changed in an update."));
        }
        if old["preemptionPolicy"] != object["preemptionPolicy"] {
            causes.push(Cause::invalid(
                root.field("preemptionPolicy"),
                &object["preemptionPolicy"],
                "field is immutable",
            ));
        }
    }
}

pub(super) fn controller_revision(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    not_negative(object, "revision", root, causes);
    if !has(object, "data") {
        required(object, "data", root, causes);
    }
    if let Some(old) = old {
        immutable(old, object, "data", root, causes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};

    #[test]
    fn small_kinds_are_judged() {
        let rows = [
            (
                "",
                "configmaps",
                json!({"data": {"a/b": "c"}}),
                "data[a/b]: Invalid value: \"a/b\": a valid config key must",
            ),
            (
                "",
                "configmaps",
                json!({"data": {"a": ""}, "binaryData": {"a": ""}}),
                "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
            ),
            (
                "",
                "secrets",
                json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
                "data[tls.key]: Required value",
            ),
            (
                "",
                "secrets",
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}),
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\"",
            ),
            (
                "node.k8s.io",
                "runtimeclasses",
                json!({"handler": "K"}),
                "handler: Invalid value: \"K\": a lowercase RFC 1123 label must",
            ),
            (
                "node.k8s.io",
                "runtimeclasses",
                json!({"handler": "k", "overhead": {"podFixed": {"memory": "-1"}}}),
                "overhead.podFixed[memory]: Invalid value: \"-1\"",
            ),
            (
                "coordination.k8s.io",
                "leases",
                json!({"spec": {"leaseDurationSeconds": 0}}),
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            ),
            (
                "policy",
                "poddisruptionbudgets",
                json!({"spec": {"minAvailable": 1, "maxUnavailable": 1}}),
                "spec: Invalid value: ",
            ),
            (
                "policy",
                "poddisruptionbudgets",
                json!({"spec": {"minAvailable": "half"}}),
                "spec.minAvailable: Invalid value: \"half\": a valid percent string",
            ),
            (
                "scheduling.k8s.io",
                "priorityclasses",
                json!({"value": 1_000_000_001}),
                "value: Forbidden: maximum allowed value",
            ),
            (
                "scheduling.k8s.io",
                "priorityclasses",
                json!({"metadata": {"name": "system-x"}, "value": 1}),
                "metadata.name: Forbidden: priority class names",
            ),
            ("", "nodes", json!({"spec": {"taints": [{"key": "a"}]}}), "spec.taints[0].effect: Required value"),
        ];
        for (group, plural, object, want) in rows {
            let wrong = wrong(group, plural, object.clone());
            assert!(wrong.len() == 1 && wrong[0].starts_with(want), "{object}: {wrong:?}");
        }
    }

    #[test]
    fn what_is_immutable_stays() {
        let metadata = json!({"name": "x"});
        let map =
            |immutable: bool, data: &str| json!({"metadata": metadata, "immutable": immutable, "data": {"a": data}});
        assert_eq!(wrong_change("", "configmaps", &map(false, "b"), &map(true, "c")), [""; 0]);
        assert_eq!(
            wrong_change("", "configmaps", &map(true, "b"), &map(false, "c")),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
        let class = |handler: &str| json!({"metadata": metadata, "handler": handler});
        assert_eq!(
            wrong_change("node.k8s.io", "runtimeclasses", &class("a"), &class("b")),
            ["handler: Invalid value: \"b\": field is immutable"]
        );
        let secret = |kind: &str| json!({"metadata": metadata, "type": kind});
        assert_eq!(
            wrong_change("", "secrets", &secret("a"), &secret("b")),
            ["type: Invalid value: \"b\": field is immutable"]
        );
    }
}
