//! Reading, all of it at one moment.

use std::ops::Bound;

use bytes::Bytes;
use redb::{AccessGuard, ReadOnlyTable, ReadTransaction};

use super::{KEYS, META, META_COMPACTED, META_REVISION, Pointer, RECORDS, Row};
use crate::change::{Entry, Event, EventKind, Listing, Page};
use crate::error::{HistoryError, ReadError};
use crate::key::{Key, Prefix, Revision};

/// The store at one moment.
pub(crate) struct Snapshot {
    keys: ReadOnlyTable<&'static str, Pointer>,
    records: ReadOnlyTable<u64, Row>,
    revision: Revision,
    compacted: Revision,
}

/// A part of the log.
pub(crate) struct LogPage {
    pub(crate) events: Vec<Event>,
    /// All wanted changes up to this one are in `events`.
    pub(crate) upto: Revision,
}

/// Ends a part of the log: whichever comes first.
pub(crate) struct LogLimits {
    /// Wanted changes.
    pub(crate) events: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
    /// Changes looked at.
    pub(crate) scanned: usize,
}

impl Snapshot {
    pub(super) fn new(reader: ReadTransaction) -> Result<Self, ReadError> {
        let meta = reader.open_table(META)?;
        let number = |name| Ok::<_, ReadError>(Revision::new(meta.get(name)?.map_or(0, |number| number.value())));
        Ok(Self {
            keys: reader.open_table(KEYS)?,
            records: reader.open_table(RECORDS)?,
            revision: number(META_REVISION)?,
            compacted: number(META_COMPACTED)?,
        })
    }

    /// The last change.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest moment that can be asked for.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Fails unless all changes after this revision are there.
    pub(crate) fn check(&self, asked: Revision) -> Result<(), HistoryError> {
        if asked < self.compacted {
            return Err(HistoryError::Compacted { asked, oldest: self.compacted });
        }
        if asked > self.revision {
            return Err(HistoryError::Ahead { asked, newest: self.revision });
        }
        Ok(())
    }

    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        let Some((revision, true)) = self.keys.get(key.as_str())?.map(|pointer| pointer.value()) else {
            return Ok(None);
        };
        let Some(record) = self.records.get(revision)? else { return Err(missing(revision)) };
        Ok(Some(Entry { key: key.clone(), revision: Revision::new(revision), value: value(&record) }))
    }

    /// Objects in the order of their keys.
    pub(crate) fn list(&self, prefix: &Prefix, page: &Page) -> Result<Listing, HistoryError> {
        let at = page.at.unwrap_or(self.revision);
        self.check(at)?;
        let mut listing = Listing { revision: at, entries: Vec::new(), remaining: 0 };
        let end = prefix.end();
        let from = match &page.after {
            Some(after) if after.as_str() >= end.as_str() => return Ok(listing),
            Some(after) if after.as_str() >= prefix.as_str() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix.as_str()),
        };
        let limit = page.limit.unwrap_or(usize::MAX);
        for row in self.keys.range::<&str>((from, Bound::Excluded(end.as_str()))).map_err(ReadError::from)? {
            let (key, pointer) = row.map_err(ReadError::from)?;
            let Some(revision) = self.version(pointer.value(), at)? else { continue };
            if listing.entries.len() == limit {
                listing.remaining += 1;
                continue;
            }
            let record = self.records.get(revision).map_err(ReadError::from)?.ok_or_else(|| missing(revision))?;
            let (key, revision) = (Key::trusted(key.value()), Revision::new(revision));
            listing.entries.push(Entry { key, revision, value: value(&record) });
        }
        Ok(listing)
    }

    /// Which record of an object was its last at a moment that is not compacted, if it was there.
    fn version(&self, pointer: Pointer, at: Revision) -> Result<Option<u64>, ReadError> {
        let (mut revision, mut live) = pointer;
        while revision > at.get() {
            let Some(record) = self.records.get(revision)? else { return Err(missing(revision)) };
            let previous = record.value().1;
            // No change before, or a removal before that is compacted.
            let Some(record) = self.records.get(previous)? else { return Ok(None) };
            (revision, live) = (previous, record.value().2);
        }
        Ok(live.then_some(revision))
    }

    /// The changes after a revision, of all objects or those of a prefix.
    pub(crate) fn log(
        &self,
        after: Revision,
        prefix: Option<&Prefix>,
        limits: &LogLimits,
    ) -> Result<LogPage, HistoryError> {
        self.check(after)?;
        let mut page = LogPage { events: Vec::new(), upto: after };
        let mut bytes = 0;
        for row in self.records.range(after.get() + 1..).map_err(ReadError::from)?.take(limits.scanned) {
            let (revision, record) = row.map_err(ReadError::from)?;
            page.upto = Revision::new(revision.value());
            let (key, previous, live, value) = record.value();
            if prefix.is_some_and(|prefix| !key.starts_with(prefix.as_str())) {
                continue;
            }
            let event = Event {
                revision: page.upto,
                key: Key::trusted(key),
                kind: if live { EventKind::Put } else { EventKind::Delete },
                value: Bytes::copy_from_slice(value),
                previous: self.live_value(previous)?,
            };
            bytes += event.size();
            page.events.push(event);
            if page.events.len() >= limits.events || bytes >= limits.bytes {
                break;
            }
        }
        Ok(page)
    }

    /// The value of a record, unless it is a removal or none.
    fn live_value(&self, revision: u64) -> Result<Option<Bytes>, ReadError> {
        let record = self.records.get(revision)?;
        Ok(record.filter(|record| record.value().2).map(|record| value(&record)))
    }
}

fn value(record: &AccessGuard<'_, Row>) -> Bytes {
    Bytes::copy_from_slice(record.value().3)
}

/// The file was verified when it was opened: this is damage that came later.
fn missing(revision: u64) -> ReadError {
    redb::StorageError::Corrupted(format!("no record of revision {revision}")).into()
}
