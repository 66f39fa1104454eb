//! An object without some of its fields.

use serde_json::Value;

use super::{Place, Shape};
use crate::fields::{Element, Set};

/// Removes the fields in `set`, each with everything below it.
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
    match set.get(element) {
        Some(entry) if entry.owned => false,
        Some(entry) => {
            remove(place, value, &entry.below);
            true
        }
        None => true,
    }
}
