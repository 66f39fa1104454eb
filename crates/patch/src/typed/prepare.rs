//! Checks that an applied object can be merged at all.

use std::collections::BTreeSet;

use serde_json::Value;
use thiserror::Error;

use super::{Identity, Place, Shape};

/// Why a list cannot be applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// An item has nothing that tells it from others.
    #[error("{path}: element {index}: an item of this list is told apart by {keys}: give it one")]
    NoKey {
        /// The list.
        path: String,
        /// Position of the item, from 0.
        index: usize,
        /// Fields that tell items apart.
        keys: String,
    },
    /// Two items have the same key.
    #[error("{path}: duplicate entries for key {key}")]
    Duplicate {
        /// The list.
        path: String,
        /// What they have in common.
        key: String,
    },
}

/// Drops fields that are null where null is no value, which says no more than not naming them, and checks that items
/// of lists can be told apart.
pub fn prepare(place: Place<'_>, value: &mut Value) -> Result<(), Problem> {
    walk(place, value, &mut String::new())
}

fn walk(place: Place<'_>, value: &mut Value, path: &mut String) -> Result<(), Problem> {
    let parent = path.len();
    match (place.shape(value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            fields.retain(|name, field| !field.is_null() || place.field(name).nullable());
            for (name, field) in fields {
                path.push('.');
                path.push_str(name);
                walk(place.field(name), field, path)?;
                path.truncate(parent);
            }
        }
        (Shape::Items(identity), Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter_mut().enumerate() {
                let Some(element) = place.identify(identity, item) else {
                    let keys = match identity {
                        Identity::Keys(keys) => keys.join(", "),
                        Identity::Value => "its value".to_owned(),
                    };
                    return Err(Problem::NoKey { path: path.clone(), index, keys });
                };
                let shown = element.to_string();
                if !seen.insert(element) {
                    return Err(Problem::Duplicate { path: path.clone(), key: shown });
                }
                path.push_str(&shown);
                walk(place.item(), item, path)?;
                path.truncate(parent);
            }
        }
        _ => {}
    }
    Ok(())
}
