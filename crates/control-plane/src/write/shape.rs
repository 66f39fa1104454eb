//! What every object is brought into, whoever wrote it: known fields only, no
//! nulls, defaults, and metadata in which the server's part is the server's.

use osc_api::{defaults, meta, status::Status};
use serde_json::{Map, Value};

use crate::resources::Served;

/// Drops what the kind does not know and adds what it implies.
pub(crate) fn normalise(served: &Served, object: &mut Value) {
    let node = served.node();
    osc_schema::prune(node, object);
    drop_empty_metadata(object);
    if served.custom.is_some() {
        // Custom resources may mean something by null; their metadata never does.
        if let Some(metadata) = object.get_mut("metadata") {
            drop_nulls_everywhere(metadata);
        }
        osc_schema::default(node, object);
    } else {
        defaults::apply(&served.resource, object);
    }
}

/// In metadata, empty and absent are the same.
fn drop_empty_metadata(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["annotations", "labels", "finalizers", "ownerReferences"] {
        let empty = match metadata.get(field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if empty {
            metadata.remove(field);
        }
    }
}

fn drop_nulls_everywhere(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(drop_nulls_everywhere);
    }
}

/// The metadata of an object, made where it is missing.
///
/// # Errors
/// 400 when it is no object.
pub(crate) fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    let object = object.as_object_mut().ok_or_else(|| Status::bad_request("the body is not an object"))?;
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is not an object"))
}

/// Settles the namespace: that of the URL, or none.
///
/// # Errors
/// 400 when the object names another one.
pub(crate) fn place(served: &Served, object: &mut Value, namespace: &str) -> Result<(), Status> {
    let metadata = metadata(object)?;
    if !served.resource.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    match metadata.get("namespace").and_then(Value::as_str).unwrap_or_default() {
        "" => {
            metadata.insert("namespace".into(), namespace.into());
            Ok(())
        }
        own if own == namespace => Ok(()),
        other => Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({other} is not {namespace})"
        ))),
    }
}

/// What stays unless the request says otherwise: field ownership may be edited
/// on purpose, the version is that of the present object.
pub(crate) fn keep_metadata(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let metadata = meta::metadata_mut(new);
    let unowned = metadata.get("managedFields").is_none_or(Value::is_null);
    for field in ["resourceVersion", "generateName"].into_iter().chain(unowned.then_some("managedFields")) {
        match old.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// Copies one top-level field, or its absence.
pub(crate) fn copy_field(to: &mut Value, from: &Value, field: &str) {
    let Some(object) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => object.insert(field.into(), value.clone()),
        None => object.remove(field),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ownership_stays_unless_it_is_edited() {
        let old = json!({"metadata": {"name": "n", "resourceVersion": "7", "managedFields": [{"manager": "m"}]}});
        let mut new = json!({"metadata": {"name": "n", "labels": {"a": "b"}, "resourceVersion": "3"}});
        keep_metadata(&mut new, &old);
        let mut want = old.clone();
        want["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(new, want);
        let mut new = json!({"metadata": {"managedFields": []}});
        keep_metadata(&mut new, &old);
        assert_eq!(new["metadata"]["managedFields"], json!([]));
    }

    #[test]
    fn the_namespace_comes_from_the_url() {
        let catalog = crate::resources::Catalog::default().snapshot();
        let pods = catalog.find("", "v1", "pods").unwrap();
        let nodes = catalog.find("", "v1", "nodes").unwrap();
        let mut object = json!({"metadata": {"name": "p"}});
        place(pods, &mut object, "a").unwrap();
        assert_eq!(object["metadata"]["namespace"], "a");
        assert_eq!(place(pods, &mut object, "b").unwrap_err().code, 400);
        place(nodes, &mut object, "").unwrap();
        assert_eq!(object["metadata"].get("namespace"), None);
    }
}
