//! Many writers and watches at once.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{key, open, text};
use osc_store::{Change, EventKind, Expect, Options, Page, Prefix, Revision, Store, WriteError};

const WRITERS: usize = 32;
const WRITES: usize = 40;

fn pods() -> Prefix {
    Prefix::resource("", "pods").unwrap()
}

/// Adds one to a number that others add to as well.
async fn increment(store: &Store, name: &str) {
    let key = key("counters", name);
    let mut current = store.get(&key).unwrap();
    loop {
        let (expect, next) = match &current {
            Some(entry) => (Expect::Revision(entry.revision), text(&entry.value).parse::<usize>().unwrap() + 1),
            None => (Expect::Absent, 1),
        };
        let change = Change::put(key.clone(), expect, move |_| Bytes::from(next.to_string()));
        match store.write(vec![change]).await {
            Ok(_) => return,
            Err(WriteError::Conflict { current: there, .. }) => current = there,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Lists, follows from there, and returns what the objects are at `end` according to that.
async fn follow(
    store: Store,
    after: Option<Revision>,
    end: tokio::sync::watch::Receiver<Option<Revision>>,
) -> (Vec<u64>, BTreeMap<String, Bytes>) {
    let mut objects = BTreeMap::new();
    let start = match after {
        Some(after) => after,
        None => {
            let listing = store.list(&pods(), Page::default()).await.unwrap();
            objects.extend(listing.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)));
            listing.revision
        }
    };
    let mut watch = store.watch(&pods(), start).unwrap();
    let mut seen = vec![start.get()];
    let mut end_known = end.clone();
    loop {
        if let Some(end) = *end.borrow()
            && watch.progress() >= end
        {
            return (seen, objects);
        }
        tokio::select! {
            event = watch.next() => {
                let event = event.unwrap();
                seen.push(event.revision.get());
                assert_eq!(event.previous, objects.get(event.key.as_str()).cloned(), "{event:?}");
                match event.kind {
                    EventKind::Put => objects.insert(event.key.to_string(), event.value.clone()),
                    EventKind::Delete => objects.remove(event.key.as_str()),
                };
            }
            _ = end_known.changed() => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_and_every_watch_sees_exactly_the_log() {
    let dir = tempfile::tempdir().unwrap();
    // Watches that begin early read the disk first, then catch up with the feed.
    let store = open(dir.path(), Options { recent: 50, ..Options::default() });
    let (tell_end, end) = tokio::sync::watch::channel(None);
    let mut watches = vec![tokio::spawn(follow(store.clone(), Some(Revision::ZERO), end.clone()))];
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let own = key("own", &format!("w{writer}"));
                for n in 0..WRITES {
                    increment(&store, &format!("c{}", n % 4)).await;
                    let change = if n % 5 == 4 {
                        Change::delete(own.clone(), Expect::Any, |_| "last".into())
                    } else {
                        Change::put(own.clone(), Expect::Any, |revision| Bytes::from(revision.to_string()))
                    };
                    store.write(vec![change]).await.unwrap();
                }
            })
        })
        .collect();
    for round in 0..20 {
        let after = (round % 2 == 0).then_some(Revision::ZERO);
        watches.push(tokio::spawn(follow(store.clone(), after, end.clone())));
        // Spread over the time of writing.
        store
            .write(vec![Change::put(key("rounds", &round.to_string()), Expect::Absent, |_| "r".into())])
            .await
            .unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let last = store.revision().unwrap();
    assert_eq!(last.get() as usize, 2 * WRITERS * WRITES + 20);
    tell_end.send_replace(Some(last));

    let listing = store.list(&pods(), Page::default()).await.unwrap();
    let objects: BTreeMap<_, _> =
        listing.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect();
    for counter in 0..4 {
        assert_eq!(objects[&format!("core/pods/counters/c{counter}")], (WRITERS * WRITES / 4).to_string());
    }
    for watch in watches {
        let (seen, followed) = watch.await.unwrap();
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap or a repetition in {seen:?}");
        assert_eq!((seen.last().copied(), &followed), (Some(last.get()), &objects));
    }
    store.close().await;
}
