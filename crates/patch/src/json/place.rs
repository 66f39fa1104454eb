//! Finding the value a path points to (RFC 6901), and changing it.
//!
//! As in Kubernetes, an index below zero counts from the end of a list, and a field that is not there reads as `null`.

use std::{borrow::Cow, num::IntErrorKind};

use serde_json::Value;

use super::error::OperationCause;

/// The last part of a path, and the object or list it is looked up in.
pub struct Place<'a> {
    holder: &'a mut Value,
    /// Name or index in there.
    pub key: String,
}

/// What `path` points into; nothing where there is no such object or list.
pub fn find<'a>(object: &'a mut Value, path: &str) -> Option<Place<'a>> {
    // Whatever stands before the first slash is not looked at.
    let (_, path) = path.split_once('/')?;
    let mut parts = path.split('/');
    let key = parts.next_back()?;
    let mut holder = object;
    for part in parts {
        let part = decode(part);
        holder = match holder {
            Value::Object(fields) => fields.get_mut(part.as_ref())?,
            Value::Array(items) => {
                let at = present(&part, items.len()).ok()?;
                items.get_mut(at)?
            }
            _ => return None,
        };
    }
    (holder.is_object() || holder.is_array()).then(|| Place { holder, key: decode(key).into_owned() })
}

fn decode(part: &str) -> Cow<'_, str> {
    if part.contains('~') { part.replace("~1", "/").replace("~0", "~").into() } else { part.into() }
}

fn index(text: &str) -> Result<i64, &'static str> {
    text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    })
}

/// The place in a list of `len` items that `at` means, if there is one.
fn within(at: i64, len: usize) -> Result<usize, OperationCause> {
    let from_start = if at < 0 { i64::try_from(len).ok().and_then(|len| at.checked_add(len)) } else { Some(at) };
    let place = from_start.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < len);
    place.ok_or(OperationCause::NoIndex(at))
}

/// The place of an item that is there.
fn present(key: &str, len: usize) -> Result<usize, OperationCause> {
    let at = index(key).map_err(|why| OperationCause::NotANumber(key.into(), why))?;
    within(at, len)
}

impl Place<'_> {
    /// The value there; `null` for a field that is not there.
    pub fn get(&self) -> Result<&Value, OperationCause> {
        match &*self.holder {
            Value::Object(fields) => Ok(fields.get(&self.key).unwrap_or(&Value::Null)),
            Value::Array(items) => Ok(&items[present(&self.key, items.len())?]),
            _ => Err(OperationCause::Missing),
        }
    }

    /// Puts a value there, in place of what is there.
    pub fn set(self, value: Value) -> Result<(), OperationCause> {
        match self.holder {
            Value::Object(fields) => drop(fields.insert(self.key, value)),
            Value::Array(items) => {
                let at = present(&self.key, items.len())?;
                items[at] = value;
            }
            _ => return Err(OperationCause::Missing),
        }
        Ok(())
    }

    /// Puts a value there; items of a list from there on move.
    pub fn add(self, value: Value) -> Result<(), OperationCause> {
        match self.holder {
            Value::Object(fields) => drop(fields.insert(self.key, value)),
            Value::Array(items) if self.key == "-" => items.push(value),
            Value::Array(items) => {
                let at = index(&self.key).map_err(|why| OperationCause::NotAnIndex(self.key, why))?;
                items.insert(within(at, items.len() + 1)?, value);
            }
            _ => return Err(OperationCause::Missing),
        }
        Ok(())
    }

    /// Takes the value away.
    pub fn remove(self) -> Result<Value, OperationCause> {
        match self.holder {
            Value::Object(fields) => fields.remove(&self.key).ok_or(OperationCause::NoKey(self.key)),
            Value::Array(items) => {
                let at = present(&self.key, items.len())?;
                Ok(items.remove(at))
            }
            _ => Err(OperationCause::Missing),
        }
    }
}
