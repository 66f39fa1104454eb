//! The OpenAPI v2 document, in the protobuf form of gnostic's `OpenAPIv2.proto`:
//! a patch operation for each kind, by which clients see that it can be
//! dry-run, and the schemas of all kinds.

use osc_api::definitions::definitions;
use osc_schema::{Kind, ListType, MapType, OBJECT_META, Schema};
use serde_json::{Value, json};

use super::{TITLE, wire::Message};
use crate::{
    paths::GIT_VERSION,
    resources::{Served, Snapshot},
};

/// The whole document.
pub(super) fn document(snapshot: &Snapshot) -> Vec<u8> {
    let info = Message::default().text(1, TITLE).text(2, GIT_VERSION);
    let (mut paths, mut schemas) = (Message::default(), Message::default());
    for (name, schema) in definitions().iter() {
        schemas = schemas.message(1, named(name, self::schema(schema)));
    }
    for served in snapshot.iter() {
        if served.resource.can("patch") {
            paths = paths.message(2, named(&path(served), Message::default().message(8, patch(served))));
        }
        if let Some(custom) = &served.custom {
            let name = super::document::custom_name(&served.resource);
            schemas = schemas.message(1, named(&name, custom_kind(&custom.schema, &identity(served))));
        }
    }
    Message::default().text(1, "2.0").message(2, info).message(8, paths).message(9, schemas).finish()
}

fn path(served: &Served) -> String {
    let resource = &served.resource;
    let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("/{}{place}/{}/{{name}}", super::path_of(&resource.group, &resource.version), resource.plural)
}

fn identity(served: &Served) -> Value {
    let resource = &served.resource;
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

/// Operation: clients look for the parameter `dryRun` of the kind's patch.
fn patch(served: &Served) -> Message {
    let query = Message::default().text(2, "query").text(4, "dryRun").text(6, "string");
    let parameter = Message::default().message(2, Message::default().message(3, query));
    Message::default()
        .message(8, Message::default().message(1, parameter))
        .message(9, Message::default())
        .message(13, extension("x-kubernetes-group-version-kind", &identity(served)))
        .message(13, extension("x-kubernetes-action", &json!("patch")))
}

/// A name with its value, the form of every map.
fn named(name: &str, value: Message) -> Message {
    Message::default().text(1, name).message(2, value)
}

/// NamedAny; JSON is YAML.
fn extension(name: &str, value: &Value) -> Message {
    named(name, Message::default().text(2, &value.to_string()))
}

fn schema(schema: &Schema) -> Message {
    let mut message = Message::default();
    if let Some(name) = &schema.reference {
        message = message.text(1, &format!("#/definitions/{name}"));
    }
    let (kind, format) = match schema.kind.name() {
        _ if schema.int_or_string => (Some("string"), Some("int-or-string")),
        kind => (kind, schema.format.as_deref()),
    };
    message = message.text(2, format.unwrap_or_default()).text(4, &schema.description);
    message = message.texts(19, schema.checks.required.iter().map(String::as_str));
    if let Some(values) = &schema.additional {
        message = message.message(21, Message::default().message(1, self::schema(values)));
    }
    if let Some(kind) = kind {
        message = message.message(22, Message::default().text(1, kind));
    }
    if let (Kind::Array, Some(items)) = (schema.kind, &schema.items) {
        message = message.message(23, Message::default().message(1, self::schema(items)));
    }
    if !schema.properties.is_empty() {
        let all = schema.properties.iter();
        let fields =
            all.fold(Message::default(), |all, (name, field)| all.message(1, named(name, self::schema(field))));
        message = message.message(25, fields);
    }
    extensions(schema).into_iter().fold(message, |message, (name, value)| message.message(31, extension(name, &value)))
}

fn extensions(schema: &Schema) -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    match &schema.list_type {
        ListType::Atomic => {}
        ListType::Set => found.push(("x-kubernetes-list-type", json!("set"))),
        ListType::Map(keys) => {
            found.push(("x-kubernetes-list-type", json!("map")));
            found.push(("x-kubernetes-list-map-keys", json!(keys)));
        }
    }
    if schema.map_type == MapType::Atomic {
        found.push(("x-kubernetes-map-type", json!("atomic")));
    }
    if let Some(key) = &schema.patch_merge_key {
        found.push(("x-kubernetes-patch-merge-key", json!(key)));
    }
    let strategy = match (schema.patch_strategy.merge, schema.patch_strategy.retain_keys) {
        (false, false) => None,
        (true, false) => Some("merge"),
        (false, true) => Some("retainKeys"),
        (true, true) => Some("merge,retainKeys"),
    };
    found.extend(strategy.map(|strategy| ("x-kubernetes-patch-strategy", json!(strategy))));
    if schema.preserve_unknown_fields {
        found.push(("x-kubernetes-preserve-unknown-fields", json!(true)));
    }
    found.extend(schema.group_version_kind.clone().map(|kinds| ("x-kubernetes-group-version-kind", kinds)));
    found
}

/// A custom kind, with the fields every object has.
fn custom_kind(declared: &Schema, identity: &Value) -> Message {
    let mut whole = declared.clone();
    for field in ["apiVersion", "kind"] {
        whole.properties.insert(field.into(), Schema::of(Kind::String));
    }
    whole.properties.insert("metadata".into(), Schema::refer(OBJECT_META));
    whole.group_version_kind = Some(json!([identity]));
    schema(&whole)
}
