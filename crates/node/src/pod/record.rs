//! The intent to run a pod, on disk before anything is made and until everything
//! is gone.
//!
//! ```text
//! <state>/pods/<uid>.json   manifest, handler
//! <state>/pods/<uid>.lock   held by the process that looks after the pod
//! <state>/pods/<uid>/       volumes
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::fcntl::{Flock, FlockArg};
use osc_runtime::deadline::Deadline;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Manifest, ManifestError,
    error::{PodError, io},
    model::Pod,
    resources::{Qos, qos},
};
use crate::engine::Paths;

/// Version of the file format.
const VERSION: u32 = 1;
/// Pace of asking for a lock; the kernel has no event for it.
const POLL: Duration = Duration::from_millis(50);

/// One pod as it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Identity of the pod.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Runtime handler.
    pub handler: String,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// The manifest as given.
    pub manifest: Value,
    /// The class of a pod that an API server asked for; absent for those of files
    /// and command lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Qos>,
}

impl Record {
    /// A record of `manifest`, to be run by `handler`.
    pub fn new(manifest: &Manifest, handler: &str) -> Self {
        Self {
            version: VERSION,
            uid: manifest.pod.uid.clone(),
            namespace: manifest.pod.namespace.clone(),
            name: manifest.pod.name.clone(),
            handler: handler.to_owned(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            manifest: manifest.given.clone(),
            class: None,
        }
    }

    /// A record of a pod an API server asked for.
    pub fn of_cluster(manifest: &Manifest, handler: &str) -> Self {
        Self { class: Some(qos(&manifest.pod)), ..Self::new(manifest, handler) }
    }

    /// What it describes.
    ///
    /// # Errors
    /// When it cannot be understood any more.
    pub fn pod(&self) -> Result<Pod, ManifestError> {
        let manifest = match self.class {
            None => Manifest::new(&self.full_name(), self.manifest.clone()),
            Some(_) => Manifest::of_cluster(self.manifest.clone()),
        };
        manifest.map(|manifest| manifest.pod)
    }

    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Names of the containers, init containers left out.
    pub fn container_names(&self) -> Vec<String> {
        let containers = self.manifest["spec"]["containers"].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
    }
}

/// All records of one root.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store of one engine.
    pub fn new(paths: &Paths) -> Self {
        Self { dir: paths.pods() }
    }

    /// Where the volumes of a pod are.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.dir.join(uid)
    }

    fn file(&self, uid: &str) -> PathBuf {
        self.dir.join(format!("{uid}.json"))
    }

    fn lock_file(&self, uid: &str) -> PathBuf {
        self.dir.join(format!("{uid}.lock"))
    }

    /// Stores a new record, complete or not at all.
    ///
    /// # Errors
    /// [`PodError::Exists`] when there is one of that identity.
    pub fn insert(&self, record: &Record) -> Result<(), PodError> {
        let file = self.file(&record.uid);
        let draft = self.dir.join(format!(".{}.{}", record.uid, std::process::id()));
        let written = write_synced(&draft, record).and_then(|()| fs::hard_link(&draft, &file));
        let _ = fs::remove_file(&draft); // a draft is no record, listing skips it
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let differs = self.get(&record.uid)?.manifest != record.manifest;
                Err(PodError::Exists { name: record.full_name(), differs })
            }
            result => result.map_err(io("write", file)),
        }
    }

    /// The record of that identity.
    ///
    /// # Errors
    /// [`PodError::NotFound`].
    pub fn get(&self, uid: &str) -> Result<Record, PodError> {
        read(&self.file(uid)).ok_or_else(|| PodError::NotFound(uid.to_owned()))
    }

    /// All records, oldest first.
    pub fn list(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut records: Vec<Record> = files.filter_map(|path| read(&path)).collect();
        records.sort_by_key(|record| (record.created, record.full_name()));
        records
    }

    /// The pod meant by `name`: `namespace/name`, `name`, identity, or the
    /// beginning of its sandbox's id as told by `sandboxes` (identity, sandbox).
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn find(&self, name: &str, sandboxes: &[(String, String)]) -> Result<Record, PodError> {
        let records = self.list();
        let by_name = |record: &&Record| record.full_name() == name || record.name == name || record.uid == name;
        let by_sandbox = |record: &&Record| {
            name.len() >= 4 && sandboxes.iter().any(|(uid, id)| *uid == record.uid && id.starts_with(name))
        };
        let mut found: Vec<&Record> = records.iter().filter(by_name).collect();
        if found.is_empty() {
            found = records.iter().filter(by_sandbox).collect();
        }
        match found.as_slice() {
            [] => Err(PodError::NotFound(name.to_owned())),
            [one] => Ok((*one).clone()),
            many => Err(PodError::Ambiguous {
                name: name.to_owned(),
                candidates: many.iter().map(|record| record.full_name()).collect(),
            }),
        }
    }

    /// Removes a record and its lock: the pod is gone. Idempotent.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        for file in [self.file(uid), self.lock_file(uid)] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes charge of a pod if nobody else has.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_hold(&self, uid: &str) -> Result<Option<Hold>, PodError> {
        let path = self.lock_file(uid);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io("open", &path))?;
        let Ok(mut lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
        lock.set_len(0).map_err(io("write", &path))?;
        write!(lock, "{}", std::process::id()).map_err(io("write", &path))?;
        Ok(Some(Hold { _lock: lock }))
    }

    /// Takes charge of a pod, waiting for whoever has it.
    ///
    /// # Errors
    /// [`PodError::Held`] at the deadline.
    pub async fn hold(&self, record: &Record, deadline: Deadline) -> Result<Hold, PodError> {
        loop {
            if let Some(hold) = self.try_hold(&record.uid)? {
                return Ok(hold);
            }
            if deadline.passed() {
                let holder = self.holder(&record.uid).map_or_else(|| "unknown".into(), |pid| pid.to_string());
                return Err(PodError::Held { pod: record.full_name(), holder, waited: deadline.total() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Process id of whoever holds the pod; only meaningful while it is held.
    pub fn holder(&self, uid: &str) -> Option<i32> {
        fs::read_to_string(self.lock_file(uid)).ok()?.trim().parse().ok()
    }
}

/// The right to change a pod; ends when dropped, or with the process.
#[derive(Debug)]
pub struct Hold {
    _lock: Flock<File>,
}

fn read(path: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.version == VERSION).then_some(record)
}

fn write_synced(path: &Path, record: &Record) -> io::Result<()> {
    let mut file = File::create(path)?;
    serde_json::to_writer(&mut file, record)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use osc_runtime::dirs::Dirs;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().expect("tempdir");
        let paths = Paths::new(Dirs::new(root.path()));
        fs::create_dir_all(paths.pods()).expect("mkdir");
        (root, Store::new(&paths))
    }

    fn record(namespace: &str, name: &str) -> Record {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{containers: [{{name: c, image: i}}]}}"
        );
        Record::new(&Manifest::read("test", &text).expect("good").remove(0), "runc")
    }

    #[test]
    fn a_name_is_taken_once() {
        let (_root, store) = store();
        let first = record("default", "a");
        store.insert(&first).expect("new");
        assert!(matches!(store.insert(&first), Err(PodError::Exists { differs: false, .. })));
        let mut other = first.clone();
        other.manifest["spec"]["hostname"] = "x".into();
        assert!(matches!(store.insert(&other), Err(PodError::Exists { differs: true, .. })));
        assert_eq!(store.list().len(), 1);
        store.remove(&first.uid).expect("remove");
        store.remove(&first.uid).expect("again");
        store.insert(&other).expect("free again");
    }

    #[test]
    fn pods_are_found_by_every_name_they_have() {
        let (_root, store) = store();
        let (a, b, c) = (record("x", "a"), record("x", "b"), record("y", "b"));
        for record in [&a, &b, &c] {
            store.insert(record).expect("new");
        }
        let sandboxes = [(a.uid.clone(), "abcdef".to_owned())];
        for (name, want) in [
            ("a", Some(&a.uid)),
            ("x/a", Some(&a.uid)),
            ("y/b", Some(&c.uid)),
            (b.uid.as_str(), Some(&b.uid)),
            ("abcd", Some(&a.uid)),
            ("abc", None),
            ("b", None),
            ("z", None),
        ] {
            assert_eq!(store.find(name, &sandboxes).ok().map(|r| r.uid).as_ref(), want, "{name}");
        }
    }

    #[test]
    fn only_one_looks_after_a_pod() {
        let (_root, store) = store();
        let held = store.try_hold("u").expect("lock file");
        assert!(held.is_some() && store.try_hold("u").expect("lock file").is_none());
        assert_eq!(store.holder("u"), Some(std::process::id().cast_signed()));
        drop(held);
        assert!(store.try_hold("u").expect("lock file").is_some());
    }
}
