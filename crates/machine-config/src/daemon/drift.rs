//! Whether the node still is what its record says.

use osc_fault::chain;
use std::path::{Path, PathBuf};

use super::{
    host::{Host, Print},
    record::Record,
};
use crate::spec::Spec;

/// One managed thing that somebody else changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What changed.
    pub path: PathBuf,
    /// How it differs.
    pub what: String,
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// Everything that differs from the record.
pub fn find(record: &Record, host: &Host) -> Vec<Drift> {
    let entries = record.owned.iter().filter_map(|(path, want)| {
        let what = match host.read(path) {
            Ok(entry) => difference(want, &entry.print())?,
            Err(error) => chain(&error),
        };
        Some(Drift { path: path.clone(), what })
    });
    entries.chain(missing_arguments(record, host)).collect()
}

fn difference(want: &Print, found: &Print) -> Option<String> {
    match (want, found) {
        _ if want == found => None,
        (Print::File { sha256: a, mode }, Print::File { sha256: b, mode: found }) if a == b => {
            Some(format!("mode is {found:04o}, expected {mode:04o}"))
        }
        (Print::File { .. }, Print::File { .. }) => Some("content differs".into()),
        (_, Print::Absent) => Some("is missing".into()),
        (Print::Absent, _) => Some("is there again".into()),
        (Print::Link { target }, _) => Some(format!("is no link to {}", target.display())),
        (Print::File { .. }, Print::Link { .. }) => Some("is a link, expected a file".into()),
    }
}

/// Kernel arguments this boot lacks. A root without `/proc` is no machine of its own.
fn missing_arguments(record: &Record, host: &Host) -> Option<Drift> {
    const COMMAND_LINE: &str = "/proc/cmdline";
    let wanted = Spec::parse(&record.spec).ok()?.kernel_arguments;
    let line = std::fs::read_to_string(host.real(COMMAND_LINE)).ok()?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let missing: Vec<String> =
        wanted.into_iter().filter(|argument| !argument.split_whitespace().all(|word| words.contains(&word))).collect();
    let what = format!("lacks {}; restart the machine", missing.join(" "));
    (!missing.is_empty()).then(|| Drift { path: Path::new(COMMAND_LINE).into(), what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::host::Entry;

    #[test]
    fn rows_18_and_19_managed_entries_are_compared_and_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        let (file, link, gone) = (Path::new("/etc/f"), Path::new("/etc/l"), Path::new("/etc/g"));
        let wanted =
            [(file, Entry::file("x", 0o644)), (link, Entry::Link { target: "/t".into() }), (gone, Entry::Absent)];
        let mut record = Record::baseline();
        for (path, entry) in &wanted {
            host.put(path, entry).unwrap();
            record.owned.insert((*path).into(), entry.print());
        }
        for (path, entry, want) in [
            (Path::new("/etc/neighbour"), Entry::file("y", 0o600), None),
            (file, Entry::file("y", 0o644), Some("content differs")),
            (file, Entry::file("x", 0o600), Some("mode is 0600, expected 0644")),
            (file, Entry::Absent, Some("is missing")),
            (file, Entry::Link { target: "/t".into() }, Some("is a link, expected a file")),
            (link, Entry::Link { target: "/u".into() }, Some("is no link to /t")),
            (link, Entry::file("", 0o644), Some("is no link to /t")),
            (gone, Entry::file("", 0o644), Some("is there again")),
        ] {
            host.put(path, &entry).unwrap();
            let found = find(&record, &host);
            assert_eq!(
                found.iter().map(|drift| (drift.path.as_path(), drift.what.as_str())).next(),
                want.map(|what| (path, what))
            );
            for (path, entry) in &wanted {
                host.put(path, entry).unwrap();
            }
            assert_eq!(find(&record, &host), []);
        }
    }

    #[test]
    fn kernel_arguments_are_looked_for_in_this_boot() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        let record = Record::new("x", serde_json::json!({"kernelArguments": ["a=1", "b c"]}));
        assert_eq!(find(&record, &host), []);
        host.put(Path::new("/proc/cmdline"), &Entry::file("quiet a=1 b c\n", 0o444)).unwrap();
        assert_eq!(find(&record, &host), []);
        host.put(Path::new("/proc/cmdline"), &Entry::file("quiet a=11 b c\n", 0o444)).unwrap();
        assert_eq!(find(&record, &host)[0].what, "lacks a=1; restart the machine");
    }
}
