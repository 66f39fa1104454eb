//! What can go wrong, by family of operation.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{Entry, Key, Revision};

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody else holds or changed it: look again, retry.
    Busy,
    /// The request makes no sense.
    Invalid,
    /// That part of the past is gone: list again.
    Gone,
    /// The disk or the store does not serve at the moment.
    Unavailable,
    /// What is on disk cannot be used.
    Denied,
}

/// A store that was not opened. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("store {} is in use by {}: stop that first", dir.display(), owner.map_or("another process".into(), |pid| format!("pid {pid}")))]
    InUse {
        /// The store.
        dir: PathBuf,
        /// Who has it, if that can be told.
        owner: Option<u32>,
    },
    /// The file is damaged or is no store.
    #[error("{} is damaged or no store, it was left as it is: restore a copy, or move it away to begin empty", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: Box<redb::Error>,
    },
    /// The file was written by a newer program.
    #[error("{} has format {found}, this program knows {known}, it was left as it is: use the newer program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u64,
        /// Newest format this program knows.
        known: u64,
    },
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The first read failed.
    #[error("cannot read store {}: look at the disk it is on", path.display())]
    Unreadable {
        /// The store.
        path: PathBuf,
        /// Why.
        source: Box<HistoryError>,
    },
    /// The storage engine could not read or write the file.
    #[error("cannot open store {}: see the cause, then try again", path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: Box<redb::Error>,
    },
}

impl OpenError {
    /// A store that was whole a moment ago and cannot be read.
    pub(crate) fn unreadable(dir: &std::path::Path, error: impl Into<HistoryError>) -> Self {
        Self::Unreadable { path: dir.into(), source: Box::new(error.into()) }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::InUse { .. } => Kind::Busy,
            Self::Corrupt { .. } | Self::Newer { .. } => Kind::Denied,
            Self::Io { .. } | Self::Engine { .. } | Self::Unreadable { .. } => Kind::Unavailable,
        }
    }
}

/// A read that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// A write failed and the store could not be opened again.
    #[error("the store is down after its disk failed: look for free space and errors there, each write tries again")]
    Down,
    /// The disk failed.
    #[error("cannot read the store: look at the disk it is on")]
    Storage(#[source] Arc<redb::Error>),
}

impl ReadError {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Storage(Arc::new(error.into()))
    }
}

/// A moment that cannot be listed at or watched from.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HistoryError {
    /// It is too long ago: list again and go on from there.
    #[error("revision {asked} is compacted, the oldest kept is {oldest}: list again")]
    Compacted {
        /// The moment asked for.
        asked: Revision,
        /// The oldest moment that can be asked for.
        oldest: Revision,
    },
    /// It has not come yet, or belongs to another store.
    #[error("revision {asked} has not come yet, the newest is {newest}: list again")]
    Ahead {
        /// The moment asked for.
        asked: Revision,
        /// The newest moment.
        newest: Revision,
    },
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl HistoryError {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Compacted { .. } => Kind::Gone,
            Self::Ahead { .. } => Kind::Invalid,
            Self::Read(error) => error.kind(),
        }
    }
}

/// A write that was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The object is not what the writer expected; nothing was written.
    #[error("{key} is not as expected: read it again and retry")]
    Conflict {
        /// The first key that differed.
        key: Key,
        /// What is there instead; nothing if there is no such object.
        current: Option<Entry>,
    },
    /// One write changes the same object twice; nothing was written.
    #[error("{key} is changed twice in one write: make it one change")]
    Repeated {
        /// The object.
        key: Key,
    },
    /// The function giving a value failed; nothing was written.
    #[error("the new value of {key} could not be made: this is a bug, report it")]
    NoValue {
        /// The object.
        key: Key,
    },
    /// The store is closed; nothing was written.
    #[error("the store is closed")]
    Closed,
    /// A write failed before and the store could not be opened again; nothing was written.
    #[error("the store is down after its disk failed: look for free space and errors there, then try again")]
    Down,
    /// The disk failed. The write may or may not be there: read before trying again.
    #[error("cannot write the store: look for free space and errors on its disk")]
    Storage(#[source] Arc<redb::Error>),
}

impl WriteError {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Conflict { .. } => Kind::Busy,
            Self::Repeated { .. } | Self::NoValue { .. } => Kind::Invalid,
            Self::Closed | Self::Down | Self::Storage(_) => Kind::Unavailable,
        }
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Closed,
            ReadError::Down => Self::Down,
            ReadError::Storage(cause) => Self::Storage(cause),
        }
    }
}
