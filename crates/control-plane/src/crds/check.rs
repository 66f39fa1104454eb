//! Rules for definitions beyond their schema.

use osc_schema::{Cause, Schema};
use serde_json::{Value, json};

/// What is wrong with a definition.
pub(crate) fn check(crd: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &crd["spec"];
    if spec["conversion"]["strategy"] == "Webhook" {
        let why = "conversion by webhook is not offered by this server: use None";
        causes.push(Cause::forbidden("spec.conversion.strategy", why));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().filter(|version| version["storage"] == true).count();
    if storage != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &json!(names(versions)), why));
    }
    for (at, version) in versions.iter().enumerate() {
        if versions[..at].iter().any(|other| other["name"] == version["name"]) {
            causes.push(Cause::duplicate(format!("spec.versions[{at}].name"), &version["name"]));
        }
        let unchanged = old.is_some_and(|old| old["spec"]["versions"][at]["schema"] == version["schema"]);
        if !unchanged {
            check_schema(&version["schema"]["openAPIV3Schema"], at, &mut causes);
        }
        check_scale(&version["subresources"]["scale"], at, &mut causes);
    }
    for (at, stored) in crd["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let field = format!("status.storedVersions[{at}]");
            causes.push(Cause::invalid(field, stored, "must appear in spec.versions"));
        }
    }
    causes
}

fn names(versions: &[Value]) -> Vec<&Value> {
    versions.iter().map(|version| &version["name"]).collect()
}

fn check_schema(schema: &Value, at: usize, causes: &mut Vec<Cause>) {
    let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
    if schema.is_null() {
        causes.push(Cause::required(field, "schemas are required"));
    } else if let Err(problems) = Schema::from_crd(schema, &field) {
        causes.extend(problems);
    }
}

fn check_scale(scale: &Value, at: usize, causes: &mut Vec<Cause>) {
    if scale.is_null() {
        return;
    }
    for (field, root, needed) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", ".s", false),
    ] {
        let path = scale[field].as_str().unwrap_or_default();
        let at = format!("spec.versions[{at}].subresources.scale.{field}");
        if path.is_empty() && needed {
            causes.push(Cause::required(at, ""));
        } else if !path.is_empty() && (!path.starts_with(root) || path.contains(['[', ']', '*'])) {
            causes.push(Cause::invalid(
                at,
                &scale[field],
                "should be a json path under .spec or .status without array notation",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_that_cannot_work_are_refused() {
        let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
        let rows = [
            (json!({"versions": [version("v1", true)]}), ""),
            (
                json!({"versions": [version("v1", true)], "conversion": {"strategy": "Webhook"}}),
                "spec.conversion.strategy",
            ),
            (json!({"versions": [version("v1", false)]}), "spec.versions"),
            (json!({"versions": [version("v1", true), version("v1", false)]}), "spec.versions[1].name"),
            (json!({"versions": [{"name": "v1", "storage": true}]}), "spec.versions[0].schema.openAPIV3Schema"),
            (
                json!({"versions": [{"name": "v1", "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
                "subresources": {"scale": {"specReplicasPath": ".spec.replicas"}}}]}),
                "spec.versions[0].subresources.scale.statusReplicasPath",
            ),
        ];
        for (spec, want) in rows {
            let causes = check(&json!({"spec": spec}), None);
            assert_eq!(causes.first().map_or("", |cause| cause.field.as_str()), want, "{spec}: {causes:?}");
        }
    }

    #[test]
    fn a_version_with_objects_in_it_stays() {
        let crd = json!({"spec": {"versions": [{"name": "v2", "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
            "status": {"storedVersions": ["v1", "v2"]}});
        assert_eq!(check(&crd, None)[0].field, "status.storedVersions[0]");
    }
}
