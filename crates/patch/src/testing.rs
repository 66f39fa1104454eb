//! What the tests of this crate share: a schema with one of everything, random objects, and a clock.

use std::sync::LazyLock;

use jiff::Timestamp;
use osc_schema::{Definitions, Node, OBJECT_META};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Manager;

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let schemas = schemas();
    let mut definitions = Definitions::from_openapi(schemas.as_object().unwrap()).unwrap();
    for (name, schema) in Definitions::metadata().iter() {
        definitions.insert(name, schema.clone());
    }
    definitions
});

/// A Deployment, as far as it is interesting here.
pub fn deployment() -> Node<'static> {
    DEFINITIONS.node("Deployment").unwrap()
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let by_name = |items: Value| {
        json!({"type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
               "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"})
    };
    let port = json!({"type": "object", "properties": {
        "containerPort": {"type": "integer"}, "name": text, "protocol": {"type": "string", "default": "TCP"}}});
    let container = json!({"type": "object", "properties": {
        "name": text, "image": text,
        "args": {"type": "array", "items": text, "x-kubernetes-list-type": "atomic"},
        "env": by_name(json!({"type": "object", "properties": {"name": text, "value": text}})),
        "ports": {"type": "array", "items": port,
                  "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                  "x-kubernetes-patch-merge-key": "containerPort", "x-kubernetes-patch-strategy": "merge"},
        "resources": {"type": "object", "properties": {"limits": texts}}}});
    let strategy = json!({"type": "object", "x-kubernetes-patch-strategy": "retainKeys", "properties": {
        "type": text,
        "rollingUpdate": {"type": "object", "properties": {"maxSurge": {"x-kubernetes-int-or-string": true}}}}});
    let spec = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "paused": {"type": "boolean", "nullable": true},
        "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"matchLabels": texts}},
        "strategy": strategy,
        "nodeSelector": texts,
        "zones": {"type": "array", "items": text, "x-kubernetes-list-type": "set",
                  "x-kubernetes-patch-strategy": "merge"},
        "tolerations": {"type": "array", "items": {"type": "object", "properties": {"key": text}}},
        "options": {"x-kubernetes-preserve-unknown-fields": true},
        "limits": {"type": "object", "additionalProperties": {"type": "object", "properties": {"max": text}}},
        "containers": by_name(container)}});
    json!({"Deployment": {"type": "object", "properties": {
        "apiVersion": text, "kind": text, "metadata": {"$ref": format!("#/components/schemas/{OBJECT_META}")},
        "spec": spec, "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}})
}

/// A Deployment with this spec.
pub fn with_spec(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

/// Somebody who writes Deployments, `second` seconds after a certain time.
pub fn manager(name: &str, second: i64) -> Manager {
    Manager {
        name: name.to_owned(),
        api_version: "apps/v1".to_owned(),
        subresource: None,
        status_subresource: true,
        time: Timestamp::from_second(1_700_000_000 + second).unwrap(),
    }
}

/// Any JSON, with words the schema knows, so that it is often near to making sense.
pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-2i64..4).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
        prop_oneof![Just("merge"), Just("delete"), Just("replace"), Just("FieldsV1"), Just("Apply")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..5).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "labels",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "spec",
        "status",
        "replicas",
        "selector",
        "strategy",
        "zones",
        "containers",
        "name",
        "image",
        "ports",
        "containerPort",
        "protocol",
        "options",
        "a",
        "b",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/zones",
        "$deleteFromPrimitiveList/zones",
        "fieldsV1",
        "fieldsType",
        "operation",
        "f:spec",
        "f:containers",
        "k:{\"name\":\"a\"}",
    ])
    .prop_map(str::to_owned)
}

/// Deployments that are valid, as far as lists go.
pub fn any_deployment() -> impl Strategy<Value = Value> {
    let names = || prop::collection::btree_set("[a-d]", 0..4);
    let container = ("[a-c]", prop::option::of("[x-z]"), prop::collection::btree_set(0i64..3, 0..3)).prop_map(
        |(name, image, ports)| {
            let ports: Vec<Value> = ports.iter().map(|port| json!({"containerPort": port})).collect();
            let mut container = json!({"name": name, "ports": ports});
            if let Some(image) = image {
                container["image"] = json!(image);
            }
            (name, container)
        },
    );
    let containers = prop::collection::vec(container, 0..4).prop_shuffle().prop_map(|containers| {
        let mut seen = std::collections::BTreeSet::new();
        containers.into_iter().filter(|(name, _)| seen.insert(name.clone())).map(|(_, item)| item).collect::<Value>()
    });
    let strategy = prop::option::of(prop_oneof![
        Just(json!({"type": "Recreate"})),
        Just(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
        Just(json!({"rollingUpdate": {}})),
    ]);
    let labels = prop::collection::btree_map("[a-c]", "[a-b]", 0..3);
    (names(), prop::option::of(0..3), containers, strategy, labels, names(), any_json()).prop_map(
        |(zones, replicas, containers, strategy, labels, finalizers, options)| {
            let mut object = with_spec(json!({"zones": zones, "containers": containers, "options": options}));
            object["metadata"]["labels"] = json!(labels);
            object["metadata"]["finalizers"] = json!(finalizers);
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = json!(replicas);
            }
            if let Some(strategy) = strategy {
                object["spec"]["strategy"] = strategy;
            }
            object
        },
    )
}
