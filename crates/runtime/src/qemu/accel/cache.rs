//! The remembered trial: one small file, replaced whole.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Finding;
use crate::file::{FileIdentity, host_boot};

const VERSION: u32 = 1;

/// What a finding depends on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    qemu: FileIdentity,
    kernel: FileIdentity,
    host_boot: String,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    version: u32,
    key: Key,
    finding: Finding,
}

impl Key {
    /// The key of the present state, or what is missing.
    pub fn new(qemu: &Path, kernel: &Path) -> Result<Self, String> {
        let identity = |path: &Path| FileIdentity::of(path).map_err(|error| format!("{}: {error}", path.display()));
        let host_boot = host_boot().map_err(|error| format!("identity of this boot of the host: {error}"))?;
        Ok(Self { qemu: identity(qemu)?, kernel: identity(kernel)?, host_boot })
    }
}

/// The finding for `key`. Anything unreadable counts as nothing remembered.
pub(super) fn read(file: &Path, key: &Key) -> Option<Finding> {
    let remembered: Remembered = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (remembered.version == VERSION && remembered.key == *key).then_some(remembered.finding)
}

/// Remembers a finding.
pub(super) fn write(file: &Path, key: &Key, finding: &Finding) -> io::Result<()> {
    #[derive(Serialize)]
    struct Remember<'a> {
        version: u32,
        key: &'a Key,
        finding: &'a Finding,
    }
    let text = serde_json::to_vec_pretty(&Remember { version: VERSION, key, finding })?;
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

/// Keeps other processes from trying at the same time. Without the lock, when
/// its directory cannot be made, they merely do the same work twice.
pub(super) async fn lock(file: &Path) -> Option<Flock<File>> {
    let path = file.with_extension("lock");
    let work = move || {
        fs::create_dir_all(path.parent()?).ok()?;
        let file = File::options().create(true).truncate(false).write(true).open(path).ok()?;
        Flock::lock(file, FlockArg::LockExclusive).ok()
    };
    // Holders end: a trial has a deadline, and the kernel releases the locks of the dead.
    tokio::task::spawn_blocking(work).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_remembered_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let [qemu, kernel, file] = ["qemu", "kernel", "accelerator.json"].map(|name| dir.path().join(name));
        fs::write(&qemu, "q").unwrap();
        assert!(Key::new(&qemu, &kernel).unwrap_err().contains("kernel"));
        fs::write(&kernel, "k").unwrap();
        let key = Key::new(&qemu, &kernel).unwrap();
        let finding = Finding { usable: false, reason: "r".into() };
        assert_eq!(read(&file, &key), None);
        write(&file, &key, &finding).unwrap();
        assert_eq!(read(&file, &key), Some(finding));
        fs::write(&kernel, "kernel").unwrap();
        assert_eq!(read(&file, &Key::new(&qemu, &kernel).unwrap()), None);
        fs::write(&file, "{").unwrap();
        assert_eq!(read(&file, &key), None);
    }

    #[tokio::test]
    async fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/accelerator.json");
        let held = lock(&file).await.unwrap();
        let other = File::open(file.with_extension("lock")).unwrap();
        let (other, _) = Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap_err();
        drop(held);
        Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap();
    }
}
