//! What changed from one object to another.

use serde_json::{Map, Value};

use super::{Place, Shape};
use crate::fields::{Element, Entry, Set};

/// Fields that differ between two objects, parents included.
#[derive(Debug, Default)]
pub struct Change {
    /// Only in the new one.
    pub added: Set,
    /// In both, with different values; also everything below something that became a value of another kind.
    pub modified: Set,
    /// Only in the old one.
    pub removed: Set,
}

/// What [`Change`] says about one element.
#[derive(Default)]
struct Step {
    added: Entry,
    modified: Entry,
    removed: Entry,
}

impl Change {
    fn add(&mut self, element: Element, step: Step) {
        let Step { added, modified, removed } = step;
        // Three sets rarely need the same element.
        for (set, entry) in [(&mut self.added, added), (&mut self.modified, modified), (&mut self.removed, removed)] {
            if !entry.is_empty() {
                set.add(element.clone(), entry);
            }
        }
    }

    /// Whether the objects are equal, as far as ownership goes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Fields whose present value somebody else may not want.
    pub fn changed(&self) -> Set {
        let mut changed = self.added.clone();
        changed.union(self.modified.clone());
        changed
    }

    /// Fields that belong to whoever made this change.
    pub fn taken(&self) -> Set {
        let mut taken = self.changed();
        taken.subtract(&self.removed);
        taken
    }
}

/// Compares two objects. The order of items that are told apart does not count.
pub fn compare(place: Place<'_>, old: &Value, new: &Value) -> Change {
    let step = both(place, old, new);
    Change { added: step.added.below, modified: step.modified.below, removed: step.removed.below }
}

fn either(place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Step {
    match (old, new) {
        (Some(old), Some(new)) => both(place, old, new),
        (Some(old), None) => Step { removed: Entry { owned: true, below: all(place, old) }, ..Step::default() },
        (None, Some(new)) => Step { added: Entry { owned: true, below: all(place, new) }, ..Step::default() },
        (None, None) => Step::default(),
    }
}

fn both(place: Place<'_>, old: &Value, new: &Value) -> Step {
    if old == new {
        return Step::default();
    }
    let mut change = Change::default();
    let mut whole = false;
    match (place.shape(old), old, place.shape(new), new) {
        (Shape::Fields, Value::Object(old), Shape::Fields, Value::Object(new)) => {
            fields(place, old, new, &mut change);
        }
        (Shape::Items(identity), Value::Array(old), Shape::Items(_), Value::Array(new)) => {
            let (old, new) = (place.index(identity, old), place.index(identity, new));
            for (element, items) in &old {
                let step = items_step(place.item(), items, new.get(element).map_or(&[], Vec::as_slice));
                change.add(element.clone(), step);
            }
            for (element, items) in new.iter().filter(|(element, _)| !old.contains_key(element)) {
                change.add(element.clone(), items_step(place.item(), &[], items));
            }
        }
        _ => {
            whole = true;
            change.removed = all(place, old);
            change.modified = change.removed.clone();
            change.added = all(place, new);
        }
    }
    Step {
        added: Entry { owned: false, below: change.added },
        modified: Entry { owned: whole, below: change.modified },
        removed: Entry { owned: false, below: change.removed },
    }
}

fn fields(place: Place<'_>, old: &Map<String, Value>, new: &Map<String, Value>, change: &mut Change) {
    for (name, value) in old {
        change.add(Element::field(name), either(place.field(name), Some(value), new.get(name)));
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        change.add(Element::field(name), either(place.field(name), None, Some(value)));
    }
}

/// Compares what two lists have under one name; usually one item, or none.
fn items_step(place: Place<'_>, old: &[&Value], new: &[&Value]) -> Step {
    match (old, new) {
        ([], _) | (_, []) | ([_], [_]) => either(place, old.first().copied(), new.first().copied()),
        _ => Step { modified: Entry { owned: old != new, below: Set::default() }, ..Step::default() },
    }
}

/// Everything below a place that is new or gone, containers too.
fn all(place: Place<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    match (place.shape(value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            for (name, field) in fields {
                set.add(Element::field(name), Entry { owned: true, below: all(place.field(name), field) });
            }
        }
        (Shape::Items(identity), Value::Array(items)) => {
            for (element, items) in place.index(identity, items) {
                let below = if let [item] = items[..] { all(place.item(), item) } else { Set::default() };
                set.add(element, Entry { owned: true, below });
            }
        }
        _ => {}
    }
    set
}
