//! From what is there to what is wanted: the list of entries to change.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    host::{Entry, Host, HostError},
    record::{Record, original, stamp},
    wanted::Wanted,
};

/// One entry, before and after. Undoing is the same thing the other way round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where, as a path of the node.
    pub path: PathBuf,
    /// What is there now.
    pub before: Entry,
    /// What shall be there.
    pub after: Entry,
}

/// Compares `wanted` with the node. What is managed for the first time has its
/// original kept; what is no longer managed gets it back.
///
/// # Errors
/// When an entry cannot be read.
pub fn plan(record: &Record, wanted: &Wanted, host: &Host) -> Result<Vec<Change>, HostError> {
    let mut changes = Vec::new();
    let mut change = |path: PathBuf, before: Entry, after: &Entry| {
        if before != *after {
            changes.push(Change { path, before, after: after.clone() });
        }
    };
    for (path, after) in &wanted.entries {
        let before = host.read(path)?;
        // What is kept already is the true original: only the record got lost.
        let unknown = host.read(&original(path))? == Entry::Absent && host.read(&stamp(path))? == Entry::Absent;
        if !record.owned.contains_key(path) && unknown {
            let (kept, content) = match &before {
                Entry::Absent => (stamp(path), Entry::file("", 0o600)),
                there => (original(path), there.clone()),
            };
            change(kept, Entry::Absent, &content);
        }
        change(path.clone(), before, after);
    }
    for path in record.owned.keys().filter(|path| !wanted.entries.contains_key(*path)) {
        let (kept, mark) = (original(path), stamp(path));
        let after = host.read(&kept)?;
        let marked = host.read(&mark)?;
        if after == Entry::Absent && marked == Entry::Absent {
            tracing::warn!(path = %path.display(), "neither original nor stamp is there; the file is removed");
        }
        change(path.clone(), host.read(path)?, &after);
        change(kept, after, &Entry::Absent);
        change(mark, marked, &Entry::Absent);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    struct Node {
        _dir: tempfile::TempDir,
        host: Host,
        record: Record,
    }

    impl Node {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let host = Host::new(dir.path());
            for (path, text) in files {
                host.put(Path::new(path), &Entry::file(*text, 0o600)).unwrap();
            }
            Self { _dir: dir, host, record: Record::baseline() }
        }

        fn apply(&mut self, entries: &[(&str, Entry)]) -> usize {
            let entries = entries.iter().map(|(path, entry)| (PathBuf::from(path), entry.clone())).collect();
            let wanted = Wanted { entries, ..Wanted::default() };
            let changes = plan(&self.record, &wanted, &self.host).unwrap();
            for change in &changes {
                self.host.put(&change.path, &change.after).unwrap();
            }
            self.record.owned = wanted.entries.iter().map(|(path, entry)| (path.clone(), entry.print())).collect();
            changes.len()
        }

        fn at(&self, path: &str) -> Entry {
            self.host.read(Path::new(path)).unwrap()
        }
    }

    #[test]
    fn row_22_originals_come_back_and_new_files_go() {
        let shipped = Entry::file("shipped", 0o600);
        let mut node = Node::new(&[("/etc/old", "shipped")]);
        let ours = |text: &str| Entry::file(text, 0o644);
        assert_eq!(node.apply(&[("/etc/old", ours("1")), ("/etc/new", ours("1"))]), 4);
        assert_eq!(node.at("/etc/machine-config-daemon/orig/etc/old.mcdorig"), shipped);
        assert_ne!(node.at("/etc/machine-config-daemon/noorig/etc/new.mcdnoorig"), Entry::Absent);
        assert_eq!(node.apply(&[("/etc/old", ours("1")), ("/etc/new", ours("1"))]), 0, "nothing to do twice");
        assert_eq!(node.apply(&[("/etc/old", ours("2")), ("/etc/new", ours("2"))]), 2, "the first original stays");
        assert_eq!(node.apply(&[]), 4);
        assert_eq!((node.at("/etc/old"), node.at("/etc/new")), (shipped, Entry::Absent));
        assert_eq!(node.at("/etc/machine-config-daemon/orig/etc/old.mcdorig"), Entry::Absent);
        assert_eq!(node.at("/etc/machine-config-daemon/noorig/etc/new.mcdnoorig"), Entry::Absent);
    }

    #[test]
    fn a_lost_record_does_not_cost_the_originals() {
        let mut node = Node::new(&[("/etc/old", "shipped")]);
        node.apply(&[("/etc/old", Entry::file("ours", 0o644)), ("/etc/new", Entry::file("ours", 0o644))]);
        node.record = Record::baseline();
        node.apply(&[("/etc/old", Entry::file("2", 0o644)), ("/etc/new", Entry::file("2", 0o644))]);
        node.apply(&[]);
        assert_eq!(node.at("/etc/old"), Entry::file("shipped", 0o600));
        assert_eq!(node.at("/etc/new"), Entry::Absent);
    }

    #[test]
    fn removing_a_file_of_the_system_keeps_it_for_later() {
        let mut node = Node::new(&[("/etc/old", "shipped")]);
        node.apply(&[("/etc/old", Entry::Absent)]);
        assert_eq!(node.at("/etc/old"), Entry::Absent);
        node.apply(&[]);
        assert_eq!(node.at("/etc/old"), Entry::file("shipped", 0o600));
    }
}
