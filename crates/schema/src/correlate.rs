//! Which part of an object was which part of the one it replaces.

use serde_json::Value;

use crate::model::ListType;

/// The item of `old` that is the same as `item`, if the list can tell.
pub(crate) fn counterpart<'a>(list_type: &ListType, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let ListType::Map(keys) = list_type else { return None };
    old.as_array()?.iter().find(|other| keys.iter().all(|key| other.get(key) == item.get(key)))
}
