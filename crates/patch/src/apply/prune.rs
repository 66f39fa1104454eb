//! Removing what a manager no longer applies.

use serde_json::Value;

use crate::fields::Set;
use crate::managed::Owners;
use crate::typed::{Place, name_parents, owned, remove};

/// `merged` without the fields in `last`, what the manager applied last time, that neither `now`, what it applies this
/// time, nor any of the other `owners` hold.
///
/// Removing a field removes what is below it. If others own something there the field has to stay, but of its content
/// only what they own and what never belonged to this manager.
pub fn pruned(place: Place<'_>, mut merged: Value, last: &Set, now: &Set, owners: &Owners) -> Value {
    if last.is_subset(now) {
        return merged;
    }
    let last = name_parents(place, last);
    let mut held = now.clone();
    for (_, owner) in owners.iter() {
        held.union(owner.fields.clone());
    }
    let held = name_parents(place, &held);
    if last.is_subset(&held) {
        return merged;
    }
    let present = name_parents(place, &owned(place, &merged));

    // Remove all that was applied last time, then see what of it somebody holds, parents with all their content.
    let mut unheld = present.clone();
    unheld.subtract(&name_parents(place, &owned(place, &without(place, &merged, &last))));
    unheld.subtract(&held);

    // What is removed together with an unheld parent counts only if it was applied last time.
    let mut gone = present;
    gone.subtract(&name_parents(place, &owned(place, &without(place, &merged, &unheld))));
    remove(place, &mut merged, &gone.intersection(&last));
    merged
}

fn without(place: Place<'_>, value: &Value, fields: &Set) -> Value {
    let mut rest = value.clone();
    remove(place, &mut rest, fields);
    rest
}
