//! Crash-safe storage with one increasing revision and a history to watch.
//!
//! ```text
//!  write ──bounded queue──► writer thread ──one durable commit per batch──► disk (redb)
//!                               │                                             ▲    ▲
//!                               └─► feed (recent events, in memory) ─► watch ─┘    │
//!  get, list ──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Values are opaque bytes. Each change of an object gets a [`Revision`] of its own, and the writer of the value is
//! told which before the bytes are made, so that they can carry it. A write is acknowledged after it is on disk;
//! writers that wait at the same time share one commit. The last changes stay readable for a while: a list may be
//! read [as of an earlier revision](Page::at), and a [`Watch`] may begin there, also after a restart. What is older
//! is compacted, and asking for it says so.
//!
//! The file is trusted only after all of it was verified. A store that is damaged, written by a newer program or
//! open elsewhere is refused and left as it is.

mod change;
mod disk;
mod error;
mod feed;
mod key;
mod store;
mod watch;
mod writer;

pub use change::{Change, Committed, Entry, Event, EventKind, Expect, Listing, Page};
pub use error::{HistoryError, Kind, OpenError, ReadError, WriteError};
pub use key::{BadKey, Key, MAX_KEY, Prefix, Revision};
pub use store::{Options, Store};
pub use watch::Watch;
