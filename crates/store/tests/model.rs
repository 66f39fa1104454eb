//! Random operations, compared with a list of all that happened.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{key, open, put, small};
use osc_store::{
    Change, Entry, Event, EventKind, Expect, HistoryError, Key, Page, Prefix, Revision, Store, WriteError,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Write(Vec<(usize, EventKind, How)>),
    List { at: u64, limit: usize, namespace: Option<&'static str> },
    Watch { after: u64, namespace: Option<&'static str> },
    Get(usize),
    Reopen,
    ReopenUnclosed,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Any,
    Absent,
    Current,
    Stale,
}

const NAMESPACES: [&str; 3] = ["a", "a-b", "b"];

fn keys() -> Vec<Key> {
    NAMESPACES.iter().flat_map(|namespace| [key(namespace, "x"), key(namespace, "x.y"), key(namespace, "z")]).collect()
}

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![4 => Just(How::Any), 1 => Just(How::Absent), 2 => Just(How::Current), 1 => Just(How::Stale)];
    let kind = prop_oneof![3 => Just(EventKind::Put), 1 => Just(EventKind::Delete)];
    let change = (0..keys().len(), kind, how);
    let namespace = proptest::option::of(proptest::sample::select(&NAMESPACES[..]));
    prop_oneof![
        12 => proptest::collection::vec(change, 1..4).prop_map(Op::Write),
        4 => (0..40u64, 1..5usize, namespace.clone()).prop_map(|(at, limit, namespace)| Op::List { at, limit, namespace }),
        4 => (0..40u64, namespace).prop_map(|(after, namespace)| Op::Watch { after, namespace }),
        2 => (0..keys().len()).prop_map(Op::Get),
        1 => Just(Op::Reopen),
        1 => Just(Op::ReopenUnclosed),
    ]
}

/// All that happened, and what may be forgotten of it.
#[derive(Default)]
struct Model {
    log: Vec<Event>,
    compacted: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.log.len() as u64
    }

    fn at(&self, revision: u64) -> BTreeMap<Key, Entry> {
        let mut objects = BTreeMap::new();
        for event in &self.log[..revision as usize] {
            let Event { key, revision, value, .. } = event.clone();
            match event.kind {
                EventKind::Put => objects.insert(key.clone(), Entry { key, revision, value }),
                EventKind::Delete => objects.remove(&key),
            };
        }
        objects
    }

    fn write(&mut self, changes: &[(Key, EventKind, Expect)]) -> Result<(), Key> {
        let now = self.at(self.revision());
        for (index, (key, kind, expect)) in changes.iter().enumerate() {
            let there = now.get(key).map(|entry| entry.revision);
            let expected = match expect {
                Expect::Any => true,
                Expect::Absent => there.is_none(),
                Expect::Revision(revision) => there == Some(*revision),
            };
            let twice = changes[..index].iter().any(|(other, ..)| other == key);
            if twice || !expected || (*kind == EventKind::Delete && there.is_none()) {
                return Err(key.clone());
            }
        }
        let before = self.revision();
        for (key, kind, _) in changes {
            let revision = Revision::new(self.revision() + 1);
            let value = format!("{revision} {key}").into();
            let previous = now.get(key).map(|entry| entry.value.clone());
            self.log.push(Event { revision, key: key.clone(), kind: *kind, value, previous });
        }
        self.compacted = self.compacted.max(self.revision().saturating_sub(small().history).min(before));
        Ok(())
    }

    fn may_ask(&self, revision: u64, answer: Option<&HistoryError>) -> bool {
        match answer {
            Some(HistoryError::Compacted { oldest, .. }) => oldest.get() == self.compacted && revision < self.compacted,
            Some(HistoryError::Ahead { newest, .. }) => newest.get() == self.revision() && revision > self.revision(),
            Some(HistoryError::Read(_)) => false,
            None => (self.compacted..=self.revision()).contains(&revision),
        }
    }
}

fn prefix(namespace: Option<&str>) -> Prefix {
    Prefix::namespace("", "pods", namespace.unwrap_or_default()).unwrap()
}

async fn write(store: &Store, model: &mut Model, changes: Vec<(usize, EventKind, How)>) {
    let now = model.at(model.revision());
    let changes: Vec<_> = changes
        .into_iter()
        .map(|(index, kind, how)| {
            let key = keys().swap_remove(index);
            let current = now.get(&key).map_or(Revision::ZERO, |entry| entry.revision);
            let expect = match how {
                How::Any => Expect::Any,
                How::Absent => Expect::Absent,
                How::Current => Expect::Revision(current),
                How::Stale => Expect::Revision(Revision::new(current.get().saturating_sub(1))),
            };
            (key, kind, expect)
        })
        .collect();
    let asked = changes
        .iter()
        .map(|(key, kind, expect)| match kind {
            EventKind::Put => put(key, *expect),
            EventKind::Delete => {
                let text = key.to_string();
                Change::delete(key.clone(), *expect, move |revision| format!("{revision} {text}").into())
            }
        })
        .collect();
    match (store.write(asked).await, model.write(&changes)) {
        (Ok(done), Ok(())) => {
            assert_eq!(done.revision.get(), model.revision());
            let log = &model.log[model.log.len() - changes.len()..];
            assert!(done.entries.iter().map(|e| (e.revision, &e.value)).eq(log.iter().map(|e| (e.revision, &e.value))));
        }
        (Err(WriteError::Conflict { key, current }), Err(want)) => {
            assert_eq!(key, want);
            assert_eq!(current.as_ref(), now.get(&key));
        }
        (Err(WriteError::Repeated { key }), Err(want)) => assert_eq!(key, want),
        (got, want) => panic!("{changes:?}: {got:?}, not {want:?}"),
    }
}

async fn list(store: &Store, model: &Model, at: u64, limit: usize, namespace: Option<&str>) {
    let prefix = prefix(namespace);
    let mut page = Page { limit: Some(limit), after: None, at: Some(Revision::new(at)) };
    let mut got = Vec::new();
    loop {
        let listing = store.list(&prefix, page.clone()).await;
        assert!(model.may_ask(at, listing.as_ref().err()), "list at {at}: {:?}", listing.err());
        let Ok(listing) = listing else { return };
        assert_eq!(listing.revision.get(), at);
        assert!(listing.entries.len() <= limit);
        page.after = listing.entries.last().map(|entry| entry.key.clone());
        got.extend(listing.entries);
        let want = model.at(at).into_values().filter(|entry| prefix.contains(&entry.key)).collect::<Vec<_>>();
        assert_eq!(got[..], want[..got.len()], "list at {at}");
        assert_eq!(listing.remaining as usize, want.len() - got.len());
        if listing.remaining == 0 {
            return;
        }
    }
}

async fn watch(store: &Store, model: &Model, after: u64, namespace: Option<&str>) {
    let prefix = prefix(namespace);
    let watch = store.watch(&prefix, Revision::new(after));
    assert!(model.may_ask(after, watch.as_ref().err()), "watch after {after}: {:?}", watch.err());
    let Ok(mut watch) = watch else { return };
    for want in model.log[after as usize..].iter().filter(|event| prefix.contains(&event.key)) {
        assert_eq!(*watch.next().await.unwrap(), *want);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while watch.progress().get() < model.revision() {
        // What remains to be read has nothing for this watch.
        let more = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
        assert!(more.is_err() && Instant::now() < deadline, "{more:?}");
    }
    assert_eq!(watch.progress().get(), model.revision());
}

async fn run(dir: &Path, ops: Vec<Op>) {
    let mut model = Model::default();
    let mut store = open(dir, small());
    for op in ops {
        match op {
            Op::Write(changes) => write(&store, &mut model, changes).await,
            Op::List { at, limit, namespace } => list(&store, &model, around(&model, at), limit, namespace).await,
            Op::Watch { after, namespace } => watch(&store, &model, around(&model, after), namespace).await,
            Op::Get(index) => {
                let key = &keys()[index];
                assert_eq!(store.get(key).unwrap().as_ref(), model.at(model.revision()).get(key));
            }
            Op::Reopen => {
                store.close().await;
                store = open(dir, small());
            }
            Op::ReopenUnclosed => {
                // What is in the file now is what a crash would leave.
                let image = std::fs::read(dir.join("objects.redb")).unwrap();
                store.close().await;
                std::fs::write(dir.join("objects.redb"), image).unwrap();
                store = open(dir, small());
            }
        }
        assert_eq!(store.revision().unwrap().get(), model.revision());
    }
    store.close().await;
}

/// A revision near the end of what happened: some compacted, some to come.
fn around(model: &Model, back: u64) -> u64 {
    (model.revision() + 2).saturating_sub(back)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn behaves_like_a_list_of_all_that_happened(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(run(dir.path(), ops));
    }
}
