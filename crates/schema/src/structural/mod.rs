//! Which schemas a CustomResourceDefinition may have: structural ones.
//!
//! A structural schema gives every field a type outside of `allOf`, `anyOf`, `oneOf` and `not`; inside of them it only
//! judges values. That is what makes pruning, defaulting and ownership well-defined. Paths and messages are those
//! Kubernetes gives when it refuses a definition.

mod defaults;
mod identity;
mod lists;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::cause::Cause;
use crate::model::{Kind, ListType, MapType, Schema};
use crate::node::Node;
use crate::parse;
use crate::path::Path;
use crate::rules;

impl Schema {
    /// Reads the schema of a custom resource. `at` is where it stands in its definition, such as
    /// `spec.versions[0].schema.openAPIV3Schema`; the causes of a refusal point below it.
    ///
    /// The result describes apiVersion, kind and metadata even if the definition does not, at the top and in embedded
    /// resources, and its CEL rules are compiled.
    pub fn from_crd(value: &Value, at: &str) -> Result<Self, Vec<Cause>> {
        let mut causes = Vec::new();
        let path = Path::At(at);
        unsupported_keywords(value, &path, &mut causes);
        let mut schema = parse::schema(value, &path, &mut causes);
        root(&schema, &path, &mut causes);
        structure(&schema, Place::Root, &path, &mut causes);
        if !causes.is_empty() {
            return Err(causes);
        }
        identity::describe(&mut schema, true);
        defaults::check(Node::custom(&schema), &path, &mut causes);
        rules::compile(&mut schema, &path, &mut causes);
        if causes.is_empty() { Ok(schema) } else { Err(causes) }
    }
}

/// Keywords that exist in JSON schemas but not in structural ones, wherever they stand.
fn unsupported_keywords(value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    const UNSUPPORTED: [&str; 6] =
        ["$ref", "id", "patternProperties", "additionalItems", "definitions", "dependencies"];
    let Value::Object(map) = value else { return };
    for name in UNSUPPORTED {
        if map.get(name).is_some_and(|value| !value.is_null() && value.as_str() != Some("")) {
            causes.push(Cause::forbidden(path.field(name), &format!("{name} is not supported")));
        }
    }
    if let Some(Value::Object(properties)) = map.get("properties") {
        let below = path.field("properties");
        properties.iter().for_each(|(name, value)| unsupported_keywords(value, &below.key(name), causes));
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(value) = map.get(name) {
            unsupported_keywords(value, &path.field(name), causes);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(list)) = map.get(name) {
            let below = path.field(name);
            list.iter().enumerate().for_each(|(i, value)| unsupported_keywords(value, &below.index(i), causes));
        }
    }
    let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty());
    if keys && map.get("x-kubernetes-list-type").and_then(Value::as_str) != Some("map") {
        let field = path.field("x-kubernetes-list-type");
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        causes.push(Cause::invalid(field, map.get("x-kubernetes-list-type").unwrap_or(&Value::Null), detail));
    }
}

fn root(schema: &Schema, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(name) = schema.kind.name().filter(|name| *name != "object") {
        causes.push(Cause::invalid(path.field("type"), &Value::from(name), "must be object at the root"));
    }
    if schema.nullable {
        causes.push(Cause::forbidden(path.field("nullable"), "nullable cannot be true at the root"));
    }
    identity::check(schema, path, causes);
}

/// Where in its parent a schema stands, which decides how a missing type is worded.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Field,
    Item,
}

fn structure(schema: &Schema, place: Place, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if schema.kind == Kind::Any && !schema.int_or_string && !schema.preserve_unknown_fields {
        let detail = match place {
            Place::Root => "must not be empty at the root",
            Place::Field => "must not be empty for specified object fields",
            Place::Item => "must not be empty for specified array items",
        };
        causes.push(Cause::required(path.field("type"), detail));
    }
    extensions(schema, path, causes);
    lists::check(schema, path, causes);
    let properties = path.field("properties");
    for (name, below) in &schema.properties {
        structure(below, Place::Field, &properties.key(name), causes);
    }
    if let Some(below) = &schema.additional {
        let path = path.field("additionalProperties");
        if !schema.properties.is_empty() {
            causes.push(Cause::forbidden(path, "additionalProperties and properties are mutual exclusive"));
        }
        structure(below, Place::Field, &path, causes);
    }
    match &schema.items {
        Some(below) => structure(below, Place::Item, &path.field("items"), causes),
        None if schema.kind == Kind::Array => {
            causes.push(Cause::required(path.field("items"), "must be specified"));
        }
        None => {}
    }
    each_branch(schema, path, |branch, path| value_validation(branch, schema, path, causes));
}

/// Calls `visit` for every schema of `allOf`, `anyOf`, `oneOf` and `not`.
fn each_branch(schema: &Schema, path: &Path<'_>, mut visit: impl FnMut(&Schema, &Path<'_>)) {
    let checks = &schema.checks;
    for (name, branches) in [("allOf", &checks.all_of), ("anyOf", &checks.any_of), ("oneOf", &checks.one_of)] {
        let below = path.field(name);
        branches.iter().enumerate().for_each(|(index, branch)| visit(branch, &below.index(index)));
    }
    if let Some(not) = &checks.not {
        visit(not, &path.field("not"));
    }
}

/// What may stand inside `allOf` and its like: nothing that says what a value looks like, and no field or item that
/// `outer`, the schema around it, does not describe.
fn value_validation(branch: &Schema, outer: &Schema, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let spoken_for = outer.int_or_string && matches!(branch.kind, Kind::Integer | Kind::String);
    let forbidden = [
        ("description", !branch.description.is_empty(), "must be empty to be structural"),
        ("type", branch.kind != Kind::Any && !spoken_for, "must be empty to be structural"),
        ("default", branch.default.is_some(), "must be undefined to be structural"),
        ("additionalProperties", branch.additional.is_some(), "must be undefined to be structural"),
        ("nullable", branch.nullable, "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", branch.preserve_unknown_fields, "must be false to be structural"),
        ("x-kubernetes-embedded-resource", branch.embedded_resource, "must be false to be structural"),
        ("x-kubernetes-int-or-string", branch.int_or_string, "must be false to be structural"),
        ("x-kubernetes-list-type", branch.list_type != ListType::Atomic, "must be undefined to be structural"),
        ("x-kubernetes-map-type", branch.map_type != MapType::Granular, "must be undefined to be structural"),
        ("x-kubernetes-validations", !branch.rules.is_empty(), "must be empty to be structural"),
    ];
    for (name, present, detail) in forbidden {
        if present {
            causes.push(Cause::forbidden(path.field(name), detail));
        }
    }
    let properties = path.field("properties");
    for (name, below) in &branch.properties {
        let path = properties.key(name);
        match outer.properties.get(name).or(outer.additional.as_deref()) {
            Some(outer) => value_validation(below, outer, &path, causes),
            None if outer.preserve_unknown_fields => {}
            None => causes.push(Cause::required(path, "must be defined outside of allOf, anyOf, oneOf and not too")),
        }
    }
    if let Some(below) = &branch.items {
        let path = path.field("items");
        match &outer.items {
            Some(outer) => value_validation(below, outer, &path, causes),
            None => causes.push(Cause::required(path, "must be defined outside of allOf, anyOf, oneOf and not too")),
        }
    }
    each_branch(branch, path, |inner, path| value_validation(inner, outer, path, causes));
}

/// Combinations of types and `x-kubernetes-*` keywords that contradict each other.
fn extensions(schema: &Schema, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let kind = Value::from(schema.kind.name().unwrap_or_default());
    let mut wrong_type = |detail: &str| causes.push(Cause::invalid(path.field("type"), &kind, detail));
    let object_or_any = matches!(schema.kind, Kind::Object | Kind::Any);
    if schema.int_or_string && schema.kind != Kind::Any {
        wrong_type("must be empty if x-kubernetes-int-or-string is true");
    }
    if schema.preserve_unknown_fields && !object_or_any {
        wrong_type("must be object if x-kubernetes-preserve-unknown-fields is true");
    }
    if schema.embedded_resource && schema.kind != Kind::Object {
        wrong_type("must be object if x-kubernetes-embedded-resource is true");
    }
    if schema.list_type != ListType::Atomic && schema.kind != Kind::Array {
        wrong_type("must be array if x-kubernetes-list-type is specified");
    }
    if schema.map_type == MapType::Atomic && schema.kind != Kind::Object {
        wrong_type("must be object if x-kubernetes-map-type is specified");
    }
    if schema.checks.unique_items {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(path.field("uniqueItems"), detail));
    }
    if schema.embedded_resource {
        if schema.additional.is_some() {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            causes.push(Cause::forbidden(path.field("additionalProperties"), detail));
        } else if schema.properties.is_empty() && !schema.preserve_unknown_fields {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                          x-kubernetes-preserve-unknown-fields";
            causes.push(Cause::required(path.field("properties"), detail));
        }
        identity::check(schema, path, causes);
    }
}
