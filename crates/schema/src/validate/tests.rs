use serde_json::json;

use super::*;
use crate::model::Schema;

fn seen(schema: &Value, value: &Value) -> Vec<String> {
    let schema = Schema::from_openapi(schema).unwrap();
    validate(Node::custom(&schema), value, None).iter().map(ToString::to_string).collect()
}

/// The schema stands at `spec.x`.
fn at_x(schema: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}})
}

#[test]
fn every_keyword_complains_like_kubernetes() {
    let any_of = json!({"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]});
    let one_of = json!({"type": "integer", "oneOf": [{"minimum": 5}, {"minimum": 3}]});
    for (schema, value, want) in [
        (
            json!({"type": "integer"}),
            json!("a"),
            r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#,
        ),
        (
            json!({"type": "string"}),
            json!(null),
            r#"spec.x: Invalid value: "null": spec.x in body must be of type string: "null""#,
        ),
        (
            json!({"type": "object"}),
            json!([]),
            r#"spec.x: Invalid value: "array": spec.x in body must be of type object: "array""#,
        ),
        (json!({"x-kubernetes-int-or-string": true}), json!(true), r#"must be of type integer,string: "boolean""#),
        (json!({"type": "object", "required": ["y"]}), json!({}), "spec.x.y: Required value"),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("x"),
            r#"spec.x: Unsupported value: "x": supported values: "a", "b""#,
        ),
        (
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            r#"spec.x: Invalid value: "b": spec.x in body should match '^a$'"#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "spec.x in body should be greater than 1",
        ),
        (json!({"type": "number", "maximum": 1.5}), json!(2), "spec.x in body should be less than or equal to 1.5"),
        (
            json!({"type": "integer", "maximum": 1, "exclusiveMaximum": true}),
            json!(1),
            "spec.x in body should be less than 1",
        ),
        (json!({"type": "integer", "multipleOf": 3}), json!(4), "spec.x in body should be a multiple of 3"),
        (json!({"type": "string", "minLength": 2}), json!("é"), "spec.x in body should be at least 2 chars long"),
        (json!({"type": "string", "maxLength": 1}), json!("ab"), "spec.x: Too long: may not be more than 1 bytes"),
        (json!({"type": "array", "minItems": 1}), json!([]), "spec.x in body should have at least 1 items"),
        (json!({"type": "array", "maxItems": 1}), json!([1, 2]), "spec.x: Too many: 2: must have at most 1 items"),
        (
            json!({"type": "array", "uniqueItems": true}),
            json!([{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
            "spec.x in body shouldn't contain duplicates",
        ),
        (json!({"type": "object", "minProperties": 1}), json!({}), "spec.x in body should have at least 1 properties"),
        (
            json!({"type": "object", "maxProperties": 0}),
            json!({"a": 1}),
            "spec.x: Too many: 1: must have at most 0 items",
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("x"),
            r#"spec.x: Invalid value: "x": spec.x in body must be of type date-time: "x""#,
        ),
        (json!({"type": "integer", "format": "int32"}), json!(4294967296_i64), "must be of type int32"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", 1]),
            r#"spec.x[1]: Invalid value: "integer": spec.x[1] in body"#,
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"k": 1}),
            "spec.x.k: Invalid value",
        ),
        (any_of.clone(), json!(3), r#"spec.x: Invalid value: "": "spec.x" must validate at least one schema (anyOf)"#),
        (one_of.clone(), json!(1), r#""spec.x" must validate one and only one schema (oneOf). Found none valid"#),
        (
            one_of.clone(),
            json!(7),
            r#""spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
        (
            json!({"type": "integer", "allOf": [{"minimum": 5}]}),
            json!(3),
            r#""spec.x" must validate all the schemas (allOf)"#,
        ),
        (json!({"type": "integer", "not": {"enum": [3]}}), json!(3), r#""spec.x" must not validate the schema (not)"#),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "a"]),
            r#"spec.x[1]: Duplicate value: "a""#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
            json!([{"k": "a"}, {"k": "b"}, {"k": "a"}]),
            r#"spec.x[2]: Duplicate value: {"k":"a"}"#,
        ),
    ] {
        let causes = seen(&at_x(&schema), &json!({"spec": {"x": value}}));
        assert!(causes.iter().any(|cause| cause.contains(want)), "{schema} {value}: {causes:?}");
    }
    for (schema, value) in [
        (json!({"type": "integer"}), json!(1.0)),
        (json!({"type": "string", "nullable": true, "enum": ["a"]}), json!(null)),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (json!({"type": "integer", "minimum": 9007199254740993_i64}), json!(9007199254740993_i64)),
        (json!({"type": "number", "multipleOf": 0.1}), json!(0.3)),
        (json!({"type": "array", "items": {"type": "string"}}), json!(["a", "a"])),
        (any_of, json!(7)),
        (one_of, json!(4)),
    ] {
        assert_eq!(seen(&at_x(&schema), &json!({"spec": {"x": value}})), Vec::<String>::new(), "{schema} {value}");
    }
}

#[test]
fn the_object_itself_is_called_nil() {
    let causes = seen(&json!({"type": "object", "minProperties": 1}), &json!({}));
    assert_eq!(causes, ["<nil>: Invalid value: {}:  in body should have at least 1 properties"]);
}

#[test]
fn embedded_objects_say_what_they_are() {
    let schema = json!({"type": "object", "properties": {"template": {
        "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
    }}});
    let causes = seen(&schema, &json!({"template": {"kind": "Pod"}}));
    assert_eq!(causes, ["template.apiVersion: Required value: must not be empty"]);
    assert!(seen(&schema, &json!({"template": {"kind": "Pod", "apiVersion": "v1", "x": {"y": 1}}})).is_empty());
}

#[test]
fn what_does_not_change_may_be_as_wrong_as_it_was() {
    let item =
        json!({"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer", "maximum": 3}}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["must"], "properties": {
        "size": {"type": "integer", "minimum": 5,
            "x-kubernetes-validations": [{"rule": "self != 1", "message": "never one"}]},
        "other": {"type": "string"},
        "map": {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        "plain": {"type": "array", "items": {"type": "integer", "maximum": 3}},
    }}}});
    let schema = Schema::from_openapi(&schema).unwrap();
    let old =
        json!({"spec": {"must": 1, "size": 1, "map": [{"name": "a", "n": 9}, {"name": "b", "n": 1}], "plain": [9, 1]}});
    let with = |key: &str, value: Value| {
        let mut new = old.clone();
        new["spec"][key] = value;
        new
    };
    let rows = [
        (with("other", json!("x")), vec![]),
        (with("map", json!([{"name": "b", "n": 2}, {"name": "a", "n": 9}])), vec![]),
        (with("map", json!([{"name": "a", "n": 8}])), vec!["spec.map[0].n"]),
        (with("map", json!([{"name": "c", "n": 9}])), vec!["spec.map[0].n"]),
        (with("plain", json!([9, 1, 2])), vec!["spec.plain[0]"]),
        (with("size", json!(2)), vec!["spec.size"]),
        (json!({"spec": {"size": 1}}), vec!["spec.must"]),
    ];
    for (new, want) in rows {
        let causes = validate(Node::custom(&schema), &new, Some(&old));
        assert_eq!(causes.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), want, "{new}");
    }
    assert!(!validate(Node::custom(&schema), &old, None).is_empty(), "new objects have no such right");
}
