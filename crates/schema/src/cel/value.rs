//! Values of expressions: those of `kube-cel`, which its functions work on, and their JSON form.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use kube_cel::cel;
use serde_json::{Number, Value as Json};

use super::library;
pub(crate) use cel::Value;
pub(crate) use cel::objects::{Key, Map, OptionalValue};

use crate::model::Kind;
use crate::node::Node;

/// A JSON value as the schema means it: `format: date-time` is a timestamp, `type: number` never an integer.
pub(crate) fn from_json(node: Node<'_>, json: &Json) -> Value {
    convert(Some(node), json)
}

/// A JSON value of which nothing is known.
pub(crate) fn untyped(json: &Json) -> Value {
    convert(None, json)
}

/// As [`from_json`]; without a node for what no schema describes.
fn convert(node: Option<Node<'_>>, json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => number_value(node, number),
        Json::String(text) => text_value(node, text),
        Json::Array(items) => {
            let below = node.and_then(Node::items);
            Value::List(Arc::new(items.iter().map(|item| convert(below, item)).collect()))
        }
        Json::Object(fields) => {
            let field = |(name, json): (&String, &Json)| {
                (Key::String(Arc::new(name.clone())), convert(node.and_then(|node| node.field(name)), json))
            };
            map(fields.iter().map(field).collect())
        }
    }
}

fn number_value(node: Option<Node<'_>>, number: &Number) -> Value {
    let float = || Value::Float(number.as_f64().unwrap_or(f64::NAN));
    let whole = || {
        let integral = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e18);
        number.as_i64().or(integral.map(|float| float as i64)).map(Value::Int)
    };
    match node.map_or(Kind::Any, Node::kind) {
        Kind::Number => float(),
        Kind::Integer => whole().unwrap_or_else(float),
        _ if node.is_some_and(Node::int_or_string) => whole().unwrap_or_else(float),
        _ => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => number.as_u64().map_or_else(float, Value::UInt),
        },
    }
}

fn text_value(node: Option<Node<'_>>, text: &str) -> Value {
    let format = node.filter(|node| node.kind() == Kind::String).and_then(|node| node.schema().format.as_deref());
    let typed = match format {
        Some("date-time" | "datetime") => library::timestamp(text),
        Some("date") => library::timestamp(&format!("{text}T00:00:00Z")),
        Some("duration") => library::duration(text),
        Some("byte") => {
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Value::Bytes(Arc::new(bytes)))
        }
        _ => None,
    };
    typed.unwrap_or_else(|| Value::String(Arc::new(text.to_owned())))
}

pub(crate) fn map(entries: HashMap<Key, Value>) -> Value {
    Value::Map(Map { map: Arc::new(entries) })
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    Value::String(Arc::new(text.into()))
}

/// An optional holding `value`, or nothing.
pub(crate) fn optional(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// What an optional holds; none if `value` is no optional.
pub(crate) fn as_optional(value: &Value) -> Option<Option<&Value>> {
    <&OptionalValue>::try_from(value).ok().map(OptionalValue::value)
}

/// The value as a key of a map.
pub(crate) fn as_key(value: &Value) -> Option<Key> {
    match value {
        Value::Int(number) => Some(Key::Int(*number)),
        Value::UInt(number) => Some(Key::Uint(*number)),
        Value::Bool(flag) => Some(Key::Bool(*flag)),
        Value::String(text) => Some(Key::String(text.clone())),
        // A double that is a whole number finds the integer key.
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(Key::Int(*number as i64)),
        _ => None,
    }
}

pub(crate) fn key_value(key: &Key) -> Value {
    match key {
        Key::Int(number) => Value::Int(*number),
        Key::Uint(number) => Value::UInt(*number),
        Key::Bool(flag) => Value::Bool(*flag),
        Key::String(text) => Value::String(text.clone()),
    }
}

/// The entry for `key`; whole numbers are the same key whether signed or not.
pub(crate) fn entry<'a>(map: &'a Map, key: &Key) -> Option<&'a Value> {
    let other = match key {
        Key::Int(number) => u64::try_from(*number).ok().map(Key::Uint),
        Key::Uint(number) => i64::try_from(*number).ok().map(Key::Int),
        _ => None,
    };
    map.map.get(key).or_else(|| map.map.get(&other?))
}

/// Order of two scalars; none if they have none. Numbers of all types compare with each other.
pub(crate) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    let whole = |value: &Value| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::UInt(number) => Some(i128::from(*number)),
        _ => None,
    };
    let float = |value: &Value| match value {
        Value::Float(number) => Some(*number),
        other => whole(other).map(|number| number as f64),
    };
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        return Some(a.cmp(&b));
    }
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        _ => float(a)?.partial_cmp(&float(b)?),
    }
}

/// Name of the type of a value, as expressions see it.
pub(crate) fn type_name(value: &Value) -> &str {
    match value {
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "bool",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
        Value::Opaque(opaque) => opaque.runtime_type_name(),
        Value::Null => "null_type",
        Value::Function(..) => "function",
    }
}

/// The value as JSON, if it has such a form.
pub(crate) fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::from(*flag),
        Value::Int(number) => Json::from(*number),
        Value::UInt(number) => Json::from(*number),
        Value::Float(number) => Json::Number(Number::from_f64(*number)?),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(base64::engine::general_purpose::STANDARD.encode(bytes.as_slice())),
        Value::Timestamp(time) => Json::from(time.to_rfc3339()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        Value::Map(map) => {
            let entry = |(key, value): (&Key, &Value)| match key {
                Key::String(name) => Some((name.as_str().to_owned(), to_json(value)?)),
                _ => None,
            };
            Json::Object(map.map.iter().map(entry).collect::<Option<_>>()?)
        }
        Value::Duration(_) | Value::Opaque(_) | Value::Function(..) => return None,
    })
}

/// Field names that are no names in the language are written escaped: `a-b` as `a__dash__b`, `in` as `__in__`.
pub(crate) fn unescape(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    let escapes = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && !word.contains("__")
        && !escapes.iter().any(|(escape, _)| *escape == name)
    {
        return Some(word.to_owned());
    }
    let mut plain = String::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match escapes.iter().find(|(escape, _)| rest.starts_with(escape)) {
            Some((escape, text)) => {
                plain.push_str(text);
                rest = &rest[escape.len()..];
            }
            None => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read_back() {
        for (name, want) in [
            ("a", None),
            ("a__dash__b", Some("a-b")),
            ("a__dot__b__slash__c", Some("a.b/c")),
            ("__namespace__", Some("namespace")),
            ("a__underscores__b", Some("a__b")),
            ("__dash__", Some("-")),
        ] {
            assert_eq!(unescape(name).as_deref(), want, "{name}");
        }
    }
}
