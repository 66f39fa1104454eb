//! The file by which commands find the process that serves the cluster.
//!
//! The process holds a lock on it for as long as it lives, so that a file left by
//! a killed one is told from that of a running one. The lock, not the file, is the
//! truth; the file is written whole before anybody is told to read it.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// A file of this kind is small; whoever made it larger is not us.
const LARGEST: u64 = 64 << 10;

/// What the serving process says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its process identifier.
    pub pid: i32,
    /// What it is doing on its way up; empty once everything runs.
    pub step: String,
    /// Where the API is.
    pub server: String,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// Sandboxed pods can be run.
    pub sandboxes: bool,
    /// What it is doing to add a node; empty when it adds none.
    #[serde(default)]
    pub joining: String,
    /// Why the last node that was asked for did not join; empty if it did.
    #[serde(default)]
    pub failed: String,
}

impl Instance {
    /// The running instance behind the file at `path`.
    pub fn running(path: &Path) -> Option<Self> {
        let file = File::options().read(true).write(true).open(path).ok()?;
        // Whoever gets the lock was alone.
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_free) => return None,
            Err((file, _)) => file,
        };
        let size = file.metadata().ok()?.len();
        (size <= LARGEST).then(|| serde_json::from_reader(&file).ok()).flatten()
    }

    /// Everything runs.
    pub fn is_ready(&self) -> bool {
        self.step.is_empty() && self.pid != 0
    }
}

/// The right to be the instance.
#[derive(Debug)]
pub struct Claim {
    file: Flock<File>,
    /// How much of the file is written.
    said: usize,
}

impl Claim {
    /// Takes the right; `None` when another process has it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                // The word of whoever was killed is not ours.
                file.set_len(0)?;
                Ok(Some(Self { file, said: 0 }))
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Says how things are.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn say(&mut self, instance: &Instance) -> io::Result<()> {
        let mut text = serde_json::to_vec(instance)?;
        // Blanks cover what was said before: at no time is there half of anything.
        text.resize(self.said.max(text.len()), b' ');
        self.said = text.len();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_process_is_the_instance_and_its_word_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/cluster.json");
        assert_eq!(Instance::running(&path), None);
        let mut claim = Claim::take(&path).unwrap().unwrap();
        assert!(Claim::take(&path).unwrap().is_none());
        assert_eq!(Instance::running(&path), None, "nothing has been said yet");
        let long = Instance { pid: 7, step: "a long way to go".into(), ..Default::default() };
        claim.say(&long).unwrap();
        assert!(!Instance::running(&path).unwrap().is_ready());
        let ready = Instance { pid: 7, ..Default::default() };
        claim.say(&ready).unwrap();
        assert_eq!(Instance::running(&path), Some(ready));
        drop(claim);
        assert_eq!(Instance::running(&path), None);
        let _next = Claim::take(&path).unwrap().unwrap();
        assert_eq!(Instance::running(&path), None, "the old word is not the next one's");
    }
}
