//! Roles and their bindings.

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    names,
    rules::{required, required_name},
};
use crate::value::{array, has, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(object: &Value, namespaced: bool, causes: &mut Vec<Cause>) {
    let list = Path::Root.field("rules");
    for (index, rule) in array(object, "rules").iter().enumerate() {
        let path = list.index(index);
        let empty = |key: &str| array(rule, key).is_empty();
        if empty("verbs") {
            causes.push(Cause::required(path.field("verbs"), "verbs must contain at least one value"));
        }
        if !empty("nonResourceURLs") {
            let urls = path.field("nonResourceURLs");
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                causes.push(Cause::invalid(urls, &rule["nonResourceURLs"], detail));
            }
            if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(Cause::invalid(urls, &rule["nonResourceURLs"], detail));
            }
            continue;
        }
        if empty("apiGroups") {
            causes.push(Cause::required(path.field("apiGroups"), "resource rules must supply at least one api group"));
        }
        if empty("resources") {
            causes.push(Cause::required(path.field("resources"), "resource rules must supply at least one resource"));
        }
    }
}

pub(super) fn binding(object: &Value, old: Option<&Value>, namespaced: bool, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    let (role, path) = (&object["roleRef"], root.field("roleRef"));
    if text(role, "apiGroup") != GROUP {
        causes.push(Cause::not_supported(path.field("apiGroup"), &text(role, "apiGroup").into(), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(role, "kind")) {
        causes.push(Cause::not_supported(path.field("kind"), &text(role, "kind").into(), kinds));
    }
    required_name(role, "name", names::path_segment, &path, causes);
    if old.is_some_and(|old| old["roleRef"] != *role) {
        causes.push(Cause::invalid(path, role, "cannot change roleRef"));
    }
    let list = root.field("subjects");
    for (index, subject) in array(object, "subjects").iter().enumerate() {
        let path = list.index(index);
        required(subject, "name", &path, causes);
        match text(subject, "kind") {
            "ServiceAccount" => {
                if has(subject, "apiGroup") && !text(subject, "apiGroup").is_empty() {
                    causes.push(Cause::not_supported(path.field("apiGroup"), &subject["apiGroup"], &[""]));
                }
                required(subject, "namespace", &path, causes);
            }
            "User" | "Group" if text(subject, "apiGroup") != GROUP => {
                causes.push(Cause::not_supported(path.field("apiGroup"), &text(subject, "apiGroup").into(), &[GROUP]));
            }
            "User" | "Group" => {}
            other => {
                causes.push(Cause::not_supported(
                    path.field("kind"),
                    &other.into(),
                    &["ServiceAccount", "User", "Group"],
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};
    use super::*;

    #[test]
    fn roles_and_bindings_are_judged() {
        let rows = [
            ("roles", json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}), vec![]),
            (
                "roles",
                json!({"rules": [{}]}),
                vec![
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ],
            ),
            (
                "roles",
                json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
                vec![
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                ],
            ),
            ("clusterroles", json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}), vec![]),
            (
                "clusterrolebindings",
                json!({"roleRef": {"kind": "ClusterRole", "name": "a"}, "subjects": [{"kind": "User", "name": "u"}]}),
                vec![],
            ),
            (
                "clusterrolebindings",
                json!({"roleRef": {"kind": "Role", "name": "a"}}),
                vec!["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
            ),
            (
                "rolebindings",
                json!({"roleRef": {"kind": "Role", "name": "a"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
                vec!["subjects[0].namespace: Required value"],
            ),
        ];
        for (plural, object, want) in rows {
            assert_eq!(wrong(GROUP, plural, object.clone()), want, "{object}");
        }
        let binding = |role: &str| json!({"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": role}});
        let found = wrong_change(GROUP, "clusterrolebindings", &binding("a"), &binding("b"));
        assert!(found.len() == 1 && found[0].ends_with("cannot change roleRef"), "{found:?}");
    }
}
