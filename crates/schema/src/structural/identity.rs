//! What every whole object has: apiVersion, kind and metadata.

use serde_json::Value;

use crate::cause::Cause;
use crate::meta::OBJECT_META;
use crate::model::{Kind, Schema};
use crate::path::Path;

/// apiVersion, kind and metadata are described already; a definition may only restrict names.
pub(super) fn check(schema: &Schema, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let properties = path.field("properties");
    for (name, wanted) in [("apiVersion", Kind::String), ("kind", Kind::String), ("metadata", Kind::Object)] {
        let kind = schema.properties.get(name).map_or(wanted, |below| below.kind);
        if kind != wanted && kind != Kind::Any {
            let value = Value::from(kind.name().unwrap_or_default());
            let detail = format!("must be {}", wanted.name().unwrap_or_default());
            causes.push(Cause::invalid(properties.key(name).field("type"), &value, &detail));
        }
    }
    let Some(metadata) = schema.properties.get("metadata") else { return };
    let says_more = metadata.properties.keys().any(|name| name != "name" && name != "generateName")
        || metadata.additional.is_some()
        || metadata.preserve_unknown_fields
        || metadata.nullable
        || metadata.default.is_some();
    if says_more {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        causes.push(Cause::forbidden(properties.key("metadata"), detail));
    }
}

/// Adds apiVersion, kind and metadata where objects have them. What the definition says about the name stays beside
/// the reference to metadata.
pub(super) fn describe(schema: &mut Schema, whole_object: bool) {
    for below in
        schema.properties.values_mut().chain(schema.additional.as_deref_mut()).chain(schema.items.as_deref_mut())
    {
        describe(below, below.embedded_resource);
    }
    if !whole_object {
        return;
    }
    for name in ["apiVersion", "kind"] {
        schema.properties.entry(name.to_owned()).or_insert_with(|| Schema::of(Kind::String));
    }
    let metadata = schema.properties.entry("metadata".to_owned()).or_default();
    metadata.kind = Kind::Any;
    metadata.reference = Some(OBJECT_META.to_owned());
}
