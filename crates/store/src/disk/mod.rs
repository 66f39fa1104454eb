//! The file: which tables it has and who may touch it.
//!
//! ```text
//!  keys     key      → (revision of the last change, is it there)
//!  records  revision → (key, revision of the change before, is it there, value)
//!  meta     name     → number: format, revision, compacted, history bytes
//! ```
//!
//! A change appends a record and points its key to it; the record points to the one before. So records are the
//! objects, their history and the log of all changes at once, and each value is stored once. Revisions have no
//! gaps: after the last compacted one every record is there, below it only those that are still current.
//!
//! Compacting a revision removes what it replaced; if it removed an object, also itself and the key.

mod open;
mod overlay;
mod snapshot;
mod transaction;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadableDatabase, TableDefinition};

pub(crate) use snapshot::{LogLimits, LogPage, Snapshot};
pub(crate) use transaction::Transaction;

use crate::error::{OpenError, ReadError};

/// The layout written and the newest understood.
const FORMAT: u64 = 1;

/// Revision of the record, and is the object there.
type Pointer = (u64, bool);
/// Key, revision of the record before or zero, is the object there, value.
type Row = (&'static str, u64, bool, &'static [u8]);

const KEYS: TableDefinition<'_, &str, Pointer> = TableDefinition::new("keys");
const RECORDS: TableDefinition<'_, u64, Row> = TableDefinition::new("records");
/// Kept in all formats to come: it tells which one it is.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
const META_COMPACTED: &str = "compacted";
const META_HISTORY_BYTES: &str = "history_bytes";

enum State {
    Open(Database),
    /// The disk failed and the file could not be opened again yet.
    Down,
    Closed,
}

impl State {
    fn database(&self) -> Result<&Database, ReadError> {
        match self {
            Self::Open(database) => Ok(database),
            Self::Down => Err(ReadError::Down),
            Self::Closed => Err(ReadError::Closed),
        }
    }
}

/// The open file of a store.
pub(crate) struct Disk {
    path: PathBuf,
    cache: usize,
    state: RwLock<State>,
    /// Locked as long as the store is open: it names the owner to others.
    lock: Mutex<Option<File>>,
}

impl Disk {
    /// Opens the store in a directory, a new one if there is none.
    pub(crate) fn open(dir: &Path, cache: usize) -> Result<Self, OpenError> {
        let lock = open::lock(dir)?;
        let path = open::prepare(dir)?;
        let database = open::database(&path, cache)?;
        Ok(Self { path, cache, state: RwLock::new(State::Open(database)), lock: Mutex::new(Some(lock)) })
    }

    /// All of it at this moment.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, ReadError> {
        Snapshot::new(self.state().database()?.begin_read()?)
    }

    /// Runs `change` and makes what it did durable. If it fails, or did nothing, nothing is written.
    pub(crate) fn write<T>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, redb::Error>,
    ) -> Result<T, ReadError> {
        let state = self.state();
        let mut commit = state.database()?.begin_write()?;
        // One more sync per batch buys that the newest commit is known to be whole: after a crash, damage to it is
        // reported instead of being taken for a write that did not finish.
        commit.set_two_phase_commit(true);
        let mut transaction = Transaction::new(&commit)?;
        let before = transaction.revision();
        let result = change(&mut transaction)?;
        if transaction.revision() == before {
            drop(transaction);
            commit.abort()?;
        } else {
            transaction.finish()?;
            commit.commit()?;
        }
        Ok(result)
    }

    /// Is there nothing to read or write until the file was [opened again](Self::reopen)?
    pub(crate) fn is_down(&self) -> bool {
        matches!(*self.state(), State::Down)
    }

    /// After a failed write the engine refuses to go on until the file was opened and verified anew.
    pub(crate) fn reopen(&self) -> Result<(), OpenError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = State::Down;
        *state = State::Open(open::database(&self.path, self.cache)?);
        Ok(())
    }

    /// Closes the file and gives up the lock. Reads under way fail.
    pub(crate) fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(database) = std::mem::replace(&mut *state, State::Closed)
            && let Err(error) = database.close()
        {
            tracing::warn!(path = %self.path.display(), %error, "store did not close cleanly, it is verified when opened");
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}
