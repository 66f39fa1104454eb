//! The face of the store.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::change::{Change, Committed, Entry, Listing, Page};
use crate::disk::Disk;
use crate::error::{HistoryError, OpenError, ReadError, WriteError};
use crate::feed::Feed;
use crate::key::{Key, Prefix, Revision};
use crate::watch::Watch;
use crate::writer::{self, Request, Writer};

/// How much a store keeps.
#[derive(Debug, Clone)]
pub struct Options {
    /// Changes kept on disk for lists of the past and watches that resume.
    pub history: u64,
    /// Bytes of values in them.
    pub history_bytes: u64,
    /// Changes kept in memory for watches.
    pub recent: usize,
    /// Bytes of them.
    pub recent_bytes: usize,
    /// Bytes of the file kept in memory.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: 20_000, history_bytes: 128 << 20, recent: 4096, recent_bytes: 8 << 20, cache_bytes: 8 << 20 }
    }
}

/// Objects, by key, with their history. Clones are the same store.
///
/// When the last clone is dropped the store closes in the background; [`close`](Self::close) waits for that.
#[derive(Clone)]
pub struct Store {
    disk: Arc<Disk>,
    feed: Arc<Feed>,
    requests: mpsc::Sender<Request>,
}

impl Store {
    /// Opens the store in a directory, which is made if need be. Blocks while the file is verified: a second or so
    /// per gigabyte.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let disk = Arc::new(Disk::open(dir, options.cache_bytes)?);
        let broken = |error| OpenError::unreadable(dir, error);
        let snapshot = disk.snapshot().map_err(broken)?;
        let oldest = snapshot.revision().get().saturating_sub(options.recent as u64);
        let head = snapshot.compacted().max(Revision::new(oldest));
        let feed = Arc::new(Feed::new(head, options.recent, options.recent_bytes));
        writer::catch_up(&disk, &feed).map_err(|error| OpenError::unreadable(dir, error))?;
        let (sender, requests) = mpsc::channel(writer::QUEUE);
        let Options { history, history_bytes, .. } = options;
        let writer = Writer { disk: disk.clone(), feed: feed.clone(), requests, history, history_bytes };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { action: "start the writer of", path: dir.into(), source })?;
        Ok(Self { disk, feed, requests: sender })
    }

    /// The last change that is on disk.
    pub fn revision(&self) -> Result<Revision, ReadError> {
        Ok(self.disk.snapshot()?.revision())
    }

    /// One object. Reads a few pages at most, so it is called in place.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        self.disk.snapshot()?.get(key)
    }

    /// The objects under a prefix, in the order of their keys, all as of one moment. Cancel-safe.
    pub async fn list(&self, prefix: &Prefix, page: Page) -> Result<Listing, HistoryError> {
        let (disk, prefix) = (self.disk.clone(), prefix.clone());
        let read = move || disk.snapshot()?.list(&prefix, &page);
        // The blocking pool refuses only while the runtime stops.
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(ReadError::Closed.into()))
    }

    /// Does all these changes or none. Returns when they are on disk.
    ///
    /// Every change gets a revision of its own, in the order given; nobody sees only some of them. A write that is
    /// cancelled may still happen.
    pub async fn write(&self, changes: Vec<Change>) -> Result<Committed, WriteError> {
        let (reply, result) = oneshot::channel();
        self.requests.send(Request::Write { changes, reply }).await.map_err(|_| WriteError::Closed)?;
        result.await.map_err(|_| WriteError::Closed)?
    }

    /// The changes under a prefix after a revision.
    pub fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, HistoryError> {
        self.disk.snapshot()?.check(after)?;
        Ok(Watch::new(self.disk.clone(), self.feed.clone(), prefix.clone(), after))
    }

    /// Finishes the writes that wait, ends all watches and gives up the directory.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.requests.send(Request::Close { reply }).await.is_ok() {
            // The writer answers or is gone: closed either way.
            let _ = closed.await;
        }
    }
}
