//! Server-side apply.
//!
//! ```text
//!  live ──┐                     ┌─ what the manager applied last time and dropped now, unless others own it
//!         ├─► merged ─► pruned ─┤
//!  applied┘                     └─ compared with live: what changed and is owned by others is a conflict
//! ```
//!
//! A manager owns exactly what it applies. Where somebody else owns a field and wants another value, the apply fails,
//! or with `force` takes the field over; equal values are shared.

mod conflict;
mod last_applied;
mod prune;

use osc_schema::{MAX_DEPTH, Node, within_depth};
use serde_json::{Map, Value, json};
use thiserror::Error;

pub use conflict::{Conflict, Conflicts};

use crate::managed::{self, Id, Manager, Owner, Owners};
use crate::typed::{self, Place, Problem};

/// Owner of everything an object had before anybody took notes.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Why an object was not applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Others own some of the fields and want other values: 409.
    #[error(transparent)]
    Conflicts(Conflicts),
    /// The body is not an object: 400.
    #[error("an applied configuration must be an object")]
    NotAnObject,
    /// Owners are computed, never applied: 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// The object nests too deep: 400.
    #[error("the applied configuration nests more than {MAX_DEPTH} levels deep: make it flatter")]
    TooDeep,
    /// A list whose items cannot be told apart: 400.
    #[error("failed to create typed patch object: {0}")]
    List(String),
}

impl From<Problem> for ApplyError {
    fn from(problem: Problem) -> Self {
        Self::List(problem.to_string())
    }
}

/// Applies `applied` to `live`, the stored object, or to nothing if there is none. The outcome carries the new
/// `metadata.managedFields`; it equals `live` if nothing changed.
///
/// # Errors
/// [`ApplyError::Conflicts`] unless `force` is set; the others say what is wrong with `applied`.
pub fn apply(
    node: Node<'_>,
    live: Option<&Value>,
    applied: &Value,
    by: &Manager,
    force: bool,
) -> Result<Value, ApplyError> {
    let place = Place::root(node);
    let applied = checked(place, applied)?;
    let nothing = json!({});
    let old = live.unwrap_or(&nothing);
    let mut owners = managed::stored(place, live);
    if live.is_some() && owners.is_empty() {
        own_everything(place, old, &mut owners, by);
    }
    let id = Id::apply(by);
    let before = owners.remove(&id);
    let last = before.as_ref().map(|owner| &owner.fields);
    let sent = typed::owned(place, &applied);

    let mut merged = old.clone();
    managed::take(&mut merged);
    typed::merge(place, &mut merged, &applied);
    if let Some(last) = last {
        // With the name, which nobody owns: where it is sent, metadata is not given up with the last label.
        merged = prune::pruned(place, merged, last, &sent, &owners);
    }
    let fields = by.ownable(sent);

    let change = by.change(place, old, &merged);
    if !force {
        let mut contested = change.changed();
        contested.subtract(&last_applied::own(place, old, by));
        let conflicts = Conflicts::between(&owners, &contested);
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    owners.give_way(&change);

    let same = change.is_empty() && last == Some(&fields);
    let time = before.as_ref().filter(|_| same).map_or(Some(by.time), |owner| owner.time);
    if !fields.is_empty() {
        owners.insert(id, Owner { api_version: by.api_version.clone(), fields, time });
    }
    last_applied::synchronise(&mut merged, &applied, by);
    managed::put(&mut merged, &owners);
    Ok(merged)
}

/// The applied object, ready to be merged.
fn checked(place: Place<'_>, applied: &Value) -> Result<Value, ApplyError> {
    if !applied.is_object() {
        return Err(ApplyError::NotAnObject);
    }
    if !within_depth(applied) {
        return Err(ApplyError::TooDeep);
    }
    let mut applied = applied.clone();
    match managed::take(&mut applied) {
        None | Some(Value::Null) => {}
        Some(Value::Array(notes)) if notes.is_empty() => {}
        Some(_) => return Err(ApplyError::ManagedFields),
    }
    typed::prepare(place, &mut applied)?;
    Ok(applied)
}

/// Notes that somebody else made all of `old`, so that the first apply does not silently overwrite it.
fn own_everything(place: Place<'_>, old: &Value, owners: &mut Owners, by: &Manager) {
    let somebody = Manager { name: BEFORE_FIRST_APPLY.to_owned(), ..by.clone() };
    let change = somebody.change(place, &Value::Object(Map::new()), old);
    let fields = somebody.ownable(change.added);
    if !fields.is_empty() {
        let owner = Owner { api_version: by.api_version.clone(), fields, time: Some(by.time) };
        owners.insert(Id::update(&somebody), owner);
    }
}

#[cfg(test)]
mod tests;
