//! Rules that many kinds share.

use osc_schema::{Cause, Path};
use serde_json::Value;

use crate::{
    Quantity,
    status::quote,
    value::{entries, integer, text},
};

/// Appends what a check of [`super::names`] found about `value`.
pub(super) fn named(value: &str, check: fn(&str) -> Vec<String>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    causes.extend(check(value).into_iter().map(|why| Cause::invalid(path, &value.into(), &why)));
}

/// The non-empty text at `key`; reports when it is missing.
pub(super) fn required<'a>(holder: &'a Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<&'a str> {
    match text(holder, key) {
        "" => {
            causes.push(Cause::required(path.field(key), ""));
            None
        }
        text => Some(text),
    }
}

/// A text that must be there and pass a check.
pub(super) fn required_name(
    holder: &Value,
    key: &str,
    check: fn(&str) -> Vec<String>,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    if let Some(name) = required(holder, key, path, causes) {
        named(name, check, &path.field(key), causes);
    }
}

/// A text that passes a check if it is there.
pub(super) fn optional_name(
    holder: &Value,
    key: &str,
    check: fn(&str) -> Vec<String>,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    match text(holder, key) {
        "" => {}
        name => named(name, check, &path.field(key), causes),
    }
}

/// A text that is one of `allowed` if it is there.
pub(super) fn one_of(holder: &Value, key: &str, allowed: &[&str], path: &Path<'_>, causes: &mut Vec<Cause>) {
    match text(holder, key) {
        "" => {}
        value if allowed.contains(&value) => {}
        value => causes.push(Cause::not_supported(path.field(key), &value.into(), allowed)),
    }
}

/// A text that must be there and be one of `allowed`.
pub(super) fn required_one_of(holder: &Value, key: &str, allowed: &[&str], path: &Path<'_>, causes: &mut Vec<Cause>) {
    if required(holder, key, path, causes).is_some() {
        one_of(holder, key, allowed, path, causes);
    }
}

/// A number that is at least 0 if it is there.
pub(super) fn not_negative(holder: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(number) = integer(holder, key).filter(|number| *number < 0) {
        causes.push(Cause::invalid(path.field(key), &number.into(), "must be greater than or equal to 0"));
    }
}

/// A number within bounds if it is there.
pub(super) fn within(holder: &Value, key: &str, min: i64, max: i64, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(number) = integer(holder, key).filter(|number| !(min..=max).contains(number)) {
        let detail = format!("must be between {min} and {max}, inclusive");
        causes.push(Cause::invalid(path.field(key), &number.into(), &detail));
    }
}

/// A port number.
pub(super) fn port_number(number: i64, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if !(1..=65_535).contains(&number) {
        causes.push(Cause::invalid(path, &number.into(), "must be between 1 and 65535, inclusive"));
    }
}

/// A port by number or by name.
pub(super) fn port_or_name(port: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match port {
        Value::Number(number) => port_number(number.as_i64().unwrap_or(0), path, causes),
        Value::String(name) => named(name, super::names::port_name, path, causes),
        _ => causes.push(Cause::required(path, "")),
    }
}

/// A count or a percentage, at least 0; `max` percent at most when given.
pub(super) fn count_or_percent(holder: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field(key);
    match holder.get(key) {
        Some(Value::Number(number)) if number.as_i64().is_some_and(|number| number < 0) => {
            causes.push(Cause::invalid(path, &Value::Number(number.clone()), "must be greater than or equal to 0"));
        }
        Some(Value::String(text)) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|c| c.is_ascii_digit()) {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
                              or '93%', regex used for validation is '[0-9]+%')";
                causes.push(Cause::invalid(path, &text.as_str().into(), detail));
            }
        }
        _ => {}
    }
}

/// A percentage of at most 100.
pub(super) fn at_most_all(holder: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let share = text(holder, key).strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok());
    if share.is_some_and(|share| share > 100) {
        causes.push(Cause::invalid(path.field(key), &holder[key], "must not be greater than 100%"));
    }
}

/// The amount in `value`; reports what is no amount or less than nothing.
pub(super) fn amount(value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<Quantity> {
    match Quantity::from_value(value) {
        Err(error) => {
            causes.push(Cause::invalid(path, value, &error.to_string()));
            None
        }
        Ok(quantity) => {
            if quantity.is_negative() {
                causes.push(Cause::invalid(path, value, "must be greater than or equal to 0"));
            }
            Some(quantity)
        }
    }
}

/// A map of amounts by resource name.
pub(super) fn amounts(holder: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field(key);
    for (name, value) in entries(holder, key) {
        resource_name(name, &path, causes);
        amount(value, &path.key(name), causes);
    }
}

/// The name of a resource such as `cpu` or `example.com/device`.
pub(super) fn resource_name(name: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage", "storage", "pods"];
    let wrong = super::names::qualified_name(name);
    if !wrong.is_empty() {
        causes.extend(wrong.into_iter().map(|why| Cause::invalid(path, &name.into(), &why)));
    } else if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        let detail = "must be a standard resource type or fully qualified";
        causes.push(Cause::invalid(path, &name.into(), detail));
    }
}

/// A field that may not change once the object exists.
pub(super) fn immutable(old: &Value, new: &Value, key: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if old.get(key).unwrap_or(&Value::Null) != new.get(key).unwrap_or(&Value::Null) {
        causes.push(Cause::invalid(path.field(key), new.get(key).unwrap_or(&Value::Null), "field is immutable"));
    }
}

/// A name something else should have had: `Not found: "x"`.
pub(super) fn not_found(path: &Path<'_>, name: &str) -> Cause {
    Cause { reason: "FieldValueNotFound", message: format!("Not found: {}", quote(name)), field: path.to_string() }
}

/// Reports texts that occur more than once: pairs of path and text, in order.
pub(super) struct Seen<'a>(std::collections::HashSet<&'a str>);

impl<'a> Seen<'a> {
    pub(super) fn new() -> Self {
        Self(std::collections::HashSet::new())
    }

    pub(super) fn add(&mut self, value: &'a str, path: &Path<'_>, causes: &mut Vec<Cause>) {
        if !value.is_empty() && !self.0.insert(value) {
            causes.push(Cause::duplicate(path, &value.into()));
        }
    }
}
