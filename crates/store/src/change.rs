//! What goes in and what comes out.

use std::fmt;

use bytes::Bytes;

use crate::{Key, Revision};

/// An object as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// The revision of its last change.
    pub revision: Revision,
    /// Its bytes.
    pub value: Bytes,
}

/// What a writer believes to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No such object.
    Absent,
    /// The object, unchanged since this revision.
    Revision(Revision),
    /// Whatever there is.
    Any,
}

/// Makes the bytes of a value once its revision is known.
pub(crate) type MakeValue = Box<dyn FnOnce(Revision) -> Bytes + Send>;

/// One change of one object.
pub struct Change {
    pub(crate) key: Key,
    pub(crate) expect: Expect,
    pub(crate) kind: EventKind,
    pub(crate) value: MakeValue,
}

impl Change {
    /// Create or replace an object. `value` is called at most once, on the writer thread: it should be quick.
    pub fn put(key: Key, expect: Expect, value: impl FnOnce(Revision) -> Bytes + Send + 'static) -> Self {
        Self { key, expect, kind: EventKind::Put, value: Box::new(value) }
    }

    /// Remove an object; `last` gives the value that its watchers see last. An object that is not there conflicts
    /// with every expectation.
    pub fn delete(key: Key, expect: Expect, last: impl FnOnce(Revision) -> Bytes + Send + 'static) -> Self {
        Self { key, expect, kind: EventKind::Delete, value: Box::new(last) }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, expect, kind, .. } = self;
        f.debug_struct("Change").field("key", key).field("expect", expect).field("kind", kind).finish_non_exhaustive()
    }
}

/// A write that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The revision of its last change.
    pub revision: Revision,
    /// What each change wrote, in the order given; for a removal the last value.
    pub entries: Vec<Entry>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Created or replaced.
    Put,
    /// Removed.
    Delete,
}

/// A change that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub revision: Revision,
    /// To which object.
    pub key: Key,
    /// What.
    pub kind: EventKind,
    /// The new value, of a removal the last.
    pub value: Bytes,
    /// The value before; nothing if the object was created.
    pub previous: Option<Bytes>,
}

impl Event {
    /// Bytes it takes in memory.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.key.as_str().len() + self.value.len() + self.previous.as_ref().map_or(0, Bytes::len)
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// At most so many entries; all if not given.
    pub limit: Option<usize>,
    /// Only what is ordered after this key.
    pub after: Option<Key>,
    /// The list as it was at this revision; as it is now if not given.
    pub at: Option<Revision>,
}

/// A list, or a page of it.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The moment all of it was like this. Pass it as [`Page::at`] to get the other pages of the same list.
    pub revision: Revision,
    /// The objects, ordered by key.
    pub entries: Vec<Entry>,
    /// How many follow after these.
    pub remaining: u64,
}
