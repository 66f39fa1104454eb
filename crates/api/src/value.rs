//! Short ways to read JSON that may hold anything.

use serde_json::Value;

/// The string at `key`, or an empty one.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The list at `key`, or an empty one.
pub(crate) fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The entries of the map at `key`.
pub(crate) fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// The integer at `key`.
pub(crate) fn integer(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

/// Whether `key` is there and not null.
pub(crate) fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|value| !value.is_null())
}

/// The map at `key`, if it is one.
pub(crate) fn map_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    value.get_mut(key).filter(|value| value.is_object())
}

/// The elements of the list at `key`.
pub(crate) fn items_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets `key` where it is missing or null; does nothing to what is no map.
pub(crate) fn fill(value: &mut Value, key: &str, default: impl Into<Value>) {
    fill_if(value, key, default, Value::is_null);
}

fn fill_if(value: &mut Value, key: &str, default: impl Into<Value>, missing: impl FnOnce(&Value) -> bool) {
    if let Some(map) = value.as_object_mut()
        && map.get(key).is_none_or(missing)
    {
        map.insert(key.to_owned(), default.into());
    }
}

/// As [`fill`], and an empty string counts as missing: Go clients cannot tell them apart.
pub(crate) fn fill_text(value: &mut Value, key: &str, default: &str) {
    fill_if(value, key, default, |value| value.is_null() || value.as_str() == Some(""));
}

/// As [`fill`], and zero counts as missing.
pub(crate) fn fill_number(value: &mut Value, key: &str, default: i64) {
    fill_if(value, key, default, |value| value.is_null() || value.as_i64() == Some(0));
}
