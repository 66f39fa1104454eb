//! Reaching into values: fields and indices, plain and optional.

use std::sync::Arc;

use super::eval::{Evaluated, failed, no_overload};
use super::value::{Key, Value, as_key, as_optional, entry, optional, to_json, type_name, unescape};

/// The field called `name`, which may be written escaped.
pub(super) fn field<'v>(operand: &'v Value, name: &str) -> Evaluated<Option<&'v Value>> {
    let Value::Map(map) = operand else {
        return failed(format!("no such overload: field '{name}' of '{}'", type_name(operand)));
    };
    let find = |name: &str| map.map.get(&Key::String(Arc::new(name.to_owned())));
    Ok(find(name).or_else(|| find(&unescape(name)?)))
}

pub(super) fn select(operand: &Value, name: &str, is_optional: bool) -> Evaluated {
    match as_optional(operand) {
        Some(None) => Ok(operand.clone()),
        Some(Some(inner)) => field(inner, name).map(|found| optional(found.cloned())),
        None if is_optional => field(operand, name).map(|found| optional(found.cloned())),
        None => field(operand, name)?.cloned().map_or_else(|| failed(format!("no such key: {name}")), Ok),
    }
}

pub(super) fn index(operand: &Value, index: &Value, is_optional: bool) -> Evaluated {
    let (container, is_optional) = match as_optional(operand) {
        Some(None) => return Ok(operand.clone()),
        Some(Some(inner)) => (inner, true),
        None => (operand, is_optional),
    };
    let found = match (container, as_key(index)) {
        (Value::List(items), Some(Key::Int(at))) => usize::try_from(at).ok().and_then(|at| items.get(at)),
        (Value::List(items), Some(Key::Uint(at))) => usize::try_from(at).ok().and_then(|at| items.get(at)),
        (Value::Map(map), Some(key)) => entry(map, &key),
        _ => return no_overload("_[_]", &[operand, index]),
    };
    match (found, container) {
        (found, _) if is_optional => Ok(optional(found.cloned())),
        (Some(found), _) => Ok(found.clone()),
        (None, Value::List(_)) => failed(format!("index out of bounds: {}", shown(index))),
        (None, _) => failed(format!("no such key: {}", shown(index))),
    }
}

fn shown(value: &Value) -> String {
    to_json(value).map_or_else(|| type_name(value).to_owned(), |json| json.to_string())
}
