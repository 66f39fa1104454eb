//! An applied object over a live one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Identity, Place, Shape};
use crate::fields::Element;

/// Merges `applied` into `live`: what is owned one by one is merged, everything else replaced.
pub fn merge(place: Place<'_>, live: &mut Value, applied: &Value) {
    match (place.shape(live), place.shape(applied)) {
        (Shape::Fields, Shape::Fields) => {
            let (Value::Object(live), Value::Object(applied)) = (live, applied) else { return };
            for (name, field) in applied {
                match live.get_mut(name) {
                    Some(present) => merge(place.field(name), present, field),
                    None => {
                        live.insert(name.clone(), field.clone());
                    }
                }
            }
        }
        (Shape::Items(identity), Shape::Items(_)) => {
            let (Value::Array(live), Value::Array(applied)) = (live, applied) else { return };
            *live = items(place, identity, std::mem::take(live), applied);
        }
        _ => *live = applied.clone(),
    }
}

/// Merges lists. Applied items come in the order in which they were applied; items only the live list has keep their
/// place before the next item both have.
fn items(place: Place<'_>, identity: Identity<'_>, live: Vec<Value>, applied: &[Value]) -> Vec<Value> {
    let applied: Vec<(Element, &Value)> =
        applied.iter().filter_map(|item| Some((place.identify(identity, item)?, item))).collect();
    let wanted: BTreeSet<&Element> = applied.iter().map(|(element, _)| element).collect();

    // Live items in both lists are taken out of line; only their names stay.
    let mut shared: BTreeMap<Element, Vec<Value>> = BTreeMap::new();
    let mut line: Vec<Result<Value, Element>> = Vec::with_capacity(live.len());
    for item in live {
        match place.identify(identity, &item) {
            Some(element) if wanted.contains(&element) => {
                line.push(Err(element.clone()));
                shared.entry(element).or_default().push(item);
            }
            _ => line.push(Ok(item)),
        }
    }

    let mut expected: Vec<Element> =
        applied.iter().rev().map(|(element, _)| element.clone()).filter(|e| shared.contains_key(e)).collect();
    let mut line = line.into_iter().peekable();
    let mut merged = Vec::with_capacity(line.len() + applied.len());
    for (element, item) in applied {
        while let Some(next) = line.next_if(|next| !matches!(next, Err(name) if expected.last() == Some(name))) {
            merged.extend(next.ok());
        }
        merged.push(match shared.remove(&element).as_deref_mut() {
            Some([present]) => {
                let mut present = present.take();
                merge(place.item(), &mut present, item);
                present
            }
            // New; or several live items broke the rule of the list, and the applied one replaces them all.
            _ => item.clone(),
        });
        if expected.last() == Some(&element) {
            expected.pop();
        }
    }
    merged.extend(line.filter_map(Result::ok));
    merged
}
