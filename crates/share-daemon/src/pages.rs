//! Which pages a guest may keep when it opens a file again.
//!
//! Close-to-open consistency: who opens a file after it was changed reads what was
//! written. An answer to an open either has the guest drop the pages it has of the file
//! or lets it keep them. They may be kept when two things are certain: that the file is
//! still as it was at an open before (its [`Stamp`]), and that the guest has no pages
//! from before that open. Hence a file is remembered with the stamp it had when the
//! guest was last told to drop its pages:
//!
//! ```text
//!              open: drop                          open, same stamp: keep
//!  unknown ─────────────────► told ─── handle ───► clean ──┐
//!                             ▲  │      used       │  ▲    │
//!                             └──┘                 │  └────┘
//!                 any open: drop ◄─────────────────┘
//!                                   open, other stamp
//! ```
//!
//! *Told* and *clean* differ because the guest processes answers in any order: only when
//! it uses the handle it got with an answer has it done what the answer says.
//!
//! Times tell changes apart only if the later change comes some time after the former:
//! file systems count in ticks of up to two seconds. So a stamp counts only if it was
//! taken that long after the change it shows.
//!
//! Not seen, as with any file system that is shared over a network: what a process of
//! the host writes through a shared mapping, until the kernel counts it as a change;
//! and changes the host itself has not heard of when the shared directory lies on a
//! network file system.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use virtiofsd::fuse::Attr;

/// The coarsest clock of a file system.
const TICK: Duration = Duration::from_secs(2);
/// Most files remembered, at about 100 bytes each. A file that is not costs one more reading.
const MOST: usize = 8192;

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    /// Since 1970, as the next.
    modified: (u64, u32),
    changed: (u64, u32),
}

impl Stamp {
    /// The stamp of a file, nothing for a file whose stamp would say nothing: those of
    /// `/sys` and the like change without their times. What gives them away is that
    /// they take no room.
    pub fn of(attr: &Attr) -> Option<Self> {
        (attr.blocks > 0).then_some(Self {
            size: attr.size,
            modified: (attr.mtime, attr.mtimensec),
            changed: (attr.ctime, attr.ctimensec),
        })
    }

    /// Whether any change from `now` on would show. A clock set back only makes this
    /// false for longer.
    fn settled(&self, now: Duration) -> bool {
        let (seconds, nanos) = self.changed;
        let changed = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()));
        changed.saturating_add(TICK) <= now
    }
}

/// What the guest was told to drop, by number of the file.
#[derive(Debug)]
pub struct Pages {
    dropped: Mutex<HashMap<u64, Dropped>>,
    most: usize,
}

#[derive(Debug)]
struct Dropped {
    stamp: Stamp,
    settled: bool,
    /// The handle given out with the word to drop, until the guest uses it.
    told: Option<u64>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { dropped: Mutex::default(), most: MOST }
    }
}

impl Pages {
    /// Whether the guest may keep the pages of `file` at an open that gave it `handle`.
    /// `stamp` was taken after the file was opened, at `now` (since 1970) or
    /// just after.
    pub fn keep(&self, file: u64, handle: u64, stamp: Option<Stamp>, now: Duration) -> bool {
        let mut dropped = self.dropped();
        let Some(stamp) = stamp else {
            dropped.remove(&file);
            return false;
        };
        if dropped.get(&file).is_some_and(|last| last.stamp == stamp && last.settled && last.told.is_none()) {
            return true;
        }
        // Starting over is simple, and a guest that opens that many files in turn gains
        // nothing from any other order.
        if dropped.len() >= self.most && !dropped.contains_key(&file) {
            dropped.clear();
        }
        dropped.insert(file, Dropped { stamp, settled: stamp.settled(now), told: Some(handle) });
        false
    }

    /// The guest used a handle: it has processed the answer that gave it.
    pub fn used(&self, file: u64, handle: u64) {
        if let Some(last) = self.dropped().get_mut(&file)
            && last.told == Some(handle)
        {
            last.told = None;
        }
    }

    /// The guest no longer knows the file: its number may get a new meaning.
    pub fn forget(&self, file: u64) {
        self.dropped().remove(&file);
    }

    /// The guest starts over, and so do all numbers.
    pub fn forget_all(&self) {
        self.dropped().clear();
    }

    fn dropped(&self) -> MutexGuard<'_, HashMap<u64, Dropped>> {
        // Each entry is whole at any time.
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file changed at second 100.
    fn file() -> Attr {
        Attr { size: 10, blocks: 8, mtime: 90, ctime: 100, ctimensec: 500, ..Attr::default() }
    }

    const LATER: Duration = Duration::from_secs(200);

    fn keep(pages: &Pages, handle: u64, attr: Attr) -> bool {
        pages.keep(1, handle, Stamp::of(&attr), LATER)
    }

    /// The guest has opened and read the file.
    fn read() -> Pages {
        let pages = Pages::default();
        assert!(!keep(&pages, 1, file()), "nothing is known of the file yet");
        pages.used(1, 1);
        pages
    }

    #[test]
    fn pages_are_kept_while_the_file_is_as_it_was() {
        for (what, now, want) in [
            ("nothing", file(), true),
            ("read on the host", Attr { atime: 150, atimensec: 3, ..file() }, true),
            ("longer", Attr { size: 11, ..file() }, false),
            ("written", Attr { mtime: 91, ..file() }, false),
            ("written a little later", Attr { mtimensec: 1, ..file() }, false),
            ("written, its time set back", Attr { ctime: 101, ..file() }, false),
            ("the same, a little later", Attr { ctimensec: 501, ..file() }, false),
            ("replaced by an older one", Attr { ctime: 99, ..file() }, false),
            ("takes no room", Attr { blocks: 0, ..file() }, false),
        ] {
            let pages = read();
            assert_eq!(keep(&pages, 2, now), want, "{what}");
            pages.used(1, 2);
            // Whatever happened, from here on this is how the file was.
            assert_eq!(keep(&pages, 3, now), now.blocks > 0, "{what}, again");
        }
    }

    #[test]
    fn a_stamp_taken_right_after_a_change_does_not_count() {
        let at = |seconds, nanos| Duration::new(seconds, nanos);
        for (taken, want) in [
            (at(100, 500), false),
            (at(102, 499), false),
            (at(102, 500), true),
            (at(200, 0), true),
            // The clock was set back.
            (at(50, 0), false),
        ] {
            let (pages, stamp) = (Pages::default(), Stamp::of(&file()));
            assert!(!pages.keep(1, 1, stamp, taken));
            pages.used(1, 1);
            assert_eq!(pages.keep(1, 2, stamp, LATER), want, "{taken:?}");
            pages.used(1, 2);
            assert!(pages.keep(1, 3, stamp, LATER), "{taken:?}: the second stamp was taken late enough");
        }
    }

    #[test]
    fn nothing_is_kept_before_the_guest_has_dropped_what_it_was_told_to() {
        let changed = Attr { mtime: 150, ctime: 150, ..file() };
        let pages = read();
        assert!(!keep(&pages, 2, changed));
        assert!(!keep(&pages, 3, changed), "the answer to open 2 may still be under way");
        pages.used(1, 1);
        assert!(!keep(&pages, 4, changed), "handle 1 is older than the change");
        pages.used(1, 4);
        assert!(keep(&pages, 5, changed));
    }

    #[test]
    fn a_number_that_is_forgotten_says_nothing_about_the_next_file() {
        let pages = read();
        pages.forget(2);
        assert!(keep(&pages, 2, file()));
        pages.forget(1);
        assert!(!keep(&pages, 3, file()));
        let pages = read();
        pages.forget_all();
        assert!(!keep(&pages, 4, file()));
    }

    #[test]
    fn memory_is_bounded_and_a_full_table_starts_over() {
        let pages = Pages { most: 3, ..Pages::default() };
        let stamp = Stamp::of(&file());
        for file in 0..100 {
            assert!(!pages.keep(file, file, stamp, LATER));
            pages.used(file, file);
            assert!(pages.keep(file, file, stamp, LATER), "{file}: the newest is always remembered");
            assert!(pages.dropped().len() <= 3);
        }
    }
}
