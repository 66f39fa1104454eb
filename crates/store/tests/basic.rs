//! What one caller sees.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use common::{key, open, put, small, text};
use osc_store::{Change, EventKind, Expect, HistoryError, Kind, Page, Prefix, ReadError, Revision, WriteError};

fn pods() -> Prefix {
    Prefix::resource("", "pods").unwrap()
}

#[tokio::test]
async fn values_carry_their_revision_and_conflicts_say_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    let a = key("a", "x");
    let created = store.write(vec![put(&a, Expect::Absent)]).await.unwrap();
    assert_eq!((created.revision, text(&created.entries[0].value)), (Revision::new(1), "1 core/pods/a/x"));
    assert_eq!(store.get(&a).unwrap().as_ref(), Some(&created.entries[0]));

    let rows = [
        (Expect::Absent, false, false),
        (Expect::Revision(Revision::new(7)), false, false),
        (Expect::Revision(Revision::new(1)), false, true),
        (Expect::Any, true, true),
        (Expect::Any, true, false),
        (Expect::Revision(Revision::new(1)), false, false),
        (Expect::Absent, true, false),
        (Expect::Absent, false, true),
    ];
    for (expect, delete, done) in rows {
        let before = store.get(&a).unwrap();
        let change = if delete { Change::delete(a.clone(), expect, |_| "last".into()) } else { put(&a, expect) };
        match store.write(vec![change]).await {
            Ok(_) => assert!(done, "{expect:?} delete {delete}"),
            Err(WriteError::Conflict { key, current }) => {
                assert!(!done, "{expect:?} delete {delete}");
                assert_eq!((key, current), (a.clone(), before));
            }
            Err(error) => panic!("{error}"),
        }
    }
    store.close().await;
}

#[tokio::test]
async fn a_write_is_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    let (a, b) = (key("a", "x"), key("b", "y"));
    store.write(vec![put(&a, Expect::Absent)]).await.unwrap();
    let refused = store.write(vec![put(&b, Expect::Any), put(&a, Expect::Absent)]).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    let repeated = store.write(vec![put(&b, Expect::Any), put(&b, Expect::Any)]).await.unwrap_err();
    assert!(matches!(repeated, WriteError::Repeated { .. }));
    let failed = Change::put(b.clone(), Expect::Any, |_| panic!("on purpose"));
    let failed = store.write(vec![put(&key("c", "z"), Expect::Any), failed]).await.unwrap_err();
    assert!(matches!(failed, WriteError::NoValue { .. }));
    assert_eq!(store.get(&b).unwrap(), None);
    assert_eq!(store.revision().unwrap(), Revision::new(1));

    let both = store.write(vec![put(&b, Expect::Absent), put(&a, Expect::Any)]).await.unwrap();
    assert_eq!(both.revision, Revision::new(3));
    assert_eq!(both.entries.iter().map(|entry| entry.revision.get()).collect::<Vec<_>>(), [2, 3]);
    store.close().await;
}

#[tokio::test]
async fn pages_of_a_list_show_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    for (namespace, name) in [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "x")] {
        store.write(vec![put(&key(namespace, name), Expect::Absent)]).await.unwrap();
    }
    let names =
        |listing: &osc_store::Listing| listing.entries.iter().map(|e| text(&e.value).to_owned()).collect::<Vec<_>>();
    let first = store.list(&pods(), Page { limit: Some(2), ..Page::default() }).await.unwrap();
    assert_eq!(names(&first), ["1 core/pods/a/x", "2 core/pods/a/y"]);
    assert_eq!((first.revision.get(), first.remaining), (5, 3));

    // Changed, removed, removed and made again, new: the list begun above must not show any of it.
    store.write(vec![put(&key("b", "x"), Expect::Any)]).await.unwrap();
    for name in ["y", "x"] {
        let key = if name == "y" { key("b", "y") } else { key("c", "x") };
        store.write(vec![Change::delete(key, Expect::Any, |_| "gone".into())]).await.unwrap();
    }
    store.write(vec![put(&key("c", "x"), Expect::Absent)]).await.unwrap();
    store.write(vec![put(&key("d", "x"), Expect::Absent)]).await.unwrap();

    let after = first.entries.last().map(|entry| entry.key.clone());
    let rest = store.list(&pods(), Page { after, at: Some(first.revision), limit: None }).await.unwrap();
    assert_eq!(names(&rest), ["3 core/pods/b/x", "4 core/pods/b/y", "5 core/pods/c/x"]);
    let now = store.list(&pods(), Page::default()).await.unwrap();
    assert_eq!(
        names(&now),
        ["1 core/pods/a/x", "2 core/pods/a/y", "6 core/pods/b/x", "9 core/pods/c/x", "10 core/pods/d/x"]
    );
    let in_b = store.list(&Prefix::namespace("", "pods", "b").unwrap(), Page::default()).await.unwrap();
    assert_eq!(names(&in_b), ["6 core/pods/b/x"]);

    let elsewhere = Some(osc_store::Key::new("zzz", "pods", "a", "x").unwrap());
    assert!(store.list(&pods(), Page { after: elsewhere, ..Page::default() }).await.unwrap().entries.is_empty());
    store.close().await;
}

#[tokio::test]
async fn what_is_compacted_or_to_come_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    for _ in 0..50 {
        store.write(vec![put(&key("a", "x"), Expect::Any)]).await.unwrap();
    }
    let at = |revision| Page { at: Some(Revision::new(revision)), ..Page::default() };
    for (revision, kind) in [(3, Kind::Gone), (51, Kind::Invalid)] {
        assert_eq!(store.list(&pods(), at(revision)).await.unwrap_err().kind(), kind, "{revision}");
        assert_eq!(store.watch(&pods(), Revision::new(revision)).err().map(|error| error.kind()), Some(kind));
    }
    let HistoryError::Compacted { oldest, .. } = store.list(&pods(), at(0)).await.unwrap_err() else { panic!() };
    assert_eq!(oldest.get(), 50 - small().history);
    let listing = store.list(&pods(), at(oldest.get())).await.unwrap();
    assert_eq!(listing.entries[0].revision, oldest);
    store.close().await;
}

#[tokio::test]
async fn a_watch_sees_what_happens_and_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    let mut watch = store.watch(&Prefix::namespace("", "pods", "a").unwrap(), Revision::ZERO).unwrap();
    let next = tokio::spawn(async move {
        let event = watch.next().await.unwrap();
        (watch, event)
    });
    store.write(vec![put(&key("b", "x"), Expect::Any), put(&key("a", "x"), Expect::Any)]).await.unwrap();
    let (mut watch, event) = next.await.unwrap();
    assert_eq!((event.revision.get(), event.kind, event.previous.clone()), (2, EventKind::Put, None));
    assert_eq!(watch.progress().get(), 2);

    store.write(vec![put(&key("b", "x"), Expect::Any)]).await.unwrap();
    assert_eq!(watch.progress().get(), 3, "changes elsewhere advance it");
    store.write(vec![put(&key("a", "x"), Expect::Any)]).await.unwrap();
    store.write(vec![Change::delete(key("a", "x"), Expect::Any, |_| "last".into())]).await.unwrap();
    assert_eq!(watch.progress().get(), 3, "not past what was not handed out");
    let event = watch.next().await.unwrap();
    assert_eq!((event.revision.get(), text(event.previous.as_ref().unwrap())), (4, "2 core/pods/a/x"));
    assert_eq!(watch.progress().get(), 4);
    let event = watch.next().await.unwrap();
    assert_eq!(
        (event.kind, text(&event.value), text(event.previous.as_ref().unwrap())),
        (EventKind::Delete, "last", "4 core/pods/a/x")
    );
    assert!(tokio::time::timeout(Duration::from_millis(20), watch.next()).await.is_err());

    let waiting = tokio::spawn(async move { watch.next().await });
    store.close().await;
    let ended = waiting.await.unwrap();
    assert!(matches!(ended, Err(HistoryError::Read(ReadError::Closed))));
    assert!(matches!(store.get(&key("a", "x")), Err(ReadError::Closed)));
    assert!(matches!(store.write(vec![put(&key("a", "x"), Expect::Any)]).await, Err(WriteError::Closed)));
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    for _ in 0..25 {
        store.write(vec![put(&key("a", "x"), Expect::Any), put(&key("b", "x"), Expect::Any)]).await.unwrap();
    }
    store.close().await;
    drop(store);
    let store = open(dir.path(), small());
    let mut watch = store.watch(&Prefix::namespace("", "pods", "b").unwrap(), Revision::new(40)).unwrap();
    store.write(vec![put(&key("b", "x"), Expect::Any)]).await.unwrap();
    for want in [42, 44, 46, 48, 50, 51] {
        let event = watch.next().await.unwrap();
        assert_eq!(event.revision.get(), want);
        let before = if want == 51 { 50 } else { want - 2 };
        assert_eq!(text(event.previous.as_ref().unwrap()), format!("{before} core/pods/b/x"));
    }
    store.close().await;
}

#[tokio::test]
async fn a_watch_that_is_too_slow_loses_its_place_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    store.write(vec![put(&key("a", "x"), Expect::Any)]).await.unwrap();
    let mut slow = store.watch(&pods(), Revision::ZERO).unwrap();
    for _ in 0..100 {
        store.write(vec![put(&key("a", "x"), Expect::Any)]).await.unwrap();
    }
    assert!(matches!(slow.next().await, Err(HistoryError::Compacted { .. })));
    store.close().await;
}

#[tokio::test]
async fn many_idle_watches_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), small());
    let mut idle: Vec<_> = (0..5000)
        .map(|n| store.watch(&Prefix::namespace("", "secrets", &format!("ns-{n}")).unwrap(), Revision::ZERO).unwrap())
        .collect();
    for _ in 0..200 {
        store.write(vec![put(&key("a", "x"), Expect::Any)]).await.unwrap();
    }
    // Although everything they could have missed is long compacted, none has lost its place.
    for watch in &mut idle {
        assert_eq!(watch.progress().get(), 200);
        assert!(pin!(watch.next()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    store.close().await;
}
