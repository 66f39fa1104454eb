use serde_json::json;

use super::*;

const AT: &str = "spec.versions[0].schema.openAPIV3Schema";

fn refused(schema: &Value) -> Vec<String> {
    match Schema::from_crd(schema, AT) {
        Ok(_) => Vec::new(),
        Err(causes) => causes.iter().map(|cause| cause.to_string().replace(AT, "S")).collect(),
    }
}

#[test]
fn schemas_that_are_not_structural_are_refused() {
    let with = |field: Value| json!({"type": "object", "properties": {"x": field}});
    let keyed = |items: Value| {
        with(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": items}),
        )
    };
    for (schema, want) in [
        (json!({}), "S.type: Required value: must not be empty at the root"),
        (json!({"type": "string"}), r#"S.type: Invalid value: "string": must be object at the root"#),
        (json!({"type": "object", "nullable": true}), "S.nullable: Forbidden: nullable cannot be true at the root"),
        (with(json!({})), "S.properties[x].type: Required value: must not be empty for specified object fields"),
        (
            with(json!({"type": "array", "items": {}})),
            "S.properties[x].items.type: Required value: must not be empty for specified array items",
        ),
        (with(json!({"type": "array"})), "S.properties[x].items: Required value: must be specified"),
        (
            with(
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            ),
            "S.properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            with(json!({"type": "object", "additionalProperties": false})),
            "S.properties[x].additionalProperties: Forbidden",
        ),
        (
            with(json!({"type": "string", "anyOf": [{"type": "string"}]})),
            "S.properties[x].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            with(json!({"type": "string", "not": {"default": 1}})),
            "S.properties[x].not.default: Forbidden: must be undefined to be structural",
        ),
        (
            with(json!({"type": "object", "allOf": [{"properties": {"y": {"minimum": 1}}}]})),
            "S.properties[x].allOf[0].properties[y]: Required value",
        ),
        (with(json!({"$ref": "#/definitions/x"})), "S.properties[x].$ref: Forbidden: $ref is not supported"),
        (
            with(json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}})),
            "S.properties[x].uniqueItems: Forbidden",
        ),
        (
            with(json!({"type": "string", "x-kubernetes-int-or-string": true})),
            "must be empty if x-kubernetes-int-or-string is true",
        ),
        (
            with(json!({"type": "string", "x-kubernetes-preserve-unknown-fields": true})),
            "must be object if x-kubernetes-preserve-unknown-fields is true",
        ),
        (
            with(json!({"type": "object", "x-kubernetes-embedded-resource": true})),
            "S.properties[x].properties: Required value: must not be empty if",
        ),
        (
            with(json!({"type": "object", "x-kubernetes-list-type": "set"})),
            "must be array if x-kubernetes-list-type is specified",
        ),
        (
            with(json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-map-keys": ["k"]})),
            "must be map if x-kubernetes-list-map-keys is non-empty",
        ),
        (
            with(json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"})),
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            keyed(json!({"type": "string"})),
            "S.properties[x].items.type: Invalid value: \"string\": must be object if parent",
        ),
        (
            keyed(json!({"type": "object"})),
            "S.properties[x].x-kubernetes-list-map-keys[0]: Invalid value: \"k\": entries must all be names",
        ),
        (
            keyed(json!({"type": "object", "properties": {"k": {"type": "string"}}})),
            "S.properties[x].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "S.properties[metadata]: Forbidden: must not specify anything other than name and generateName",
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "integer"}}}),
            "S.properties[kind].type: Invalid value: \"integer\": must be string",
        ),
        (with(json!({"type": "integer", "default": "a"})), "S.properties[x].default: Invalid value: \"string\""),
        (
            with(json!({"type": "object", "properties": {"y": {"type": "integer"}}, "default": {"y": "a"}})),
            "S.properties[x].default.y: Invalid value",
        ),
        (
            with(json!({"type": "object", "properties": {"y": {"type": "integer"}}, "default": {"z": 1}})),
            "must not have unknown fields",
        ),
    ] {
        let causes = refused(&schema);
        assert!(causes.iter().any(|cause| cause.contains(want)), "{schema}: {causes:?}");
    }
}

#[test]
fn structural_schemas_are_accepted() {
    for field in [
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+%?$"}),
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-embedded-resource": true}),
        json!({"type": "object", "additionalProperties": {"type": "string"}, "default": {"a": "b"}}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"properties": {"a": {"maxLength": 1}}}]}),
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
               "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}),
    ] {
        let schema = json!({"type": "object", "properties": {"x": field, "metadata": {"type": "object"}}});
        assert_eq!(refused(&schema), Vec::<String>::new(), "{schema}");
    }
}

#[test]
fn identity_is_described_without_being_asked_for() {
    let schema = Schema::from_crd(
        &json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }}),
        AT,
    )
    .unwrap();
    let node = Node::custom(&schema);
    let good = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "abc", "labels": {"a": "b"}},
                      "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "long-name"}}});
    assert!(crate::unknown_fields(node, &good).is_empty());
    assert!(crate::validate(node, &good, None).is_empty());
    let mut bad = good.clone();
    bad["metadata"] = json!({"name": "abcd", "nom": 1, "labels": {"a": 1}});
    assert_eq!(crate::unknown_fields(node, &bad), ["metadata.nom"]);
    let mut fields: Vec<String> = crate::validate(node, &bad, None).into_iter().map(|cause| cause.field).collect();
    fields.sort();
    assert_eq!(fields, ["metadata.labels.a", "metadata.name"]);
}
