//! Entries of the node's file system, below a root directory, changed atomically.
//!
//! An entry is read, compared and written as a whole. A process that is killed at
//! any point leaves either the old entry or the new one, and perhaps a temporary
//! file whose name [`Host::tidy`] knows.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Largest file that is read: above what a configuration may hold.
const MAX_FILE: u64 = 32 << 20;

/// What is at one path.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Its content.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        bytes: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: PathBuf,
    },
}

impl std::fmt::Debug for Entry {
    /// Contents may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::File { bytes, mode, uid, gid } => {
                write!(f, "file of {} bytes, mode {mode:04o}, {uid}:{gid}", bytes.len())
            }
            Self::Link { target } => write!(f, "link to {}", target.display()),
        }
    }
}

/// What an entry should be, without its content: enough to see a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Print {
    /// Nothing there.
    Absent,
    /// A regular file.
    File {
        /// Hexadecimal digest of its content.
        sha256: String,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: PathBuf,
    },
}

impl Entry {
    /// A file of root's.
    pub fn file(text: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self::File { bytes: text.into(), mode, uid: 0, gid: 0 }
    }

    /// What is compared later.
    pub fn print(&self) -> Print {
        match self {
            Self::Absent => Print::Absent,
            Self::File { bytes, mode, .. } => Print::File { sha256: hex::encode(Sha256::digest(bytes)), mode: *mode },
            Self::Link { target } => Print::Link { target: target.clone() },
        }
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// A failed file operation.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct HostError {
    /// The verb.
    pub action: &'static str,
    /// The object.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

fn on<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> HostError + 'a {
    move |source| HostError { action, path: path.to_owned(), source }
}

/// The file system of one node.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The file system below `root`; `/` on a real node.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a path of the node is for us.
    pub fn real(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// Also when it is neither file nor link, or far too large.
    pub fn read(&self, path: &Path) -> Result<Entry, HostError> {
        let real = self.real(path);
        let meta = match fs::symlink_metadata(&real) {
            Ok(meta) => meta,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Entry::Absent);
            }
            Err(error) => return Err(on("look at", &real)(error)),
        };
        if meta.is_symlink() {
            return Ok(Entry::Link { target: fs::read_link(&real).map_err(on("read", &real))? });
        }
        if !meta.is_file() || meta.len() > MAX_FILE {
            let source = io::Error::new(ErrorKind::InvalidData, "it is no regular file of a sensible size");
            return Err(on("manage", &real)(source));
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&real).map_err(on("open", &real))?;
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(on("read", &real))?;
        Ok(Entry::File { bytes, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() })
    }

    /// Makes `path` what `entry` says, atomically and durably. Parent directories
    /// are made as needed. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`HostError`]; `path` is then what it was.
    pub fn put(&self, path: &Path, entry: &Entry) -> Result<(), HostError> {
        let real = self.real(path);
        super::step();
        if *entry == Entry::Absent {
            return remove(&real);
        }
        let parent = real.parent().unwrap_or(&self.root);
        make_directories(parent)?;
        let new = temporary(&real);
        let made = place(&new, entry).and_then(|()| {
            super::step();
            fs::rename(&new, &real).map_err(on("replace", &real))
        });
        if made.is_err() {
            let _ = fs::remove_file(&new); // it may not be there; the failure itself is reported
        }
        made?;
        sync_directory(parent)
    }

    /// Removes what a killed [`put`](Self::put) may have left beside `path`.
    pub fn tidy(&self, path: &Path) {
        let _ = fs::remove_file(temporary(&self.real(path))); // usually nothing is there
    }

    /// User or group names with their numbers, from `/etc/passwd` or `/etc/group`.
    pub(super) fn accounts(&self, file: &str) -> BTreeMap<String, u32> {
        let text = fs::read_to_string(self.real(file)).unwrap_or_default();
        let entry = |line: &str| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        };
        text.lines().filter_map(entry).collect()
    }
}

fn remove(real: &Path) -> Result<(), HostError> {
    // A directory that cannot be written refuses before it says that nothing is there.
    if matches!(fs::symlink_metadata(real), Err(error) if error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    match fs::remove_file(real) {
        Ok(()) => sync_directory(real.parent().unwrap_or(Path::new("/"))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(on("remove", real)(error)),
    }
}

fn place(new: &Path, entry: &Entry) -> Result<(), HostError> {
    let _ = fs::remove_file(new); // left by a process that was killed
    match entry {
        Entry::Absent => Ok(()),
        Entry::Link { target } => symlink(target, new).map_err(on("link", new)),
        Entry::File { bytes, mode, uid, gid } => {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(on("create", new))?;
            // Before any data: a reader never sees more than it may.
            file.set_permissions(fs::Permissions::from_mode(*mode)).map_err(on("set permissions of", new))?;
            file.write_all(bytes).map_err(on("write", new))?;
            chown(new, Some(*uid), Some(*gid)).map_err(on("change the owner of", new))?;
            // The kernel drops special bits when the owner changes.
            file.set_permissions(fs::Permissions::from_mode(*mode)).map_err(on("set permissions of", new))?;
            file.sync_all().map_err(on("sync", new))
        }
    }
}

/// Temporary name beside a file; short whatever the name of the file is.
fn temporary(real: &Path) -> PathBuf {
    let digest = Sha256::digest(real.as_os_str().as_encoded_bytes());
    real.with_file_name(format!(".mcd-{}", hex::encode(&digest[..8])))
}

/// Makes missing directories with mode 0755, whatever the umask.
pub(crate) fn make_directories(dir: &Path) -> Result<(), HostError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_directories(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(on("set permissions of", dir)),
        // Somebody was faster. A file in its place is nothing to touch.
        Err(_) if dir.is_dir() => Ok(()),
        Err(error) => Err(on("create", dir)(error)),
    }
}

fn sync_directory(dir: &Path) -> Result<(), HostError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(on("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_put() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        let path = Path::new("/etc/deep/er/file");
        for entry in [
            Entry::file("a", 0o640),
            Entry::File { bytes: vec![0, 255], mode: 0o4755, uid: 12, gid: 34 },
            Entry::Link { target: "/dev/null".into() },
            Entry::Absent,
            Entry::Absent,
        ] {
            host.put(path, &entry).unwrap();
            assert_eq!(host.read(path).unwrap(), entry);
            let text = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
        }
        let left = fs::read_dir(host.real("/etc/deep/er")).unwrap().count();
        assert_eq!(left, 0, "no temporary file stays");
        assert_eq!(fs::metadata(host.real("/etc/deep")).unwrap().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(host.read(Path::new("/d")).is_err());
        assert!(host.put(Path::new("/d"), &Entry::file("x", 0o644)).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_file_where_a_directory_should_be_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        let file = Entry::file("x", 0o600);
        host.put(Path::new("/a"), &file).unwrap();
        assert!(host.put(Path::new("/a/b"), &Entry::file("y", 0o644)).is_err());
        assert_eq!(host.read(Path::new("/a")).unwrap(), file, "its permissions included");
    }

    #[test]
    fn accounts_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nbroken\ncore:x:1000:1000::/home/core:\n")
            .unwrap();
        let found = Host::new(dir.path()).accounts("/etc/passwd");
        assert_eq!(found.get("core"), Some(&1000));
        assert_eq!(found.len(), 2);
    }
}
