//! Who owns which field: `metadata.managedFields`.
//!
//! Every write leaves a note of what it changed. Server-side apply reads these notes to find conflicts and to know
//! what it may remove; ordinary writes only keep them true ([`track`]). The rules are those of Kubernetes as its
//! documentation on server-side apply gives them:
//!
//! * a field belongs to whoever set its value last; appliers that agree on a value share it
//! * a field that is changed or removed is lost to everybody else who owned it
//! * identity, revision and the notes themselves belong to nobody
//! * a client that sends no notes, or cannot read them, keeps those of the stored object; one that sends `[]` or
//!   `[{}]` resets them, and nothing is noted until somebody applies

mod owners;

use std::sync::LazyLock;

use jiff::Timestamp;
use osc_schema::Node;
use serde_json::{Map, Value};

pub(crate) use owners::{Id, Operation, Owner, Owners};

use crate::fields::{Element, Set};
use crate::typed::{Change, Place, compare};

/// Who writes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// `fieldManager`, or what stands for it.
    pub name: String,
    /// Version the object is written in, as in its `apiVersion`.
    pub api_version: String,
    /// Subresource that is written to; none for the object itself.
    pub subresource: Option<String>,
    /// Whether the kind has a status subresource. Then only that one owns `status`, and it owns nothing else.
    pub status_subresource: bool,
    /// When; seconds are kept.
    pub time: Timestamp,
}

impl Manager {
    /// Drops from `set` what this write cannot own.
    fn limit(&self, set: &mut Set) {
        static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of(&["status"]));
        if self.status_subresource {
            if self.subresource.as_deref() == Some("status") {
                set.retain(|element| *element == Element::field("status"));
            } else {
                set.subtract_trees(&STATUS);
            }
        }
    }

    /// What this write changes between two objects, as far as ownership goes.
    pub(crate) fn change(&self, place: Place<'_>, old: &Value, new: &Value) -> Change {
        static NOTES: LazyLock<Set> = LazyLock::new(|| Set::of(&["metadata", "managedFields"]));
        let mut change = compare(place, old, new);
        for set in [&mut change.added, &mut change.modified, &mut change.removed] {
            self.limit(set);
            set.subtract_trees(&NOTES);
        }
        change
    }

    /// `fields` without those nobody owns.
    pub(crate) fn ownable(&self, mut fields: Set) -> Set {
        static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
            let mut set = Set::default();
            for field in ["apiVersion", "kind", "metadata"] {
                set.union(Set::of(&[field]));
            }
            for field in [
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "selfLink",
                "managedFields",
            ] {
                set.union(Set::of(&["metadata", field]));
            }
            set
        });
        self.limit(&mut fields);
        fields.subtract(&NOBODYS);
        fields
    }
}

/// Brings `metadata.managedFields` of `new` up to date after an ordinary write: a creation (`old` is none), an update
/// or a patch. Nothing else of `new` is touched.
pub fn track(node: Node<'_>, old: Option<&Value>, new: &mut Value, by: &Manager) {
    let place = Place::root(node);
    let given = take(new);
    let mut owners = known(place, old, given, by);
    if owners.is_empty() && old.is_some() {
        return;
    }
    let nothing = Value::Object(Map::new());
    let change = by.change(place, old.unwrap_or(&nothing), new);
    owners.give_way(&change);
    let taken = by.ownable(change.taken());
    if !taken.is_empty() {
        let owner = owners.entry(Id::update(by), by);
        owner.fields.union(taken);
        owner.time = Some(by.time);
    }
    owners.cap();
    put(new, &owners);
}

/// Owners before an ordinary write: those the request brings along, if it may and they make sense, else the stored
/// ones.
fn known(place: Place<'_>, old: Option<&Value>, given: Option<Value>, by: &Manager) -> Owners {
    if by.subresource.is_none()
        && let Some(given) = &given
    {
        if is_reset(given) {
            return Owners::default();
        }
        if let Some(owners) = Owners::read(place, given)
            && !owners.is_empty()
        {
            return owners;
        }
    }
    stored(place, old)
}

/// Owners noted in an object; none if nobody can read them.
pub(crate) fn stored(place: Place<'_>, object: Option<&Value>) -> Owners {
    object
        .and_then(|object| object.pointer("/metadata/managedFields"))
        .and_then(|notes| Owners::read(place, notes))
        .unwrap_or_default()
}

fn is_reset(notes: &Value) -> bool {
    match notes.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

/// Takes the notes out of an object.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Puts notes into an object, which has metadata if it is one.
pub(crate) fn put(object: &mut Value, owners: &Owners) {
    let notes = owners.to_value();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && !notes.is_empty()
    {
        metadata.insert("managedFields".to_owned(), Value::Array(notes));
    }
}

#[cfg(test)]
mod tests;
