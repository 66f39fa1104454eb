//! Keywords about one value: allowed values, ranges, lengths.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::{Number, Value};

use super::lists::canonical;
use crate::cause::Cause;
use crate::model::Checks;
use crate::path::Path;

pub(super) fn values(checks: &Checks, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
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

pub(super) fn number(checks: &Checks, number: &Number, path: &Path<'_>, causes: &mut Vec<Cause>) {
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

pub(super) fn text(checks: &Checks, text: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
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

pub(super) fn items(checks: &Checks, items: &[Value], path: &Path<'_>, causes: &mut Vec<Cause>) {
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

pub(super) fn field_count(checks: &Checks, count: usize, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(min) = checks.min_properties.filter(|min| (count as u64) < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        causes.push(Cause::invalid(path.to_field(), value, &detail));
    }
    if let Some(max) = checks.max_properties.filter(|max| count as u64 > *max) {
        causes.push(Cause::too_many(path.to_field(), count, max));
    }
}
