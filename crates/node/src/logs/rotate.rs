//! Logs that grow are put aside: `0.log` becomes `0.log.1`, the next `0.log.2`, and
//! only the newest few are kept, so that a chatty container cannot fill the disk.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Size at which a log is put aside, and how many of those are kept, as a kubelet
/// does it.
const LIMIT: u64 = 10 << 20;
const KEPT: usize = 4;

/// Puts a log aside if it has grown too large. The engine writes on to the old
/// file until it is told to reopen the log, so nothing is lost. Whether there is
/// something to reopen.
///
/// # Errors
/// When the log cannot be renamed.
pub fn rotate(log: &Path) -> io::Result<bool> {
    match fs::metadata(log) {
        Ok(found) if found.len() >= LIMIT => {}
        _ => return Ok(false),
    }
    let aside = aside(log);
    fs::rename(log, numbered(log, aside.last().map_or(1, |last| last + 1)))?;
    for number in aside.iter().rev().skip(KEPT - 1) {
        let _ = fs::remove_file(numbered(log, *number)); // whoever is first
    }
    Ok(true)
}

/// Numbers of the files put aside, oldest first.
pub(super) fn aside(log: &Path) -> Vec<u64> {
    let prefix = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let entries = fs::read_dir(log.parent().unwrap_or(Path::new("/"))).into_iter().flatten().flatten();
    let number = |name: String| name.strip_prefix(&prefix)?.parse().ok();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| number(entry.file_name().into_string().ok()?)).collect();
    numbers.sort_unstable();
    numbers
}

pub(super) fn numbered(log: &Path, number: u64) -> PathBuf {
    let mut name = log.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{number}"));
    log.with_file_name(name)
}

/// Place of a reader in the sequence of files.
#[derive(Debug)]
pub(super) struct Place {
    /// The number the current file has, or will have once it is put aside.
    number: u64,
    inode: u64,
}

impl Place {
    /// The place of a reader that has just opened `file` as `number`.
    pub(super) fn new(file: &fs::Metadata, number: u64) -> Self {
        Self { number, inode: file.ino() }
    }

    /// The file to read after this one, with its number, once this one has been
    /// put aside.
    pub(super) fn next(&self, log: &Path) -> Option<(PathBuf, u64)> {
        if fs::metadata(log).is_ok_and(|current| current.ino() == self.inode) {
            return None;
        }
        match aside(log).into_iter().find(|&number| number > self.number) {
            Some(number) => {
                if number > self.number + 1 {
                    tracing::warn!(log = %log.display(), "output was written faster than it was read, some is lost");
                }
                Some((numbered(log, number), number))
            }
            None => log.exists().then(|| (log.to_owned(), self.number + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("0.log");
        assert!(!rotate(&log).expect("nothing there"));
        fs::write(&log, "small").expect("write");
        assert!(!rotate(&log).expect("too small"));
        for _ in 0..6 {
            fs::File::create(&log).and_then(|file| file.set_len(LIMIT)).expect("grow");
            assert!(rotate(&log).expect("rotate"));
        }
        assert_eq!(aside(&log), [3, 4, 5, 6]);
    }
}
