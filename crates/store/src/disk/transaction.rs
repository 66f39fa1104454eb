//! Writing: what one durable commit consists of.

use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};

use super::{KEYS, META, META_COMPACTED, META_HISTORY_BYTES, META_REVISION, Pointer, RECORDS, Row};
use crate::change::{Entry, Event, EventKind};
use crate::key::{Key, Revision};

/// Tables and counters while a commit is made.
pub(crate) struct Transaction<'t> {
    keys: Table<'t, &'static str, Pointer>,
    records: Table<'t, u64, Row>,
    meta: Table<'t, &'static str, u64>,
    revision: Revision,
    compacted: Revision,
    history_bytes: u64,
}

impl<'t> Transaction<'t> {
    pub(super) fn new(commit: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let meta = commit.open_table(META)?;
        let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |number| number.value()));
        let revision = Revision::new(number(META_REVISION)?);
        let compacted = Revision::new(number(META_COMPACTED)?);
        let history_bytes = number(META_HISTORY_BYTES)?;
        let (keys, records) = (commit.open_table(KEYS)?, commit.open_table(RECORDS)?);
        Ok(Self { keys, records, meta, revision, compacted, history_bytes })
    }

    /// The last change, those of this transaction included.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The object as it is after what this transaction did so far.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Entry>, redb::Error> {
        let Some((revision, true)) = self.pointer(key)? else { return Ok(None) };
        let record = self.records.get(revision)?;
        Ok(record.map(|record| Entry {
            key: key.clone(),
            revision: Revision::new(revision),
            value: Bytes::copy_from_slice(record.value().3),
        }))
    }

    /// When the object changed last, if it is there.
    pub(crate) fn changed(&self, key: &Key) -> Result<Option<Revision>, redb::Error> {
        let pointer = self.pointer(key)?;
        Ok(pointer.filter(|(_, live)| *live).map(|(revision, _)| Revision::new(revision)))
    }

    /// Writes the next change.
    pub(crate) fn append(&mut self, key: Key, kind: EventKind, value: Bytes) -> Result<Event, redb::Error> {
        let live = kind == EventKind::Put;
        let previous = self.get(&key)?.map(|entry| entry.value);
        let before = self.pointer(&key)?.map_or(0, |(revision, _)| revision);
        self.revision = self.revision.next();
        let revision = self.revision.get();
        self.records.insert(revision, (key.as_str(), before, live, &*value))?;
        self.keys.insert(key.as_str(), (revision, live))?;
        self.history_bytes += value.len() as u64;
        Ok(Event { revision: self.revision, key, kind, value, previous })
    }

    /// Forgets the oldest changes until no more than these are kept, but none after `keep`.
    pub(crate) fn compact(&mut self, events: u64, bytes: u64, keep: Revision) -> Result<(), redb::Error> {
        while self.compacted < keep
            && (self.revision.get() - self.compacted.get() > events || self.history_bytes > bytes)
        {
            self.compacted = self.compacted.next();
            self.forget(self.compacted.get())?;
        }
        Ok(())
    }

    fn forget(&mut self, revision: u64) -> Result<(), redb::Error> {
        let Some(record) = self.records.get(revision)? else {
            return Err(redb::Error::Corrupted(format!("no record of revision {revision}")));
        };
        let (key, previous, live, value) = record.value();
        let (key, len) = (key.to_owned(), value.len() as u64);
        drop(record);
        self.history_bytes = self.history_bytes.saturating_sub(len);
        self.records.remove(previous)?;
        if !live {
            self.records.remove(revision)?;
            // The object may have come back since.
            let last = self.keys.get(&*key)?.map(|pointer| pointer.value());
            if last == Some((revision, false)) {
                self.keys.remove(&*key)?;
            }
        }
        Ok(())
    }

    /// Writes the counters.
    pub(super) fn finish(mut self) -> Result<(), redb::Error> {
        self.meta.insert(META_REVISION, self.revision.get())?;
        self.meta.insert(META_COMPACTED, self.compacted.get())?;
        self.meta.insert(META_HISTORY_BYTES, self.history_bytes)?;
        Ok(())
    }

    fn pointer(&self, key: &Key) -> Result<Option<Pointer>, redb::Error> {
        Ok(self.keys.get(key.as_str())?.map(|pointer| pointer.value()))
    }
}
