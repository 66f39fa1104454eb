//! Directives beside fields, and patches without any.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Trail;
use crate::PatchError;

pub(super) const PATCH: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const SET_ORDER: &str = "$setElementOrder/";
pub(super) const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Carries out `$retainKeys`: drops all fields it does not name. It has to name every field the patch sets.
pub(super) fn retain_keys(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    path: &Trail<'_>,
) -> Result<(), PatchError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Some(keys) = keys.as_array() else {
        return Err(path.directive("$retainKeys must be a list of field names".to_owned()));
    };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let unnamed =
        patch.iter().find(|(name, value)| !value.is_null() && !name.starts_with('$') && !keys.contains(name.as_str()));
    if let Some((name, _)) = unnamed {
        return Err(path.directive(format!("$retainKeys must name every field of the patch, and lacks {name:?}")));
    }
    object.retain(|name, _| keys.contains(name.as_str()));
    Ok(())
}

/// Names of the lists the patch puts into an order.
pub(super) fn ordered_lists(patch: &Map<String, Value>) -> Vec<&str> {
    patch.keys().filter_map(|name| name.strip_prefix(SET_ORDER)).collect()
}

/// The list given by `directive` for the field `list`.
pub(super) fn list_of<'p>(
    patch: &'p Map<String, Value>,
    directive: &str,
    list: &str,
    path: &Trail<'_>,
) -> Result<&'p [Value], PatchError> {
    let name = format!("{directive}{list}");
    match patch.get(&name) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(path.directive(format!("{name} must be a list"))),
    }
}

/// A part of a patch that meets nothing to merge with, as a value: without directives, and without nulls, which only
/// remove. None if all it says is to delete.
pub(super) fn plain(change: &Value) -> Option<Value> {
    match change {
        Value::Object(fields) if fields.get(PATCH).and_then(Value::as_str) == Some("delete") => None,
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, value)| !value.is_null() && !is_directive(name));
            Some(Value::Object(kept.filter_map(|(name, value)| Some((name.clone(), plain(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(plain).collect())),
        _ => Some(change.clone()),
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || name.starts_with(SET_ORDER) || name.starts_with(DELETE_FROM_LIST)
}
