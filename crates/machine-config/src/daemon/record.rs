//! What the node runs, as the daemon wrote it down: `currentconfig`. It outranks
//! the annotation, and replacing it is the moment an update counts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host::{Entry, Host, HostError, Print};
use crate::names;

/// Everything of the daemon's that outlives it.
pub const DIRECTORY: &str = "/etc/machine-config-daemon";
const FILE: &str = "/etc/machine-config-daemon/currentconfig";
const FORMAT: u32 = 1;

/// The configuration a node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    /// Name of the MachineConfig.
    pub name: String,
    /// Its `spec`.
    pub spec: Value,
    /// Version of the installed payload.
    pub payload: Option<String>,
    /// What is managed, and what it should be.
    pub owned: BTreeMap<PathBuf, Print>,
}

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("the record of this node is out of reach")]
    Host(#[from] HostError),
    /// It is there but means nothing.
    #[error("{} is damaged: restore it, or remove it and create {}", FILE, crate::reconcile::FORCE_FILE)]
    Damaged {
        /// Why.
        source: serde_json::Error,
    },
    /// It was written by a newer release.
    #[error("{FILE} has format {0}, this daemon knows {FORMAT}: run the newer daemon again")]
    Newer(u32),
}

impl Record {
    /// A record of a configuration.
    pub fn new(name: &str, spec: Value) -> Self {
        Self { format: FORMAT, name: name.into(), spec, payload: None, owned: BTreeMap::new() }
    }

    /// A node nobody has configured yet.
    pub fn baseline() -> Self {
        Self::new(names::BASELINE, Value::Null)
    }

    /// Reads the record of a node; none on first contact.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn load(host: &Host) -> Result<Option<Self>, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let Entry::File { bytes, .. } = host.read(Path::new(FILE))? else { return Ok(None) };
        let damaged = |source| RecordError::Damaged { source };
        let format = serde_json::from_slice::<Versioned>(&bytes).map_err(damaged)?.format;
        if format > FORMAT {
            return Err(RecordError::Newer(format));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// [`HostError`]; the old record then still stands.
    pub fn store(&self, host: &Host) -> Result<(), HostError> {
        let text = serde_json::to_vec(self).unwrap_or_default(); // strings as keys only: it cannot fail
        host.put(Path::new(FILE), &Entry::file(text, 0o600))
    }
}

/// Where the original of a file is kept that the operating system shipped.
pub(super) fn original(path: &Path) -> PathBuf {
    beside("orig", path, "mcdorig")
}

/// Stamp of a file that did not exist before it was managed.
pub(super) fn stamp(path: &Path) -> PathBuf {
    beside("noorig", path, "mcdnoorig")
}

fn beside(kind: &str, path: &Path, suffix: &str) -> PathBuf {
    let relative = path.strip_prefix("/").unwrap_or(path).display();
    Path::new(DIRECTORY).join(kind).join(format!("{relative}.{suffix}"))
}

/// Whether a file of the node exists, for facts that are looked up.
pub(super) fn exists(host: &Host, path: &str) -> bool {
    fs::symlink_metadata(host.real(path)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_damage_is_told_from_absence() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        assert_eq!(Record::load(&host).unwrap(), None);
        let mut record = Record::new("rendered-worker-1", serde_json::json!({"fips": false}));
        record.owned.insert("/etc/x".into(), Print::Link { target: "/y".into() });
        record.store(&host).unwrap();
        assert_eq!(Record::load(&host).unwrap(), Some(record));
        fs::write(host.real(FILE), "{").unwrap();
        assert!(matches!(Record::load(&host), Err(RecordError::Damaged { .. })));
        fs::write(host.real(FILE), r#"{"format": 99}"#).unwrap();
        assert!(matches!(Record::load(&host), Err(RecordError::Newer(99))));
    }

    #[test]
    fn originals_are_kept_under_the_path_of_the_file() {
        assert_eq!(original(Path::new("/etc/a")), Path::new("/etc/machine-config-daemon/orig/etc/a.mcdorig"));
        assert_eq!(stamp(Path::new("/etc/a")), Path::new("/etc/machine-config-daemon/noorig/etc/a.mcdnoorig"));
    }
}
