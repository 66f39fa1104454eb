//! Which changes put which keys in line, as most controllers have it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Resource, ResourceExt};

use crate::{
    cache::{Cache, Key, Object},
    ownership::matches,
    pods::{self, Expectations, controller_of},
    queue::Queue,
};

/// Every change of an object puts the object itself in line.
pub(crate) fn on_own_changes<K: Object>(cache: &Cache<K>, queue: &Queue<Key>) {
    let on = queue.clone();
    cache.on_change(move |change| on.add(Key::of(change.latest().as_ref())));
}

/// The same; what is expected of an object goes with it.
pub(crate) fn on_own_changes_forgetting<K: Object>(cache: &Cache<K>, queue: &Queue<Key>, expectations: &Expectations) {
    let forgetful = expectations.clone();
    cache.on_change(move |change| {
        if change.new.is_none() {
            forgetful.forget(&change.latest().uid().unwrap_or_default());
        }
    });
    on_own_changes(cache, queue);
}

/// A change of a dependant puts its controller of type `O` in line; one of an orphan all those that might adopt it.
pub(crate) fn on_changes_of_dependants<D, O>(
    dependants: &Cache<D>,
    owners: &Cache<O>,
    selector: fn(&O) -> Option<&LabelSelector>,
    queue: &Queue<Key>,
) where
    D: Object,
    O: Object + Resource<DynamicType = ()>,
{
    let (on, owners) = (queue.clone(), owners.clone());
    dependants.on_change(move |change| {
        for dependant in change.sides() {
            let namespace = dependant.namespace().unwrap_or_default();
            match controller_of(dependant.meta()) {
                Some(owner) if owner.kind == O::kind(&()) => on.add(Key::new(namespace, owner.name.clone())),
                Some(_) => {}
                None => {
                    let labels = pods::labels(dependant.meta());
                    let adopters = owners.of_namespace(&namespace);
                    let adopters = adopters.iter().filter(|owner| matches(selector(owner), labels));
                    adopters.for_each(|owner| on.add(Key::of(owner.as_ref())));
                }
            }
        }
    });
}
