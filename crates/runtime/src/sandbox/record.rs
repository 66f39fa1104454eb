//! What is written down about a sandbox before anything is made for it, so that
//! [`cleanup`](super::cleanup) can remove it all after any crash.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::identity::Identity;
use crate::{dirs::Dirs, id::SandboxId};

/// Format version of the state file.
const VERSION: u32 = 1;
/// Name of the state file in the sandbox directory.
const FILE: &str = "state.json";

/// Everything of a sandbox that outlives a crash of its shim and cannot be
/// derived from its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The sandbox.
    pub id: SandboxId,
    /// How far it got.
    pub stage: Stage,
    /// Bundle of the container it was made for.
    pub bundle: PathBuf,
    /// Pod namespace and name, when an orchestrator gave them.
    pub pod: Option<(String, String)>,
    /// The process that owns the sandbox.
    pub shim: Option<Identity>,
    /// The virtual machine monitor.
    pub hypervisor: Option<Identity>,
    /// The file server.
    pub virtiofsd: Option<Identity>,
    /// Network namespace of the pod.
    pub netns: Option<PathBuf>,
    /// Control groups made for the sandbox, relative to each hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// Groups above them that nobody else made, deepest first; they go when they
    /// are empty.
    pub cgroup_parents: Vec<PathBuf>,
    /// Where the agent is reached.
    pub agent_url: Option<String>,
    /// Whether the machine went on from a template instead of booting.
    #[serde(default)]
    pub restored: bool,
}

/// Stages of a sandbox that the state file tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Being made.
    Creating,
    /// Its agent has answered.
    Running,
    /// Being taken apart.
    Stopping,
}

impl Record {
    /// A record of a sandbox about to be made.
    pub fn new(id: SandboxId, bundle: PathBuf) -> Self {
        Self {
            version: VERSION,
            id,
            stage: Stage::Creating,
            bundle,
            pod: None,
            shim: None,
            hypervisor: None,
            virtiofsd: None,
            netns: None,
            cgroups: Vec::new(),
            cgroup_parents: Vec::new(),
            agent_url: None,
            restored: false,
        }
    }

    /// Makes the sandbox directory (mode 0700) and writes the record, replacing
    /// the file whole.
    ///
    /// # Errors
    /// I/O errors of the run-time file system.
    pub fn save(&self, dirs: &Dirs) -> io::Result<()> {
        let dir = dirs.sandbox(&self.id);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let text = serde_json::to_vec_pretty(self)?;
        let temporary = dir.join(".state.json.new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        // Not synced: a host that crashes takes everything named in here with it.
        fs::rename(temporary, dir.join(FILE))
    }

    /// Reads the record of `id`; `None` when there is none or it cannot be
    /// understood, in which case names alone have to do.
    pub fn load(dirs: &Dirs, id: &SandboxId) -> Option<Self> {
        Self::read(&dirs.sandbox(id).join(FILE)).filter(|record| record.id == *id)
    }

    /// The records of all sandboxes there are.
    pub fn all(dirs: &Dirs) -> Vec<Self> {
        let entries = fs::read_dir(dirs.sandboxes()).into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::read(&entry.path().join(FILE))).collect()
    }

    fn read(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        (record.version == VERSION).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_whole_and_read_back() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path());
        let id = SandboxId::new("s1").unwrap();
        let mut record = Record::new(id.clone(), "/bundle".into());
        record.save(&dirs).unwrap();
        assert_eq!(Record::load(&dirs, &id).as_ref(), Some(&record));
        record.stage = Stage::Running;
        record.hypervisor = Some(Identity::of(std::process::id()).unwrap());
        record.save(&dirs).unwrap();
        assert_eq!(Record::load(&dirs, &id).as_ref(), Some(&record));
        let names: Vec<_> = fs::read_dir(dirs.sandbox(&id)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
    }

    #[test]
    fn a_damaged_or_foreign_record_is_no_record() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path());
        let id = SandboxId::new("s1").unwrap();
        let mut record = Record::new(id.clone(), "/bundle".into());
        record.save(&dirs).unwrap();
        let path = dirs.sandbox(&id).join(FILE);
        let good = fs::read_to_string(&path).unwrap();
        for text in ["", "{", &good.replace("\"version\": 1", "\"version\": 9"), &good.replace("s1", "s2")] {
            fs::write(&path, text).unwrap();
            assert_eq!(Record::load(&dirs, &id), None, "{text}");
        }
        record.stage = Stage::Stopping;
        record.save(&dirs).unwrap();
        assert!(Record::load(&dirs, &id).is_some());
    }
}
