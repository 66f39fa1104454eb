use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::Schema;
use crate::node::Node;
use crate::{default, prune, to_openapi, unknown_fields};

const AT: &str = "spec.versions[0].schema.openAPIV3Schema";

fn spec(schema: Value) -> Value {
    json!({"type": "object", "properties": {"spec": schema}})
}

fn seen(schema: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Schema::from_crd(schema, AT).unwrap();
    crate::validate(Node::custom(&schema), new, old).iter().map(ToString::to_string).collect()
}

#[test]
fn rules_that_do_not_compile_refuse_the_definition() {
    let with = |rule: Value| {
        spec(
            json!({"type": "object", "properties": {"a": {"type": "integer"}, "l": {"type": "array", "items": {"type": "object",
              "properties": {"k": {"type": "string"}}, "x-kubernetes-validations": [{"rule": "true"}]}}},
              "x-kubernetes-validations": [rule]}),
        )
    };
    for (rule, want) in [
        (
            json!({"rule": "self.b > 0"}),
            "[spec].x-kubernetes-validations[0].rule: Invalid value: \"self.b > 0\": compilation failed: ERROR: <input>:1:5: undefined field 'b'",
        ),
        (json!({"rule": "self.a >"}), "compilation failed: ERROR: <input>:1:9: Syntax error"),
        (json!({"rule": "self.a"}), "cel expression must evaluate to a bool"),
        (json!({"rule": "self.a == 'x'"}), "found no matching overload for '_==_' applied to '(int, string)'"),
        (json!({"rule": "self.l.all(i, i.x == '')"}), "undefined field 'x'"),
        (json!({"rule": "authorizer == null"}), "undeclared reference to 'authorizer'"),
        (json!({"rule": ""}), ".rule: Required value: rule is not specified"),
        (
            json!({"rule": "true", "message": " "}),
            ".message: Invalid value: \" \": message must be non-empty if specified",
        ),
        (json!({"rule": "true", "message": "a\nb"}), "message must not contain line breaks"),
        (
            json!({"rule": "true\n&& true"}),
            ".message: Required value: message must be specified if rule contains line breaks",
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            ".messageExpression: Invalid value: \"1\": messageExpression must evaluate to a string",
        ),
        (json!({"rule": "true", "messageExpression": "self."}), "messageExpression compilation failed"),
        (json!({"rule": "true", "reason": "Odd"}), ".reason: Unsupported value: \"Odd\""),
        (
            json!({"rule": "true", "fieldPath": ".x"}),
            ".fieldPath: Invalid value: \".x\": fieldPath must be a valid path",
        ),
        (json!({"rule": "true", "optionalOldSelf": true}), "may not be set if oldSelf is not used in rule"),
    ] {
        let causes = Schema::from_crd(&with(rule.clone()), AT).map(|_| ()).unwrap_err();
        let texts: Vec<String> = causes.iter().map(ToString::to_string).collect();
        assert!(texts.len() == 1 && texts[0].contains(want), "{rule}: {texts:?}");
    }
    let inside = spec(
        json!({"type": "array", "items": {"type": "object", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
    );
    let causes = Schema::from_crd(&inside, AT).map(|_| ()).unwrap_err();
    assert!(causes[0].message.contains("oldSelf cannot be used on the uncorrelatable portion of the schema within"));
}

#[test]
fn rules_blame_the_field_they_mean() {
    let schema = |rule: Value| {
        spec(json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                    "x-kubernetes-validations": [rule]}))
    };
    let rule = "self.a < self.b";
    for (rule, want) in [
        (json!({"rule": rule}), "spec: Invalid value: \"object\": failed rule: self.a < self.b"),
        (json!({"rule": rule, "message": "a must be less"}), "spec: Invalid value: \"object\": a must be less"),
        (
            json!({"rule": rule, "message": "m", "messageExpression": "'a is ' + string(self.a)"}),
            "spec: Invalid value: \"object\": a is 2",
        ),
        (
            json!({"rule": rule, "message": "m", "messageExpression": "string(self.a / 0)"}),
            "spec: Invalid value: \"object\": m",
        ),
        (
            json!({"rule": rule, "reason": "FieldValueForbidden", "fieldPath": ".a", "message": "m"}),
            "spec.a: Forbidden: m",
        ),
        (json!({"rule": rule, "reason": "FieldValueRequired", "message": "m"}), "spec: Required value: m"),
        (json!({"rule": "self.a / 0 == 1", "message": "m"}), "evaluating rule: m"),
    ] {
        let causes = seen(&schema(rule.clone()), &json!({"spec": {"a": 2, "b": 1}}), None);
        assert!(causes.len() == 1 && causes[0].contains(want), "{rule}: {causes:?}");
    }
    assert!(seen(&schema(json!({"rule": rule})), &json!({"spec": {"a": 0, "b": 1}}), None).is_empty());
    let wrong_type = seen(&schema(json!({"rule": rule})), &json!({"spec": {"a": "x", "b": 1}}), None);
    assert!(wrong_type.len() == 1 && wrong_type[0].contains("must be of type integer"), "rules wait: {wrong_type:?}");
}

#[test]
fn transition_rules_compare_what_is_the_same() {
    let schema = spec(json!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is immutable"}]},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "v grows"}]}},
        "map": {"type": "object", "additionalProperties": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "grows"}]}},
        "once": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() || self == 1", "optionalOldSelf": true, "message": "starts at 1"}]},
    }}));
    let old =
        json!({"spec": {"fixed": "a", "list": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "map": {"a.b": 3}, "once": 1}});
    for (new, want) in [
        (old.clone(), vec![]),
        (json!({"spec": {"fixed": "b"}}), vec![r#"spec.fixed: Invalid value: "string": fixed is immutable"#]),
        (
            json!({"spec": {"list": [{"k": "y", "v": 3}, {"k": "z", "v": 0}, {"k": "x", "v": 0}]}}),
            vec![r#"spec.list[2]: Invalid value: "object": v grows"#],
        ),
        (json!({"spec": {"map": {"a.b": 2, "c": 0}}}), vec![r#"spec.map[a.b]: Invalid value: "integer": grows"#]),
        (json!({"spec": {"once": 5}}), vec![]),
    ] {
        assert_eq!(seen(&schema, &new, Some(&old)), want, "{new}");
    }
    assert_eq!(seen(&schema, &json!({"spec": {"fixed": "b", "once": 1}}), None), Vec::<String>::new());
    assert_eq!(
        seen(&schema, &json!({"spec": {"once": 2}}), None),
        [r#"spec.once: Invalid value: "integer": starts at 1"#]
    );
}

#[test]
fn the_budget_of_an_object_is_one_cause() {
    let schema = spec(json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}}},
        "x-kubernetes-validations": [{"rule": "self.l.all(a, self.l.all(b, self.l.all(c, true)))"}, {"rule": "false"}]}));
    let causes = seen(&schema, &json!({"spec": {"l": vec![1; 500]}}), None);
    assert!(causes.len() == 1 && causes[0].contains("running out of cost budget"), "{causes:?}");
}

/// The definitions this project lives on: a node configuration with validation, and a pool whose name is checked.
fn kata_config() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
        "spec": {"type": "object", "default": {}, "properties": {
            "logLevel": {"type": "string", "default": "info", "enum": ["debug", "info", "warn"]},
            "checkNodeEligibility": {"type": "boolean", "default": false},
            "enablePeerPods": {"type": "boolean", "default": false},
            "kataConfigPoolSelector": {"type": "object", "nullable": true, "properties": {
                "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
                "matchExpressions": {"type": "array", "items": {"type": "object", "required": ["key", "operator"], "properties": {
                    "key": {"type": "string"}, "operator": {"type": "string"},
                    "values": {"type": "array", "items": {"type": "string"}}}}}},
                "x-kubernetes-map-type": "atomic"},
        }},
        "status": {"type": "object", "properties": {
            "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "items": {"type": "object", "required": ["type", "status", "lastTransitionTime"], "properties": {
                    "type": {"type": "string", "maxLength": 316},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "lastTransitionTime": {"type": "string", "format": "date-time"}}}},
            "kataNodes": {"type": "object", "properties": {"nodeCount": {"type": "integer", "default": 0}}},
            "runtimeClasses": {"type": "array", "items": {"type": "string"}},
        }},
    }})
}

fn pool() -> Value {
    json!({"type": "object", "x-kubernetes-validations": [{
        "rule": "!format.dns1123Subdomain().validate(self.metadata.name).hasValue()",
        "messageExpression": "'pool ' + self.metadata.name + ': ' + \
                              format.dns1123Subdomain().validate(self.metadata.name).orValue(['']).join(', ')",
        "message": "the name of a pool is a DNS subdomain",
    }], "properties": {
        "spec": {"type": "object", "properties": {
            "maxUnavailable": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "paused": {"type": "boolean"},
            "configuration": {"type": "object", "properties": {"name": {"type": "string"}, "source": {"type": "array",
                "items": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}},
        }, "x-kubernetes-validations": [{
            "rule": "!has(self.maxUnavailable) || type(self.maxUnavailable) == int || self.maxUnavailable.matches('^[0-9]+%$')",
            "message": "maxUnavailable is a number or a percentage", "fieldPath": ".maxUnavailable"}]},
    }})
}

#[test]
fn definitions_of_this_project_work() {
    let schema = Schema::from_crd(&kata_config(), AT).unwrap();
    let node = Node::custom(&schema);
    let mut object = json!({"apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig",
                            "metadata": {"name": "example"}, "spec": {"kataConfigPoolSelector": null, "odd": 1}});
    assert_eq!(unknown_fields(node, &object), ["spec.odd"]);
    prune(node, &mut object);
    default(node, &mut object);
    assert_eq!(
        object["spec"],
        json!({"kataConfigPoolSelector": null, "logLevel": "info", "checkNodeEligibility": false, "enablePeerPods": false})
    );
    assert!(crate::validate(node, &object, None).is_empty());
    object["spec"]["logLevel"] = json!("loud");
    object["status"] = json!({"conditions": [{"type": "A", "status": "True", "lastTransitionTime": "now"}]});
    let causes: Vec<String> = crate::validate(node, &object, None).iter().map(ToString::to_string).collect();
    assert!(
        causes
            .iter()
            .any(|c| c == r#"spec.logLevel: Unsupported value: "loud": supported values: "debug", "info", "warn""#)
    );
    assert!(
        causes.iter().any(|c| c.starts_with("status.conditions[0].lastTransitionTime: Invalid value")),
        "{causes:?}"
    );

    let named = |name: &str, max: Value| json!({"metadata": {"name": name}, "spec": {"maxUnavailable": max}});
    assert!(seen(&pool(), &named("kata-oc", json!("10%")), None).is_empty());
    assert!(seen(&pool(), &named("kata-oc", json!(1)), None).is_empty());
    let causes = seen(&pool(), &named("kata-oc", json!("ten")), None);
    assert_eq!(causes, [r#"spec.maxUnavailable: Invalid value: "object": maxUnavailable is a number or a percentage"#]);
    let causes = seen(&pool(), &named("Kata_oc", json!(1)), None);
    assert!(
        causes.len() == 1 && causes[0].starts_with(r#"<nil>: Invalid value: "object": pool Kata_oc: must"#),
        "{causes:?}"
    );
}

/// Any JSON, with names that occur in schemas and in the definitions above.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(vec![
            "object", "array", "string", "integer", "map", "set", "self.a", "a", "(", "^a$", "int32", "kata_x", "10%"
        ])
        .prop_map(Value::from),
    ];
    let name = proptest::sample::select(vec![
        "type",
        "properties",
        "items",
        "additionalProperties",
        "required",
        "allOf",
        "anyOf",
        "not",
        "default",
        "enum",
        "pattern",
        "format",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
        "rule",
        "nullable",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "metadata",
        "spec",
        "status",
        "conditions",
        "a",
        "maxUnavailable",
        "name",
        "logLevel",
        "configuration",
        "source",
        "$ref",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name.clone(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>()),
        ]
    })
}

fn walk_all(schema: &Schema, mut value: Value) {
    let node = Node::custom(schema);
    let _ = unknown_fields(node, &value);
    let _ = crate::validate(node, &value, Some(&value));
    prune(node, &mut value);
    assert!(unknown_fields(node, &value).is_empty(), "nothing unknown is left after pruning");
    default(node, &mut value);
    let _ = crate::validate(node, &value, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_schema_panics(schema in any_json(), value in any_json()) {
        let _ = Schema::from_crd(&schema, AT);
        if let Ok(schema) = Schema::from_openapi(&schema) {
            walk_all(&schema, value);
            let again = Schema::from_openapi(&to_openapi(&schema)).unwrap();
            prop_assert_eq!(to_openapi(&again), to_openapi(&schema));
        }
    }

    #[test]
    fn no_object_panics(value in any_json()) {
        for definition in [kata_config(), pool()] {
            walk_all(&Schema::from_crd(&definition, AT).unwrap(), value.clone());
        }
    }
}
