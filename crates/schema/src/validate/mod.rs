//! Judging objects by their schema.
//!
//! First types and value validations, list keys and embedded objects; only if all of that holds, the CEL rules, which
//! may then rely on it. Messages are those of Kubernetes, because people and programs search for them.

mod combinations;
mod lists;
mod scalars;
#[cfg(test)]
mod tests;

use serde_json::{Number, Value};

use crate::cause::Cause;
use crate::correlate::counterpart;
use crate::embedded;
use crate::format;
use crate::model::{Checks, Kind};
use crate::node::Node;
use crate::path::Path;
use crate::rules;

/// Everything that is wrong with `new`: types, value validations, duplicate list keys, embedded objects and, if these
/// hold, CEL rules; rules about `oldSelf` compare with `old`.
///
/// Parts that are in `old` as they are may be as wrong as they were: a definition that becomes stricter does not make
/// its objects unchangeable.
pub fn validate(node: Node<'_>, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(node, new, old, &Path::Root, &mut causes);
    lists::duplicates(node, new, old, &Path::Root, &mut causes);
    embedded::validate(node, new, old, &mut causes);
    if causes.is_empty() {
        rules::validate(node, new, old, &mut causes);
    }
    causes
}

/// What is wrong with types and value validations alone. Built-in kinds need no more: whether their list keys may
/// repeat is not said by their schemas.
pub fn validate_values(node: Node<'_>, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(node, value, None, &Path::Root, &mut causes);
    causes
}

fn check(node: Node<'_>, value: &Value, old: Option<&Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if old == Some(value) || (value.is_null() && node.nullable()) {
        return;
    }
    if !type_fits(node, value) {
        causes.push(wrong_type(node, value, path));
        return;
    }
    if let Some(cause) = format_problem(node, value, path) {
        causes.push(cause);
    }
    check_keywords(node, &node.schema().checks, value, path, causes);
    if node.has_site() {
        check_keywords(node, &node.site().checks, value, path, causes);
        for (name, below) in &node.site().properties {
            if let Some(field) = value.get(name) {
                let old = old.and_then(|old| old.get(name));
                check(Node::new(below, node.definitions()), field, old, &path.field(name), causes);
            }
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    check(below, field, old.and_then(|old| old.get(name)), &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = node.items() else { return };
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| counterpart(node.list_type(), item, old));
                check(below, item, old, &path.index(index), causes);
            }
        }
        _ => {}
    }
}

/// Word for the type of a value.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

fn type_fits(node: Node<'_>, value: &Value) -> bool {
    if node.is_quantity() {
        return value.is_string() || value.is_number();
    }
    if node.int_or_string() {
        return value.is_string() || value.as_number().is_some_and(is_whole);
    }
    match node.kind() {
        Kind::Any => true,
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Integer => value.as_number().is_some_and(is_whole),
        Kind::Number => value.is_number(),
        Kind::Boolean => value.is_boolean(),
    }
}

fn wrong_type(node: Node<'_>, value: &Value, path: &Path<'_>) -> Cause {
    let wanted = if node.int_or_string() { "integer,string" } else { node.kind().name().unwrap_or("any") };
    let got = type_name(value);
    let detail = format!("{path} in body must be of type {wanted}: \"{got}\"");
    Cause::type_invalid(path.to_field(), &Value::from(got), &detail)
}

fn format_problem(node: Node<'_>, value: &Value, path: &Path<'_>) -> Option<Cause> {
    let name = node.schema().format.as_deref()?;
    let detail = match value {
        Value::String(text) if !format::text_fits(name, text) => {
            format!("{path} in body must be of type {name}: {value}")
        }
        Value::Number(number) if !format::number_fits(name, number) => {
            format!("{path} in body must be of type {name}: \"{value}\"")
        }
        _ => return None,
    };
    Some(Cause::type_invalid(path.to_field(), value, &detail))
}

fn check_keywords(node: Node<'_>, checks: &Checks, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    scalars::values(checks, value, path, causes);
    match value {
        Value::Number(number) => scalars::number(checks, number, path, causes),
        Value::String(text) => scalars::text(checks, text, path, causes),
        Value::Array(items) => scalars::items(checks, items, path, causes),
        Value::Object(fields) => {
            for name in checks.required.iter().filter(|name| !fields.contains_key(*name)) {
                causes.push(Cause::required(path.field(name), ""));
            }
            scalars::field_count(checks, fields.len(), value, path, causes);
        }
        _ => {}
    }
    combinations::check(node, checks, value, path, causes);
}
