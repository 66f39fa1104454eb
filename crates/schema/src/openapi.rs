//! From [`Schema`] back to OpenAPI v3 JSON, for publishing.

use serde_json::{Map, Value, json};

use crate::meta::OBJECT_META;
use crate::model::{Checks, ListType, MapType, Rule, Schema};

/// The schema as OpenAPI v3 JSON.
pub fn to_openapi(schema: &Schema) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    let flag = |set: bool| set.then_some(Value::Bool(true));
    let text = |text: &Option<String>| text.as_deref().map(Value::from);

    put("allOf", schema.reference.as_ref().map(|name| json!([{"$ref": format!("#/components/schemas/{name}")}])));
    put("type", schema.kind.name().map(Value::from));
    put("description", Some(&schema.description).filter(|text| !text.is_empty()).map(|text| json!(text)));
    put("format", text(&schema.format));
    put("nullable", flag(schema.nullable));
    put("default", schema.default.clone());
    let properties: Map<_, _> =
        schema.properties.iter().map(|(name, below)| (name.clone(), to_openapi(below))).collect();
    put("properties", Some(Value::Object(properties)).filter(|map| *map != json!({})));
    put("additionalProperties", schema.additional.as_deref().map(to_openapi));
    put("items", schema.items.as_deref().map(to_openapi));
    put("x-kubernetes-int-or-string", flag(schema.int_or_string));
    put("x-kubernetes-preserve-unknown-fields", flag(schema.preserve_unknown_fields));
    put("x-kubernetes-embedded-resource", flag(schema.embedded_resource));
    let (list_type, keys) = match &schema.list_type {
        ListType::Atomic => (None, None),
        ListType::Set => (Some("set"), None),
        ListType::Map(keys) => (Some("map"), Some(json!(keys))),
    };
    put("x-kubernetes-list-type", list_type.map(Value::from));
    put("x-kubernetes-list-map-keys", keys);
    put("x-kubernetes-map-type", (schema.map_type == MapType::Atomic).then(|| json!("atomic")));
    put("x-kubernetes-patch-merge-key", text(&schema.patch_merge_key));
    put("x-kubernetes-patch-strategy", patch_strategy(schema).map(Value::from));
    put("x-kubernetes-group-version-kind", schema.group_version_kind.clone());
    let rules: Vec<Value> = schema.rules.iter().map(rule).collect();
    put("x-kubernetes-validations", Some(Value::from(rules)).filter(|list| *list != json!([])));
    checks(&schema.checks, &mut out);
    Value::Object(out)
}

/// The schema of a custom kind as it is published: with apiVersion, kind and metadata described like those of every
/// other kind, and said to be `group`, `version`, `kind`.
pub fn to_openapi_kind(schema: &Schema, group: &str, version: &str, kind: &str) -> Value {
    let mut value = to_openapi(schema);
    if let Some(out) = value.as_object_mut() {
        out.remove("x-kubernetes-embedded-resource");
        out.insert("type".to_owned(), json!("object"));
        let properties = out.entry("properties").or_insert_with(|| json!({}));
        properties["apiVersion"] = json!({"type": "string", "description": "Group and version of this object."});
        properties["kind"] = json!({"type": "string", "description": "What this object is."});
        properties["metadata"] = json!({
            "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}],
            "description": "Name, labels and other data every object has.",
            "default": {},
        });
        let identity = json!([{"group": group, "version": version, "kind": kind}]);
        out.insert("x-kubernetes-group-version-kind".to_owned(), identity);
    }
    value
}

fn patch_strategy(schema: &Schema) -> Option<&'static str> {
    match (schema.patch_strategy.merge, schema.patch_strategy.retain_keys) {
        (false, false) => None,
        (true, false) => Some("merge"),
        (false, true) => Some("retainKeys"),
        (true, true) => Some("merge,retainKeys"),
    }
}

fn rule(rule: &Rule) -> Value {
    let mut out = Map::from_iter([("rule".to_owned(), json!(rule.rule))]);
    for (name, value) in [
        ("message", &rule.message),
        ("messageExpression", &rule.message_expression),
        ("reason", &rule.reason),
        ("fieldPath", &rule.field_path),
    ] {
        if let Some(value) = value {
            out.insert(name.to_owned(), json!(value));
        }
    }
    if rule.optional_old_self {
        out.insert("optionalOldSelf".to_owned(), json!(true));
    }
    Value::Object(out)
}

fn checks(checks: &Checks, out: &mut Map<String, Value>) {
    let mut put = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if !empty {
            out.insert(name.to_owned(), value);
        }
    };
    let several = |schemas: &[Schema]| Value::from(schemas.iter().map(to_openapi).collect::<Vec<_>>());
    put("required", json!(checks.required));
    put("enum", json!(checks.values));
    put("pattern", json!(checks.pattern.as_ref().map(super::model::Pattern::as_str)));
    put("minimum", json!(checks.minimum));
    put("exclusiveMinimum", json!(checks.exclusive_minimum));
    put("maximum", json!(checks.maximum));
    put("exclusiveMaximum", json!(checks.exclusive_maximum));
    put("multipleOf", json!(checks.multiple_of));
    put("minLength", json!(checks.min_length));
    put("maxLength", json!(checks.max_length));
    put("minItems", json!(checks.min_items));
    put("maxItems", json!(checks.max_items));
    put("uniqueItems", json!(checks.unique_items));
    put("minProperties", json!(checks.min_properties));
    put("maxProperties", json!(checks.max_properties));
    put("allOf", several(&checks.all_of));
    put("anyOf", several(&checks.any_of));
    put("oneOf", several(&checks.one_of));
    put("not", checks.not.as_deref().map_or(Value::Null, to_openapi));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_back() {
        for value in [
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^a", "maxLength": 3}},
                   "required": ["a"], "x-kubernetes-map-type": "atomic", "description": "d"}),
            json!({"type": "array", "items": {"type": "integer", "format": "int32", "minimum": 0, "exclusiveMinimum": true},
                   "x-kubernetes-list-type": "set", "default": [1]}),
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!({"type": "object", "additionalProperties": {"type": "string", "enum": ["a", "b"]}, "nullable": true,
                   "x-kubernetes-validations": [{"rule": "true", "message": "m", "optionalOldSelf": true}]}),
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                   "x-kubernetes-patch-merge-key": "k", "x-kubernetes-patch-strategy": "merge,retainKeys",
                   "items": {"allOf": [{"$ref": "#/components/schemas/x.Y"}], "description": "d"}}),
        ] {
            assert_eq!(to_openapi(&Schema::from_openapi(&value).unwrap()), value);
        }
    }

    #[test]
    fn published_kinds_have_metadata() {
        let schema =
            Schema::from_openapi(&json!({"type": "object", "properties": {"spec": {"type": "object"}}})).unwrap();
        let value = to_openapi_kind(&schema, "g.io", "v1", "K");
        assert_eq!(value["x-kubernetes-group-version-kind"], json!([{"group": "g.io", "version": "v1", "kind": "K"}]));
        assert!(value["properties"]["metadata"]["allOf"][0]["$ref"].as_str().unwrap().ends_with("ObjectMeta"));
        assert_eq!(value["properties"]["spec"], json!({"type": "object"}));
    }
}
