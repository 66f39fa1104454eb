//! The fields an object claims when it is applied.

use serde_json::Value;

use super::{Place, Shape};
use crate::fields::{Element, Entry, Set};

/// All fields of `value`: leaves, empty objects, entries of maps and items of lists, each with its parents only where
/// having the parent means something by itself.
pub fn owned(place: Place<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    match (place.shape(value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            for (name, field) in fields {
                let below = place.field(name);
                let whole = match below.shape(field) {
                    Shape::Leaf => true,
                    Shape::Fields => field.as_object().is_some_and(serde_json::Map::is_empty),
                    Shape::Items(_) => false,
                };
                let entry = Entry { owned: whole || !place.names(name), below: owned(below, field) };
                set.add(Element::field(name), entry);
            }
        }
        (Shape::Items(identity), Value::Array(items)) => {
            for (element, items) in place.index(identity, items) {
                let below = match items[..] {
                    [item] => owned(place.item(), item),
                    // Cannot be told apart: owned together.
                    _ => Set::default(),
                };
                set.add(element, Entry { owned: true, below });
            }
        }
        _ => {}
    }
    set
}

/// Adds every described field that has something below it: who owned all of `spec.strategy.type` and nothing else,
/// owned `spec.strategy`, and it goes away together with its last field. Entries of maps are not added: there,
/// presence alone has a meaning, and an owner of its own.
pub fn name_parents(place: Place<'_>, set: &Set) -> Set {
    let mut all = Set::default();
    for (element, entry) in set.iter() {
        let named = matches!(element, Element::Field(name) if place.names(name)) && !entry.below.is_empty();
        let below = name_parents(place.child(element), &entry.below);
        all.add(element.clone(), Entry { owned: entry.owned || named, below });
    }
    all
}

/// A set written down for an older schema, as this one sees it: who owned a part of what is now owned whole, owns it.
pub fn fit(place: Place<'_>, set: Set) -> Set {
    let mut fitting = Set::default();
    for (element, entry) in set {
        let child = place.child(&element);
        let entry =
            if child.is_whole() { Entry::leaf() } else { Entry { owned: entry.owned, below: fit(child, entry.below) } };
        fitting.add(element, entry);
    }
    fitting
}
