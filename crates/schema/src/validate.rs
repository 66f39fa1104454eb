//! Judging objects by their schema.
//!
//! First types and value validations, list keys and embedded objects; only if all of that holds, the CEL rules, which
//! may then rely on it. Messages are those of Kubernetes, because people and programs search for them.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};

use serde_json::{Number, Value};

use crate::cause::Cause;
use crate::embedded;
use crate::format;
use crate::model::{Checks, Kind, ListType, Schema};
use crate::node::Node;
use crate::path::Path;
use crate::rules;

/// Everything that is wrong with `new`: types, value validations, duplicate list keys, embedded objects and, if these
/// hold, CEL rules; rules about `oldSelf` compare with `old`.
pub fn validate(node: Node<'_>, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = validate_values(node, new);
    lists(node, new, &Path::Root, &mut causes);
    embedded::validate(node, new, &mut causes);
    if causes.is_empty() {
        rules::validate(node, new, old, &mut causes);
    }
    causes
}

/// What is wrong with types and value validations alone. Built-in kinds need no more: whether their list keys may
/// repeat is not said by their schemas.
pub fn validate_values(node: Node<'_>, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(node, value, &Path::Root, &mut causes);
    causes
}

fn check(node: Node<'_>, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if value.is_null() && node.nullable() {
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
                check(Node::new(below, node.definitions()), field, &path.field(name), causes);
            }
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    check(below, field, &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = node.items() {
                items.iter().enumerate().for_each(|(i, item)| check(below, item, &path.index(i), causes));
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
    check_enum(checks, value, path, causes);
    match value {
        Value::Number(number) => check_number(checks, number, path, causes),
        Value::String(text) => check_text(checks, text, path, causes),
        Value::Array(items) => check_items(checks, items, path, causes),
        Value::Object(fields) => {
            for name in checks.required.iter().filter(|name| !fields.contains_key(*name)) {
                causes.push(Cause::required(path.field(name), ""));
            }
            check_field_count(checks, fields.len(), value, path, causes);
        }
        _ => {}
    }
    check_combinations(node, checks, value, path, causes);
}

fn check_enum(checks: &Checks, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if !checks.values.is_empty() && !checks.values.contains(value) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let supported: Vec<String> = checks.values.iter().map(text).collect();
        causes.push(Cause::not_supported(path.to_field(), value, &supported));
    }
}

/// Compares numbers exactly as long as both are whole.
fn compare(a: &Number, b: &Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

fn check_number(checks: &Checks, number: &Number, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut complain = |should: String| {
        let value = Value::Number(number.clone());
        causes.push(Cause::invalid(path.to_field(), &value, &format!("{path} in body should be {should}")));
    };
    if let Some(minimum) = &checks.minimum {
        match (compare(number, minimum), checks.exclusive_minimum) {
            (Ordering::Less, false) => complain(format!("greater than or equal to {minimum}")),
            (Ordering::Less | Ordering::Equal, true) => complain(format!("greater than {minimum}")),
            _ => {}
        }
    }
    if let Some(maximum) = &checks.maximum {
        match (compare(number, maximum), checks.exclusive_maximum) {
            (Ordering::Greater, false) => complain(format!("less than or equal to {maximum}")),
            (Ordering::Greater | Ordering::Equal, true) => complain(format!("less than {maximum}")),
            _ => {}
        }
    }
    if let Some(factor) = &checks.multiple_of
        && !is_multiple(number, factor)
    {
        complain(format!("a multiple of {factor}"));
    }
}

fn is_multiple(number: &Number, factor: &Number) -> bool {
    if let (Some(number), Some(factor)) = (number.as_i128(), factor.as_i128()) {
        return factor != 0 && number % factor == 0;
    }
    let quotient = number.as_f64().unwrap_or(0.0) / factor.as_f64().unwrap_or(0.0);
    quotient.is_finite() && (quotient - quotient.round()).abs() < 1e-9
}

fn check_text(checks: &Checks, text: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if checks.min_length.is_none() && checks.max_length.is_none() && checks.pattern.is_none() {
        return;
    }
    let length = text.chars().count() as u64;
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        causes.push(Cause::too_long(path.to_field(), max));
    }
    let mut complain = |should: String| {
        causes.push(Cause::invalid(path.to_field(), &Value::from(text), &format!("{path} in body should {should}")));
    };
    if let Some(min) = checks.min_length.filter(|min| length < *min) {
        complain(format!("be at least {min} chars long"));
    }
    if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        complain(format!("match '{}'", pattern.as_str()));
    }
}

fn check_items(checks: &Checks, items: &[Value], path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut complain = |should: String| {
        let value = Value::from(items.to_vec());
        causes.push(Cause::invalid(path.to_field(), &value, &format!("{path} in body {should}")));
    };
    if let Some(min) = checks.min_items.filter(|min| (items.len() as u64) < *min) {
        complain(format!("should have at least {min} items"));
    }
    if checks.unique_items && items.iter().map(canonical).collect::<HashSet<_>>().len() < items.len() {
        complain("shouldn't contain duplicates".to_owned());
    }
    if let Some(max) = checks.max_items.filter(|max| items.len() as u64 > *max) {
        causes.push(Cause::too_many(path.to_field(), items.len(), max));
    }
}

fn check_field_count(checks: &Checks, count: usize, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(min) = checks.min_properties.filter(|min| (count as u64) < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        causes.push(Cause::invalid(path.to_field(), value, &detail));
    }
    if let Some(max) = checks.max_properties.filter(|max| count as u64 > *max) {
        causes.push(Cause::too_many(path.to_field(), count, max));
    }
}

fn check_combinations(node: Node<'_>, checks: &Checks, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let attempt = |branch: &Schema| {
        let mut causes = Vec::new();
        check(Node::new(branch, node.definitions()), value, path, &mut causes);
        causes
    };
    let says = |text: &str| Cause::invalid(path.to_field(), &Value::from(""), &format!("\"{path}\" must {text}"));

    let failed: Vec<Cause> = checks.all_of.iter().flat_map(attempt).collect();
    if !failed.is_empty() {
        causes.push(says("validate all the schemas (allOf)"));
        causes.extend(failed);
    }
    if !checks.any_of.is_empty() {
        let closest = closest(checks.any_of.iter().map(attempt));
        if !closest.is_empty() {
            causes.push(says("validate at least one schema (anyOf)"));
            causes.extend(closest);
        }
    }
    if !checks.one_of.is_empty() {
        let attempts: Vec<Vec<Cause>> = checks.one_of.iter().map(attempt).collect();
        match attempts.iter().filter(|causes| causes.is_empty()).count() {
            1 => {}
            0 => {
                causes.push(says("validate one and only one schema (oneOf). Found none valid"));
                causes.extend(closest(attempts.into_iter()));
            }
            many => {
                let text = format!("validate one and only one schema (oneOf). Found {many} valid alternatives");
                causes.push(says(&text));
            }
        }
    }
    if checks.not.as_deref().is_some_and(|not| attempt(not).is_empty()) {
        causes.push(says("not validate the schema (not)"));
    }
}

/// Complaints of the alternative that came closest.
fn closest(attempts: impl Iterator<Item = Vec<Cause>>) -> Vec<Cause> {
    attempts.min_by_key(Vec::len).unwrap_or_default()
}

/// Duplicates in lists whose items have an identity.
fn lists(node: Node<'_>, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    lists(below, field, &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            duplicates(node.list_type(), items, path, causes);
            if let Some(below) = node.items() {
                items.iter().enumerate().for_each(|(i, item)| lists(below, item, &path.index(i), causes));
            }
        }
        _ => {}
    }
}

fn duplicates(list_type: &ListType, items: &[Value], path: &Path<'_>, causes: &mut Vec<Cause>) {
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
fn canonical(value: &Value) -> String {
    match value {
        // Objects keep the order they were written in, which does not matter for equality.
        Value::Object(fields) => {
            let sorted: std::collections::BTreeMap<_, _> = fields.iter().map(|(k, v)| (k, canonical(v))).collect();
            format!("{sorted:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(canonical).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
