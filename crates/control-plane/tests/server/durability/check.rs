//! What writers were promised, against what watchers and lists tell.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Client, api::ListParams};

use super::{
    KINDS, api,
    follower::Told,
    laggard::{KIND, Lagged},
    number,
    writer::{Change, Journal},
};

/// All events of each kind, in order.
pub type Log = BTreeMap<usize, Vec<Told>>;

/// The events must be the journals: every change once, with its version, and nothing else.
pub fn compare(journals: Vec<Journal>, events: Vec<(usize, Vec<Told>)>) -> Log {
    let log: Log = events.into_iter().collect();
    let mut versions = BTreeSet::new();
    for (kind, told) in &log {
        for pair in told.windows(2) {
            assert!(pair[0].version < pair[1].version, "{}: {pair:?}", KINDS[*kind]);
        }
        for event in told {
            assert!(versions.insert(event.version), "version {} twice", event.version);
        }
    }
    let mut unexplained: BTreeMap<(usize, &str), Vec<&Told>> = BTreeMap::new();
    for (kind, told) in &log {
        for event in told.iter().filter(|event| event.name != "end") {
            unexplained.entry((*kind, &event.name)).or_default().push(event);
        }
    }
    for ((kind, name), changes) in journals.iter().flat_map(|journal| &journal.changes) {
        let events = unexplained.remove(&(*kind, name)).unwrap_or_default();
        assert_eq!(events.len(), changes.len(), "{name}: {changes:?} told as {events:?}");
        let mut before = None;
        for (change, event) in changes.iter().zip(events) {
            assert_eq!(expected(before, change, event), *event, "{name}: {changes:?}");
            before = change.number;
        }
    }
    assert!(unexplained.is_empty(), "nobody wrote {unexplained:?}");
    log
}

/// What a change must be told as; where the client could not know the version, that of the event.
fn expected(before: Option<u64>, change: &Change, event: &Told) -> Told {
    let what = match (before, change.number) {
        (_, None) => "DELETED",
        (None, _) => "ADDED",
        (Some(_), _) => "MODIFIED",
    };
    Told {
        what,
        name: event.name.clone(),
        number: change.number.or(before).unwrap_or_default(),
        version: change.version.unwrap_or(event.version),
    }
}

/// Numbers of the objects after all events up to a version.
fn state(log: &[Told], version: u64) -> BTreeMap<String, u64> {
    let mut state = BTreeMap::new();
    for event in log.iter().filter(|event| event.version <= version) {
        match event.what {
            "DELETED" => state.remove(&event.name),
            _ => state.insert(event.name.clone(), event.number),
        };
    }
    state
}

/// Who comes too late lists a state that was, and misses nothing after it.
pub fn late(log: &Log, lagged: &Lagged) {
    let log = &log[&KIND];
    assert!(!lagged.lists.is_empty(), "the late watcher was never too late");
    for list in &lagged.lists {
        assert_eq!(list.objects, state(log, list.version), "the list at {}", list.version);
    }
    // Between two lists its events are those of the log, from where the first ends to where it stopped.
    let starts = lagged.lists.iter().map(|list| list.version).chain([u64::MAX]);
    let mut from = 0;
    for upto in starts {
        let seen: Vec<&Told> = lagged.told.iter().filter(|event| (from..upto).contains(&event.version)).collect();
        let last = seen.last().map_or(from, |event| event.version);
        let there: Vec<&Told> = log.iter().filter(|event| event.version > from && event.version <= last).collect();
        assert_eq!(seen, there, "after {from}");
        from = upto;
    }
}

/// What is there at the end is what was written last.
pub async fn final_lists(log: &Log, client: Client) {
    for (kind, told) in log {
        let list = api(client.clone(), *kind).list(&ListParams::default()).await.unwrap();
        let objects = list.items.iter().map(|object| (object.metadata.name.clone().unwrap(), number(object)));
        assert_eq!(objects.collect::<BTreeMap<_, _>>(), state(told, u64::MAX), "{}", KINDS[*kind]);
    }
}
