//! Files as they were: enough to notice that one has been replaced.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    path: PathBuf,
    size: u64,
    modified: i64,
}

impl FileIdentity {
    /// The file at `path` as it is now.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), size: metadata.len(), modified: metadata.mtime() })
    }

    /// Whether the file still is this one.
    pub fn current(&self) -> bool {
        Self::of(&self.path).is_ok_and(|now| now == *self)
    }
}

/// Identity of this boot of the host.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn host_boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
