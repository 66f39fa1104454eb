//! Whole objects inside objects (`x-kubernetes-embedded-resource`).

use serde_json::Value;

use crate::cause::Cause;
use crate::correlate::counterpart;
use crate::node::Node;
use crate::path::Path;

/// Checks that every embedded object that is not in `old` already says what it is.
pub(crate) fn validate(node: Node<'_>, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    walk(node, value, old, &Path::Root, causes);
}

fn walk(node: Node<'_>, value: &Value, old: Option<&Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if old == Some(value) {
        return;
    }
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
                    walk(below, field, old.and_then(|old| old.get(name)), &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = node.items() else { return };
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| counterpart(node.list_type(), item, old));
                walk(below, item, old, &path.index(index), causes);
            }
        }
        _ => {}
    }
}
