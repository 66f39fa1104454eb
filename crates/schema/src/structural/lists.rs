//! Lists whose items have an identity.

use std::collections::HashSet;

use serde_json::Value;

use crate::cause::Cause;
use crate::model::{Kind, ListType, MapType, Schema};
use crate::path::Path;

/// Items of a set or map must be able to have an identity.
pub(super) fn check(schema: &Schema, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let Some(items) = &schema.items else { return };
    let below = path.field("items");
    if schema.list_type == ListType::Set {
        if items.nullable {
            let detail = "cannot be nullable when x-kubernetes-list-type is set";
            causes.push(Cause::forbidden(below.field("nullable"), detail));
        }
        if items.kind == Kind::Object && items.map_type != MapType::Atomic {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            causes.push(Cause::invalid(below.field("x-kubernetes-map-type"), &Value::Null, detail));
        }
        if items.kind == Kind::Array && items.list_type != ListType::Atomic {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            causes.push(Cause::invalid(below.field("x-kubernetes-list-type"), &Value::Null, detail));
        }
    }
    let ListType::Map(keys) = &schema.list_type else { return };
    let field = path.field("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        causes.push(Cause::required(field, "must not be empty if x-kubernetes-list-type is map"));
    }
    if items.kind != Kind::Object {
        let value = Value::from(items.kind.name().unwrap_or_default());
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        causes.push(Cause::invalid(below.field("type"), &value, detail));
        return;
    }
    if items.nullable {
        let detail = "cannot be nullable when x-kubernetes-list-type is map";
        causes.push(Cause::forbidden(below.field("nullable"), detail));
    }
    let mut seen = HashSet::new();
    let properties = below.field("properties");
    for (index, key) in keys.iter().enumerate() {
        if !seen.insert(key) {
            causes.push(Cause::duplicate(field.index(index), &Value::from(key.as_str())));
        }
        list_key(items, key, &field.index(index), &properties.key(key), causes);
    }
}

fn list_key(items: &Schema, key: &str, named: &Path<'_>, described: &Path<'_>, causes: &mut Vec<Cause>) {
    let Some(property) = items.properties.get(key) else {
        let detail = "entries must all be names of item properties";
        causes.push(Cause::invalid(named, &Value::from(key), detail));
        return;
    };
    if matches!(property.kind, Kind::Object | Kind::Array) {
        let value = Value::from(property.kind.name().unwrap_or_default());
        let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
        causes.push(Cause::invalid(described.field("type"), &value, detail));
    }
    if property.nullable {
        let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
        causes.push(Cause::forbidden(described.field("nullable"), detail));
    }
    if property.default.is_none() && !items.checks.required.iter().any(|name| name == key) {
        let detail =
            "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
        causes.push(Cause::required(described.field("default"), detail));
    }
}
