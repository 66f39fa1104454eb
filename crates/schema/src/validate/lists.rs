//! Lists whose items have an identity, which must be theirs alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cause::Cause;
use crate::correlate::counterpart;
use crate::model::ListType;
use crate::node::Node;
use crate::path::Path;

/// Duplicates in lists whose items have an identity.
pub(super) fn duplicates(node: Node<'_>, value: &Value, old: Option<&Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    duplicates(below, field, old.and_then(|old| old.get(name)), &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            repeated(node.list_type(), items, path, causes);
            let Some(below) = node.items() else { return };
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| counterpart(node.list_type(), item, old));
                duplicates(below, item, old, &path.index(index), causes);
            }
        }
        _ => {}
    }
}

fn repeated(list_type: &ListType, items: &[Value], path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let identity = match list_type {
            ListType::Atomic => return,
            ListType::Set => item.clone(),
            ListType::Map(keys) => {
                keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect::<Value>()
            }
        };
        if !seen.insert(canonical(&identity)) {
            causes.push(Cause::duplicate(path.index(index), &identity));
        }
    }
}

/// Text that is equal for equal values.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        // Objects keep the order they were written in, which does not matter for equality.
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().map(|(k, v)| (k, canonical(v))).collect();
            format!("{sorted:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(canonical).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}
