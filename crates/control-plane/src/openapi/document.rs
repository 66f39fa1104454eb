//! One OpenAPI v3 document: paths with the parameters clients look for, and
//! the schemas they need.

use std::collections::BTreeSet;

use osc_api::{Resource, definitions::definitions};
use serde_json::{Map, Value, json};

use super::TITLE;
use crate::{paths::GIT_VERSION, resources::Served};

const REFERENCE: &str = "#/components/schemas/";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The document of the resources of one group and version.
pub(super) fn make(served: &[&Served]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Schemas::default();
    for served in served {
        let name = schemas.add(served);
        add_paths(&mut paths, served, &name);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": GIT_VERSION},
        "paths": paths,
        "components": {"schemas": schemas.done()},
    })
}

fn add_paths(paths: &mut Map<String, Value>, served: &Served, schema: &str) {
    let resource = &served.resource;
    let base = format!("/{}", super::path_of(&resource.group, &resource.version));
    let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{place}/{}", resource.plural);
    let mut operations = Map::new();
    for (verb, method) in [("list", "get"), ("create", "post"), ("deletecollection", "delete")] {
        if resource.can(verb) {
            operations.insert(method.into(), operation(served, method, verb, schema));
        }
    }
    paths.insert(collection.clone(), operations.into());
    let mut operations = Map::new();
    for (verb, method) in [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")] {
        if resource.can(verb) {
            operations.insert(method.into(), operation(served, method, verb, schema));
        }
    }
    if !operations.is_empty() {
        paths.insert(format!("{collection}/{{name}}"), operations.into());
    }
}

fn operation(served: &Served, method: &str, verb: &str, schema: &str) -> Value {
    let resource = &served.resource;
    let reference = json!({"$ref": format!("{REFERENCE}{schema}")});
    let mut parameters = Vec::new();
    if matches!(verb, "create" | "update" | "patch") {
        for name in ["dryRun", "fieldManager", "fieldValidation"] {
            parameters.push(json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}));
        }
    }
    let mut operation = json!({
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
        "parameters": parameters,
        "x-kubernetes-action": if verb == "create" { "post" } else if verb == "update" { "put" } else { verb },
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
    });
    let content = |types: &[&str], schema: &Value| -> Value {
        let content: Map<String, Value> =
            types.iter().map(|name| ((*name).to_owned(), json!({"schema": schema}))).collect();
        json!({"content": content, "required": true})
    };
    match method {
        "post" | "put" => operation["requestBody"] = content(&["application/json"], &reference),
        "patch" => {
            let mut types =
                vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
            if served.custom.is_none() {
                types.push(STRATEGIC);
            }
            operation["requestBody"] = content(&types, &json!({"type": "object"}));
        }
        _ => {}
    }
    operation
}

/// The name under which the schema of a custom kind is published.
pub(super) fn custom_name(resource: &Resource) -> String {
    let group: Vec<&str> = resource.group.split('.').rev().collect();
    format!("{}.{}.{}", group.join("."), resource.version, resource.kind)
}

/// Schemas of a document and everything they refer to.
#[derive(Default)]
struct Schemas {
    wanted: BTreeSet<String>,
    custom: Map<String, Value>,
}

impl Schemas {
    /// Adds the schema of a resource and returns its name.
    fn add(&mut self, served: &Served) -> String {
        let resource = &served.resource;
        match (&served.custom, &resource.definition) {
            (Some(custom), _) => {
                let schema =
                    osc_schema::to_openapi_kind(&custom.schema, &resource.group, &resource.version, &resource.kind);
                let name = custom_name(resource);
                self.custom.insert(name.clone(), schema);
                name
            }
            (None, Some(name)) => {
                self.wanted.insert(name.clone());
                name.clone()
            }
            (None, None) => String::new(),
        }
    }

    /// All schemas, built-in ones with what they refer to.
    fn done(self) -> Map<String, Value> {
        let mut todo: Vec<String> = self.wanted.into_iter().collect();
        let mut schemas = self.custom;
        for schema in schemas.values() {
            references(schema, &mut todo);
        }
        while let Some(name) = todo.pop() {
            if schemas.contains_key(&name) {
                continue;
            }
            if let Some(schema) = definitions().get(&name) {
                let schema = osc_schema::to_openapi(schema);
                references(&schema, &mut todo);
                schemas.insert(name, schema);
            }
        }
        schemas
    }
}

/// Names a schema refers to.
fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix(REFERENCE)) {
                found.push(name.to_owned());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_complete_in_themselves() {
        let snapshot = crate::resources::Catalog::default().snapshot();
        let apps: Vec<&Served> = super::super::of_group_version(&snapshot, "apps", "v1").collect();
        let document = make(&apps);
        let mut names = Vec::new();
        references(&document, &mut names);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for name in names {
            assert!(schemas.contains_key(&name), "{name}");
        }
        let paths = document["paths"].as_object().unwrap();
        let (_, deployment) = paths.iter().find(|(path, _)| path.ends_with("/deployments/{name}")).unwrap();
        let patch = &deployment["patch"];
        assert!(patch["parameters"].as_array().unwrap().iter().any(|it| it["name"] == "fieldValidation"));
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(patch["requestBody"]["content"].get(STRATEGIC).is_some());
    }
}
