//! An object without some of its fields.

use serde_json::Value;

use super::{Place, Shape};
use crate::fields::{Element, Set};

/// Removes the fields in `set`, each with everything below it. An object or list that loses its last field or item
/// goes away too.
pub fn remove(place: Place<'_>, value: &mut Value, set: &Set) {
    match (place.shape(value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            fields.retain(|name, field| keep(place.field(name), field, set, &Element::field(name)));
        }
        (Shape::Items(identity), Value::Array(items)) => items.retain_mut(|item| {
            place.identify(identity, item).is_none_or(|element| keep(place.item(), item, set, &element))
        }),
        _ => {}
    }
}

fn keep(place: Place<'_>, value: &mut Value, set: &Set, element: &Element) -> bool {
    let Some(entry) = set.get(element) else { return true };
    if entry.owned {
        return false;
    }
    let before = is_empty(value);
    remove(place, value, &entry.below);
    before || !is_empty(value)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
