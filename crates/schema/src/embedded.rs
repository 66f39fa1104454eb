//! Whole objects inside objects (`x-kubernetes-embedded-resource`).

use serde_json::Value;

use crate::cause::Cause;
use crate::node::Node;
use crate::path::Path;

/// Checks that every embedded object says what it is.
pub(crate) fn validate(node: Node<'_>, value: &Value, causes: &mut Vec<Cause>) {
    walk(node, value, &Path::Root, causes);
}

fn walk(node: Node<'_>, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            // The object as a whole is checked by whoever stores it.
            if node.schema().embedded_resource && !matches!(path, Path::Root) {
                for name in ["apiVersion", "kind"] {
                    if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                        causes.push(Cause::required(path.field(name), "must not be empty"));
                    }
                }
            }
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    walk(below, field, &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = node.items() {
                items.iter().enumerate().for_each(|(i, item)| walk(below, item, &path.index(i), causes));
            }
        }
        _ => {}
    }
}
