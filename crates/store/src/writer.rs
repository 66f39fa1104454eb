//! The one thread that writes: it takes what waits, makes one durable commit of it, tells the feed, then the writers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::change::{Change, Committed, Entry, Event, Expect};
use crate::disk::{Disk, LogLimits, Transaction};
use crate::error::WriteError;
use crate::feed::Feed;
use crate::key::Revision;

/// Writes that may wait; who comes later waits to wait.
pub(crate) const QUEUE: usize = 256;
/// Bytes of values after which a commit takes no more writes.
const BATCH_BYTES: usize = 4 << 20;

/// What the writer thread is asked for.
pub(crate) enum Request {
    Write { changes: Vec<Change>, reply: oneshot::Sender<Result<Committed, WriteError>> },
    Close { reply: oneshot::Sender<()> },
}

type Waiting = (oneshot::Sender<Result<Committed, WriteError>>, Result<Committed, WriteError>);

/// State of the writer thread.
pub(crate) struct Writer {
    pub(crate) disk: Arc<Disk>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Changes to keep.
    pub(crate) history: u64,
    /// Bytes of changes to keep.
    pub(crate) history_bytes: u64,
}

impl Writer {
    /// Serves until it is told to close or nobody can ask any more.
    pub(crate) fn run(mut self) {
        let mut closing = None;
        while closing.is_none() {
            match self.requests.blocking_recv() {
                Some(Request::Write { changes, reply }) => closing = self.batch(changes, reply),
                Some(Request::Close { reply }) => closing = Some(reply),
                None => break,
            }
        }
        self.requests.close();
        self.feed.close();
        self.disk.close();
        if let Some(reply) = closing {
            // Who asked may have gone.
            let _ = reply.send(());
        }
    }

    /// Commits a write together with those that wait behind it. Gives who asks to close, if that came up.
    fn batch(
        &mut self,
        changes: Vec<Change>,
        reply: oneshot::Sender<Result<Committed, WriteError>>,
    ) -> Option<oneshot::Sender<()>> {
        if self.disk.is_down() {
            self.recover();
        }
        let (mut waiting, mut replies) = (Vec::new(), Vec::new());
        let mut next = Some((changes, reply));
        let mut closing = None;
        let Self { disk, requests, history, history_bytes, .. } = self;
        let result = disk.write(|transaction| {
            let mut events = Vec::new();
            let (mut bytes, before) = (0, transaction.revision());
            while let Some((changes, reply)) = next.take() {
                // Known to all who wait before anything can fail.
                replies.push(reply);
                let result = apply(transaction, changes, &mut events)?;
                bytes += result.as_ref().map_or(0, |done| done.entries.iter().map(|entry| entry.value.len()).sum());
                waiting.push(result);
                if bytes < BATCH_BYTES && waiting.len() < QUEUE {
                    match requests.try_recv() {
                        Ok(Request::Write { changes, reply }) => next = Some((changes, reply)),
                        Ok(Request::Close { reply }) => closing = Some(reply),
                        Err(_) => {}
                    }
                }
            }
            transaction.compact(*history, *history_bytes, before)?;
            Ok(events)
        });
        match result {
            Ok(events) => {
                self.feed.publish(events);
                answer(replies.into_iter().zip(waiting));
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "write failed");
                if !self.disk.is_down() {
                    self.recover();
                }
                let untouched = next.into_iter().map(|(_, reply)| reply);
                answer(replies.into_iter().chain(untouched).map(|reply| (reply, Err(error.clone().into()))));
            }
        }
        closing
    }

    /// After a failed commit: what is on disk counts, so the feed is told what is there.
    fn recover(&self) {
        if let Err(error) = self.disk.reopen() {
            tracing::error!(error = &error as &dyn std::error::Error, "store is down until the next write");
            return;
        }
        if let Err(error) = catch_up(&self.disk, &self.feed) {
            tracing::error!(error = &error as &dyn std::error::Error, "changes of the failed write are not told");
        }
    }
}

fn answer(waiting: impl Iterator<Item = Waiting>) {
    for (reply, result) in waiting {
        // Who asked may have gone.
        let _ = reply.send(result);
    }
}

/// Publishes what the log has and the feed has not.
pub(crate) fn catch_up(disk: &Disk, feed: &Feed) -> Result<(), crate::HistoryError> {
    let snapshot = disk.snapshot()?;
    let limits = LogLimits { events: 1000, bytes: BATCH_BYTES, scanned: 1000 };
    while feed.head() < snapshot.revision() {
        feed.publish(snapshot.log(feed.head(), None, &limits)?.events);
    }
    Ok(())
}

/// Does all changes of a write or none: the inner error is the writer's, the outer one that of the disk.
fn apply(
    transaction: &mut Transaction<'_>,
    changes: Vec<Change>,
    events: &mut Vec<Event>,
) -> Result<Result<Committed, WriteError>, redb::Error> {
    if let Err(refusal) = check(transaction, &changes)? {
        return Ok(Err(refusal));
    }
    let mut revision = transaction.revision();
    let mut made = Vec::with_capacity(changes.len());
    for Change { key, kind, value, .. } in changes {
        revision = revision.next();
        // The function is the caller's: its failure must not take the writer with it.
        match catch_unwind(AssertUnwindSafe(|| value(revision))) {
            Ok(value) => made.push((key, kind, value)),
            Err(_) => return Ok(Err(WriteError::NoValue { key })),
        }
    }
    let mut entries = Vec::with_capacity(made.len());
    for (key, kind, value) in made {
        let event = transaction.append(key, kind, value)?;
        entries.push(Entry { key: event.key.clone(), revision: event.revision, value: event.value.clone() });
        events.push(event);
    }
    Ok(Ok(Committed { revision, entries }))
}

fn check(transaction: &Transaction<'_>, changes: &[Change]) -> Result<Result<(), WriteError>, redb::Error> {
    for (index, Change { key, expect, kind, .. }) in changes.iter().enumerate() {
        if changes[..index].iter().any(|other| other.key == *key) {
            return Ok(Err(WriteError::Repeated { key: key.clone() }));
        }
        let changed = transaction.changed(key)?;
        if !as_expected(*expect, *kind, changed) {
            return Ok(Err(WriteError::Conflict { key: key.clone(), current: transaction.get(key)? }));
        }
    }
    Ok(Ok(()))
}

fn as_expected(expect: Expect, kind: crate::EventKind, changed: Option<Revision>) -> bool {
    let removes_nothing = kind == crate::EventKind::Delete && changed.is_none();
    let expected = match expect {
        Expect::Absent => changed.is_none(),
        Expect::Revision(revision) => changed == Some(revision),
        Expect::Any => true,
    };
    expected && !removes_nothing
}
