//! Following the changes of some objects.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::change::Event;
use crate::disk::{Disk, LogLimits, LogPage};
use crate::error::{HistoryError, ReadError};
use crate::feed::{Feed, News};
use crate::key::{Prefix, Revision};

/// Changes a watch takes at once from the feed or the disk. They stay in memory until the watch has gone through them.
const AHEAD: usize = 64;
/// Bytes a watch takes at once from the disk.
const AHEAD_BYTES: usize = 1 << 20;
/// Changes looked at in one go on disk: a few milliseconds.
const SCAN: usize = 2000;

/// The changes of the objects under a prefix, one after the other.
///
/// Each change comes once, in the order of revisions. A watch that is not asked costs little, however many there are;
/// one that is asked too seldom loses its place at some point and says [`HistoryError::Compacted`].
pub struct Watch {
    disk: Arc<Disk>,
    feed: Arc<Feed>,
    prefix: Prefix,
    bell: watch::Receiver<()>,
    /// The next part of the log, while it is read from disk.
    reading: Option<JoinHandle<Result<LogPage, HistoryError>>>,
    /// Taken and not yet handed out.
    ahead: VecDeque<Arc<Event>>,
    /// All changes up to this one were handed out or are in `ahead`.
    taken: Revision,
    /// All changes up to this one were handed out.
    seen: Revision,
}

impl Watch {
    pub(crate) fn new(disk: Arc<Disk>, feed: Arc<Feed>, prefix: Prefix, after: Revision) -> Self {
        let bell = feed.join(&prefix);
        Self { disk, feed, prefix, bell, reading: None, ahead: VecDeque::new(), taken: after, seen: after }
    }

    /// The next change, waiting for it if there is none yet.
    ///
    /// Cancel-safe. After an error there is nothing more to get.
    pub async fn next(&mut self) -> Result<Arc<Event>, HistoryError> {
        loop {
            if let Some(event) = self.ahead.pop_front() {
                self.seen = if self.ahead.is_empty() { self.taken } else { event.revision };
                return Ok(event);
            }
            // Seen before looking: what is rung from here on ends the wait below.
            self.bell.borrow_and_update();
            match self.feed.after(&self.prefix, self.taken, AHEAD) {
                News::Events(events) => self.take(events),
                News::OnDisk => {
                    let page = self.read_log().await?;
                    self.taken = page.upto;
                    self.ahead = page.events.into_iter().map(Arc::new).collect();
                    if self.ahead.is_empty() {
                        self.seen = self.taken;
                    }
                }
                News::Nothing(upto) => {
                    (self.taken, self.seen) = (upto, upto);
                    self.bell.changed().await.map_err(|_| ReadError::Closed)?;
                }
                News::Closed => return Err(ReadError::Closed.into()),
            }
        }
    }

    /// Every change up to this revision was handed out: a client that has them may go on from here.
    ///
    /// It advances although none of the objects watched changed. What has to be read from disk first counts only
    /// when [`next`](Self::next) has gone through it, so call this beside waiting there.
    pub fn progress(&mut self) -> Revision {
        if self.ahead.is_empty()
            && let News::Nothing(upto) = self.feed.after(&self.prefix, self.taken, 1)
        {
            (self.taken, self.seen) = (upto, upto);
        }
        self.seen
    }

    fn take(&mut self, events: VecDeque<Arc<Event>>) {
        if let Some(last) = events.back() {
            self.taken = last.revision;
        }
        self.ahead = events;
    }

    async fn read_log(&mut self) -> Result<LogPage, HistoryError> {
        // Kept when the wait is cancelled: who polls often and briefly would otherwise never get anywhere.
        let reading = self.reading.get_or_insert_with(|| {
            let (disk, prefix, after) = (self.disk.clone(), self.prefix.clone(), self.taken);
            tokio::task::spawn_blocking(move || {
                let limits = LogLimits { events: AHEAD, bytes: AHEAD_BYTES, scanned: SCAN };
                disk.snapshot()?.log(after, Some(&prefix), &limits)
            })
        });
        let page = reading.await;
        self.reading = None;
        // The blocking pool refuses only while the runtime stops.
        page.unwrap_or_else(|_| Err(ReadError::Closed.into()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.feed.leave(&self.prefix);
    }
}
