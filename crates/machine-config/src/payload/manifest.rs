//! What a payload consists of, with digests; and how one is packed.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CONFIGURATION, PayloadError, SHIM, on};

/// Name of the manifest in the directory it describes.
const FILE: &str = "manifest.json";
const FORMAT: u32 = 1;
/// A manifest is small; anything else is damage.
const MAX_MANIFEST: u64 = 1 << 20;

/// All files of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// Names the version, and its directory.
    pub version: String,
    /// The files.
    pub files: Vec<Item>,
}

/// One file of a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Path inside the payload.
    pub name: String,
    /// Hexadecimal digest of its content as packed.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
    /// Whether [`PLACE`](super::PLACE) in it is replaced when it is installed.
    #[serde(default)]
    pub placed: bool,
}

/// A file to pack.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where it is.
    pub from: PathBuf,
    /// Path inside the payload.
    pub name: String,
    /// Whether it is executable.
    pub executable: bool,
    /// See [`Item::placed`].
    pub placed: bool,
}

impl Manifest {
    /// Reads and checks the manifest of a directory.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn load(dir: &Path) -> Result<Self, PayloadError> {
        let path = dir.join(FILE);
        let mut text = Vec::new();
        let file = File::open(&path).map_err(on("open", &path))?;
        file.take(MAX_MANIFEST).read_to_end(&mut text).map_err(on("read", &path))?;
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|source| PayloadError::Manifest { path: path.clone(), source })?;
        match manifest.problem() {
            None => Ok(manifest),
            Some(problem) => Err(PayloadError::Unusable { path, problem }),
        }
    }

    pub(super) fn store(&self, dir: &Path) -> Result<(), PayloadError> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).unwrap_or_default(); // plain structures cannot fail
        fs::write(&path, text).map_err(on("write", &path))
    }

    fn problem(&self) -> Option<String> {
        let plain =
            |name: &str| !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        let mut version = self.version.chars();
        let good = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        if self.format != FORMAT {
            return Some(format!("format {} is unknown, this release knows {FORMAT}", self.format));
        }
        if !version.next().is_some_and(|c| c.is_ascii_alphanumeric()) || !version.all(good) || self.version == "current"
        {
            return Some(format!("`{}` cannot name a version", self.version));
        }
        if let Some(bad) = self.files.iter().find(|item| !plain(&item.name) || item.name == FILE || item.mode > 0o777) {
            return Some(format!("`{}` cannot be a file of a payload", bad.name));
        }
        [SHIM, CONFIGURATION]
            .iter()
            .find(|name| !self.files.iter().any(|item| item.name == **name))
            .map(|name| format!("`{name}` is missing"))
    }

    /// A version that follows from the content alone.
    fn version_of(files: &[Item]) -> String {
        let mut hash = Sha256::new();
        for item in files {
            hash.update(format!("{}\0{}\0{:o}\0{}\n", item.name, item.sha256, item.mode, item.placed));
        }
        format!("{}-{}", env!("CARGO_PKG_VERSION"), hex::encode(&hash.finalize()[..6]))
    }
}

/// Packs files into `out`, replacing what is there. The version follows from the
/// contents: packing the same files again yields the same version.
///
/// # Errors
/// [`PayloadError`].
pub fn pack(out: &Path, parts: &[Part]) -> Result<Manifest, PayloadError> {
    if out.exists() {
        fs::remove_dir_all(out).map_err(on("remove", out))?;
    }
    let mut files = Vec::new();
    for part in parts {
        let to = out.join(&part.name);
        let dir = to.parent().unwrap_or(out);
        fs::create_dir_all(dir).map_err(on("create", dir))?;
        fs::copy(&part.from, &to).map_err(on("copy", &part.from))?;
        let mode = if part.executable { 0o755 } else { 0o644 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).map_err(on("set permissions of", &to))?;
        files.push(Item { name: part.name.clone(), sha256: digest(&to)?, mode, placed: part.placed });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = Manifest { format: FORMAT, version: Manifest::version_of(&files), files };
    if let Some(problem) = manifest.problem() {
        return Err(PayloadError::Unusable { path: out.join(FILE), problem });
    }
    manifest.store(out)?;
    Ok(manifest)
}

/// Hexadecimal digest of a file.
pub(super) fn digest(path: &Path) -> Result<String, PayloadError> {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex::encode(hash.finalize())),
                length => hash.update(&buffer[..length]),
            }
        }
    };
    read().map_err(on("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::store::testing::sample;

    #[test]
    fn a_version_follows_from_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let (one, again, other) =
            (sample(dir.path(), "a", "1"), sample(dir.path(), "b", "1"), sample(dir.path(), "c", "2"));
        let version = |dir: &Path| Manifest::load(dir).unwrap().version;
        assert_eq!(version(&one), version(&again));
        assert_ne!(version(&one), version(&other));
    }

    #[test]
    fn a_manifest_cannot_lead_out_of_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let source = sample(dir.path(), "a", "1");
        let good = Manifest::load(&source).unwrap();
        let changes: [&dyn Fn(&mut Manifest); 9] = [
            &|m: &mut Manifest| m.files[0].name = "../x".into(),
            &|m: &mut Manifest| m.files[0].name = "/x".into(),
            &|m: &mut Manifest| m.files[0].name = String::new(),
            &|m: &mut Manifest| m.files[0].mode = 0o4755,
            &|m: &mut Manifest| m.version = "..".into(),
            &|m: &mut Manifest| m.version = "a/b".into(),
            &|m: &mut Manifest| m.version = "current".into(),
            &|m: &mut Manifest| m.format = 2,
            &|m: &mut Manifest| m.files.clear(),
        ];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad);
            bad.store(&source).unwrap();
            assert!(matches!(Manifest::load(&source), Err(PayloadError::Unusable { .. })), "{bad:?}");
        }
        fs::write(source.join(FILE), "{").unwrap();
        assert!(matches!(Manifest::load(&source), Err(PayloadError::Manifest { .. })));
    }
}
