//! From OpenAPI v3 JSON to [`Schema`].
//!
//! One parser for definitions of built-in kinds and for schemas inside CustomResourceDefinitions. It checks the type
//! of every keyword and the depth; whether a schema is *structural* is judged afterwards, by `structural`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::bounds::MAX_DEPTH;
use crate::cause::Cause;
use crate::keywords::Keywords;
use crate::model::{Checks, Kind, ListType, MapType, PatchStrategy, Pattern, Rule, Schema};
use crate::path::Path;

/// A definition that is not a schema.
#[derive(Debug, thiserror::Error)]
#[error("definition {definition} is not an OpenAPI v3 schema: {}", listed(.causes))]
pub struct ParseError {
    /// Name of the definition.
    pub definition: String,
    /// What is wrong, with paths inside the definition.
    pub causes: Vec<Cause>,
}

fn listed(causes: &[Cause]) -> String {
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads the definition `name`. An object of which no field is described is opaque: what it holds is kept.
pub(crate) fn definition(name: &str, value: &Value) -> Result<Schema, ParseError> {
    let mut causes = Vec::new();
    let mut parsed = schema(value, &Path::Root, &mut causes);
    if parsed.kind == Kind::Object && parsed.properties.is_empty() && parsed.additional.is_none() {
        parsed.preserve_unknown_fields = true;
    }
    if causes.is_empty() { Ok(parsed) } else { Err(ParseError { definition: name.to_owned(), causes }) }
}

impl Schema {
    /// Reads one schema of an OpenAPI v3 document, without judging whether it is structural.
    pub fn from_openapi(value: &Value) -> Result<Self, ParseError> {
        let mut causes = Vec::new();
        let parsed = schema(value, &Path::Root, &mut causes);
        if causes.is_empty() { Ok(parsed) } else { Err(ParseError { definition: String::new(), causes }) }
    }
}

/// Reads a schema; what cannot be read is left out and reported.
pub(crate) fn schema(value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Schema {
    nested(value, path, causes, MAX_DEPTH)
}

fn nested(value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>, depth: usize) -> Schema {
    let map = match value {
        Value::Object(map) => map,
        Value::Bool(true) => return Schema::anything(),
        Value::Bool(false) => {
            causes.push(Cause::forbidden(path.to_field(), "cannot be set to false"));
            return Schema::default();
        }
        other => {
            causes.push(Cause::type_invalid(path.to_field(), other, "must be a schema"));
            return Schema::default();
        }
    };
    if depth == 0 {
        causes.push(Cause::forbidden(path.to_field(), &format!("schemas nest at most {MAX_DEPTH} levels")));
        return Schema::default();
    }
    let mut keywords = Keywords { map, path, causes };
    let mut schema = Schema {
        reference: reference(&mut keywords),
        kind: kind(&mut keywords),
        description: keywords.owned_text("description").unwrap_or_default(),
        format: keywords.owned_text("format"),
        nullable: keywords.flag("nullable"),
        int_or_string: keywords.flag("x-kubernetes-int-or-string"),
        preserve_unknown_fields: preserve(&mut keywords),
        embedded_resource: keywords.flag("x-kubernetes-embedded-resource"),
        default: map.get("default").filter(|value| !value.is_null()).cloned(),
        rules: rules(&mut keywords),
        list_type: list_type(&mut keywords),
        map_type: map_type(&mut keywords),
        patch_merge_key: keywords.owned_text("x-kubernetes-patch-merge-key"),
        patch_strategy: patch_strategy(&mut keywords),
        group_version_kind: map.get("x-kubernetes-group-version-kind").cloned(),
        checks: scalar_checks(&mut keywords),
        ..Schema::default()
    };
    read_children(&mut schema, map, path, causes, depth - 1);
    schema
}

/// Reads everything of a schema that consists of schemas.
fn read_children(
    schema: &mut Schema,
    map: &Map<String, Value>,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
    depth: usize,
) {
    if let Some(properties) = (Keywords { map, path, causes }).object("properties") {
        let below = path.field("properties");
        schema.properties = properties
            .iter()
            .map(|(name, value)| (name.clone(), nested(value, &below.key(name), causes, depth)))
            .collect::<BTreeMap<_, _>>();
    }
    let mut single = |name: &str| {
        let value = map.get(name).filter(|value| !value.is_null())?;
        Some(Box::new(nested(value, &path.field(name), causes, depth)))
    };
    schema.additional = single("additionalProperties");
    schema.items = single("items");
    schema.checks.not = single("not");
    let mut several = |name: &str| -> Vec<Schema> {
        let values = (Keywords { map, path, causes }).list(name);
        let below = path.field(name);
        values.iter().enumerate().map(|(i, value)| nested(value, &below.index(i), causes, depth)).collect()
    };
    schema.checks.any_of = several("anyOf");
    schema.checks.one_of = several("oneOf");
    // `allOf: [{$ref}]` is how a reference with siblings is written.
    if schema.reference.is_none() || map.contains_key("$ref") {
        schema.checks.all_of = several("allOf");
    }
}

fn kind(keywords: &mut Keywords<'_, '_>) -> Kind {
    match keywords.text("type") {
        None | Some("") => Kind::Any,
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some("string") => Kind::String,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        Some(other) => {
            let names = ["array", "boolean", "integer", "number", "object", "string"];
            keywords.causes.push(Cause::not_supported(keywords.path.field("type"), &Value::from(other), &names));
            Kind::Any
        }
    }
}

fn reference(keywords: &mut Keywords<'_, '_>) -> Option<String> {
    let target = match keywords.map.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Object(only)]) if only.len() == 1 => only.get("$ref").and_then(Value::as_str),
        _ => None,
    };
    let target = target.or_else(|| keywords.text("$ref"))?;
    let name = target.strip_prefix("#/components/schemas/").or_else(|| target.strip_prefix("#/definitions/"));
    if name.is_none() {
        let detail = "must point into #/components/schemas/";
        keywords.causes.push(Cause::invalid(keywords.path.field("$ref"), &Value::from(target), detail));
    }
    name.map(str::to_owned)
}

fn preserve(keywords: &mut Keywords<'_, '_>) -> bool {
    let name = "x-kubernetes-preserve-unknown-fields";
    let set = keywords.set_flag(name);
    if set == Some(false) {
        let detail = "must be true or undefined";
        keywords.causes.push(Cause::invalid(keywords.path.field(name), &Value::Bool(false), detail));
    }
    set == Some(true)
}

fn list_type(keywords: &mut Keywords<'_, '_>) -> ListType {
    let keys = keywords.texts("x-kubernetes-list-map-keys");
    match keywords.text("x-kubernetes-list-type") {
        None | Some("atomic") => ListType::Atomic,
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(keys),
        Some(other) => {
            let field = keywords.path.field("x-kubernetes-list-type");
            keywords.causes.push(Cause::not_supported(field, &Value::from(other), &["atomic", "map", "set"]));
            ListType::Atomic
        }
    }
}

fn map_type(keywords: &mut Keywords<'_, '_>) -> MapType {
    match keywords.text("x-kubernetes-map-type") {
        None | Some("granular") => MapType::Granular,
        Some("atomic") => MapType::Atomic,
        Some(other) => {
            let field = keywords.path.field("x-kubernetes-map-type");
            keywords.causes.push(Cause::not_supported(field, &Value::from(other), &["atomic", "granular"]));
            MapType::Granular
        }
    }
}

fn patch_strategy(keywords: &mut Keywords<'_, '_>) -> PatchStrategy {
    let text = keywords.text("x-kubernetes-patch-strategy").unwrap_or_default();
    let has = |word: &str| text.split(',').any(|part| part.trim() == word);
    PatchStrategy { merge: has("merge"), retain_keys: has("retainKeys") }
}

/// The checks that are not made of schemas.
fn scalar_checks(keywords: &mut Keywords<'_, '_>) -> Checks {
    Checks {
        required: keywords.texts("required"),
        values: keywords.list("enum").to_vec(),
        pattern: pattern(keywords),
        minimum: keywords.number("minimum"),
        exclusive_minimum: keywords.flag("exclusiveMinimum"),
        maximum: keywords.number("maximum"),
        exclusive_maximum: keywords.flag("exclusiveMaximum"),
        multiple_of: keywords.number("multipleOf"),
        min_length: keywords.count("minLength"),
        max_length: keywords.count("maxLength"),
        min_items: keywords.count("minItems"),
        max_items: keywords.count("maxItems"),
        unique_items: keywords.flag("uniqueItems"),
        min_properties: keywords.count("minProperties"),
        max_properties: keywords.count("maxProperties"),
        ..Checks::default()
    }
}

fn pattern(keywords: &mut Keywords<'_, '_>) -> Option<Pattern> {
    let text = keywords.text("pattern").filter(|text| !text.is_empty())?;
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            keywords.causes.push(Cause::invalid(keywords.path.field("pattern"), &Value::from(text), &detail));
            None
        }
    }
}

fn rules(keywords: &mut Keywords<'_, '_>) -> Vec<Rule> {
    let list = keywords.list("x-kubernetes-validations");
    let below = keywords.path.field("x-kubernetes-validations");
    let causes = &mut *keywords.causes;
    let rule = |(index, value): (usize, &Value)| {
        let path = below.index(index);
        let Value::Object(map) = value else {
            causes.push(Cause::type_invalid(path, value, "must be an object"));
            return Rule::default();
        };
        let mut keywords = Keywords { map, path: &path, causes };
        Rule {
            rule: keywords.owned_text("rule").unwrap_or_default(),
            message: keywords.owned_text("message"),
            message_expression: keywords.owned_text("messageExpression").filter(|text| !text.is_empty()),
            reason: keywords.owned_text("reason"),
            field_path: keywords.owned_text("fieldPath").filter(|text| !text.is_empty()),
            optional_old_self: keywords.flag("optionalOldSelf"),
            program: None,
            message_program: None,
        }
    };
    list.iter().enumerate().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(value: Value) -> (Schema, Vec<String>) {
        let mut causes = Vec::new();
        let schema = schema(&value, &Path::At("s"), &mut causes);
        (schema, causes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn references_are_read_in_both_spellings() {
        for value in [
            json!({"$ref": "#/components/schemas/a.B", "description": "d"}),
            json!({"allOf": [{"$ref": "#/components/schemas/a.B"}], "description": "d"}),
        ] {
            let (schema, causes) = parsed(value);
            assert_eq!((schema.reference.as_deref(), schema.description.as_str()), (Some("a.B"), "d"));
            assert!(schema.checks.all_of.is_empty() && causes.is_empty(), "{causes:?}");
        }
    }

    #[test]
    fn keywords_of_the_wrong_type_are_named() {
        for (value, want) in [
            (json!({"type": 3}), "s.type: Invalid value: 3: must be a string"),
            (json!({"type": "int"}), "s.type: Unsupported value: \"int\""),
            (json!({"minLength": -1}), "s.minLength: Invalid value: -1: must be a non-negative integer"),
            (json!({"properties": []}), "s.properties: Invalid value: []: must be an object"),
            (json!({"properties": {"a": 1}}), "s.properties[a]: Invalid value: 1: must be a schema"),
            (json!({"pattern": "("}), "s.pattern: Invalid value: \"(\": must be a valid regular expression"),
            (json!({"allOf": [{"type": 1}]}), "s.allOf[0].type: Invalid value: 1"),
            (json!({"x-kubernetes-list-type": "x"}), "s.x-kubernetes-list-type: Unsupported value: \"x\""),
            (json!({"x-kubernetes-preserve-unknown-fields": false}), "must be true or undefined"),
            (json!({"x-kubernetes-validations": [1]}), "s.x-kubernetes-validations[0]: Invalid value: 1"),
        ] {
            let (_, causes) = parsed(value.clone());
            assert!(causes.len() == 1 && causes[0].contains(want), "{value}: {causes:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = (0..=MAX_DEPTH).fold(json!({"type": "string"}), |inner, _| json!({"not": inner}));
        let (_, causes) = parsed(deep);
        assert!(causes.len() == 1 && causes[0].contains("nest at most"), "{causes:?}");
    }

    #[test]
    fn opaque_definitions_keep_what_they_hold() {
        assert!(definition("RawExtension", &json!({"type": "object"})).unwrap().preserve_unknown_fields);
        let error = definition("x", &json!({"type": "float"})).unwrap_err();
        assert!(error.to_string().starts_with("definition x is not an OpenAPI v3 schema: type: Unsupported"));
    }
}
