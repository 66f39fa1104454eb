//! Installed versions on a node.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{CONFIGURATION, Manifest, PLACE, PayloadError, manifest, on, usage};
use crate::daemon::host::{Host, make_directories};

/// Where versions are, as a path of the node.
const DIRECTORY: &str = "/opt/sandboxed-containers";
/// Suffix of a version that is being written.
const PARTIAL: &str = ".partial";
/// Drop-ins for the shim's configuration are the administrator's and outlive
/// every version.
const ADMINISTRATORS: &str = "/etc/kata-containers/config.d";

/// What became of versions that are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Removed.
    pub gone: Vec<String>,
    /// Still used by some process.
    pub used: Vec<String>,
}

/// All versions of one node.
#[derive(Clone, Debug)]
pub struct Store<'a> {
    host: &'a Host,
}

impl<'a> Store<'a> {
    /// The versions below `host`.
    pub fn new(host: &'a Host) -> Self {
        Self { host }
    }

    /// The link to the version new pods use, as a path of the node.
    pub fn current(&self) -> PathBuf {
        Path::new(DIRECTORY).join("current")
    }

    /// Directory of a version, as we see it.
    pub fn directory(&self, version: &str) -> PathBuf {
        self.host.real(Path::new(DIRECTORY).join(version))
    }

    /// Installs the payload in `source` beside the others, unless it is there
    /// already and whole. Nothing uses it before it is linked. A call that was
    /// killed is repeated from the start.
    ///
    /// # Errors
    /// [`PayloadError`]; what was written of the version is then removed again.
    pub fn install(&self, source: &Path) -> Result<Manifest, PayloadError> {
        let manifest = Manifest::load(source)?;
        let to = self.directory(&manifest.version);
        if self.verify(&manifest.version).is_ok() {
            return Ok(manifest);
        }
        let partial = to.with_file_name(format!("{}{PARTIAL}", manifest.version));
        let made = self.write(source, &manifest, &partial, &to);
        if made.is_err() {
            let _ = fs::remove_dir_all(&partial); // tried again from the start anyway
        }
        made.map(|()| manifest)
    }

    fn write(&self, source: &Path, manifest: &Manifest, partial: &Path, to: &Path) -> Result<(), PayloadError> {
        remove(partial)?;
        make_directories(partial).map_err(|error| PayloadError::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        })?;
        let mut installed = manifest.clone();
        for item in &mut installed.files {
            crate::daemon::step();
            let (from, file) = (source.join(&item.name), partial.join(&item.name));
            let dir = file.parent().unwrap_or(partial);
            fs::create_dir_all(dir).map_err(on("create", dir))?;
            fs::copy(&from, &file).map_err(on("copy", &from))?;
            if manifest::digest(&file)? != item.sha256 {
                return Err(PayloadError::Differs { path: from });
            }
            if item.placed {
                let text = fs::read_to_string(&file).map_err(on("read", &file))?;
                let text = text.replace(PLACE, &to.to_string_lossy());
                fs::write(&file, &text).map_err(on("write", &file))?;
                item.sha256 = hex::encode(Sha256::digest(&text));
            }
            fs::set_permissions(&file, fs::Permissions::from_mode(item.mode))
                .map_err(on("set permissions of", &file))?;
            File::open(&file).and_then(|file| file.sync_all()).map_err(on("sync", &file))?;
        }
        let drop_ins = Path::new(CONFIGURATION).with_file_name("config.d");
        let link = partial.join(drop_ins);
        symlink(self.host.real(ADMINISTRATORS), &link).map_err(on("link", &link))?;
        installed.store(partial)?;
        crate::daemon::step();
        remove(to)?; // it was found damaged
        fs::rename(partial, to).map_err(on("rename", partial))
    }

    /// Compares an installed version with its manifest.
    ///
    /// # Errors
    /// [`PayloadError`], naming the first file that differs.
    pub fn verify(&self, version: &str) -> Result<(), PayloadError> {
        let dir = self.directory(version);
        for item in Manifest::load(&dir)?.files {
            let path = dir.join(&item.name);
            let mode = fs::metadata(&path).map_err(on("look at", &path))?.permissions().mode() & 0o7777;
            if mode != item.mode || manifest::digest(&path)? != item.sha256 {
                return Err(PayloadError::Differs { path });
            }
        }
        Ok(())
    }

    /// Removes versions that no process uses, `keep` excepted.
    ///
    /// # Errors
    /// [`PayloadError`]; repeating it goes on.
    pub fn collect(&self, keep: Option<&str>) -> Result<Collected, PayloadError> {
        let dir = self.host.real(DIRECTORY);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Collected::default()),
            other => other.map_err(on("list", &dir))?,
        };
        let versions = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = versions.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let candidates: Vec<String> = names.filter(|name| Some(name.as_str()) != keep).collect();
        if candidates.is_empty() {
            return Ok(Collected::default());
        }
        let in_use = usage::used(&dir, &candidates);
        let (used, gone): (Vec<String>, _) = candidates.into_iter().partition(|name| in_use.contains(name));
        for name in &gone {
            remove(&dir.join(name))?;
        }
        Ok(Collected { gone, used })
    }
}

fn remove(dir: &Path) -> Result<(), PayloadError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(on("remove", dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::payload::{Part, SHIM, pack};

    /// A payload whose content is `mark`; its shim is a program that runs.
    pub(crate) fn sample(dir: &Path, name: &str, mark: &str) -> PathBuf {
        let parts = dir.join(format!("{name}.parts"));
        fs::create_dir_all(&parts).unwrap();
        fs::copy("/bin/sleep", parts.join("shim")).unwrap();
        fs::write(parts.join("conf"), format!("# {mark}\nkernel = \"{PLACE}/vmlinux\"\n")).unwrap();
        fs::write(parts.join("kernel"), mark).unwrap();
        let part = |from: &str, name: &str, executable: bool, placed: bool| Part {
            from: parts.join(from),
            name: name.into(),
            executable,
            placed,
        };
        let out = dir.join(name);
        pack(
            &out,
            &[
                part("shim", SHIM, true, false),
                part("conf", CONFIGURATION, false, true),
                part("kernel", "vmlinux", false, false),
            ],
        )
        .unwrap();
        out
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{super::SHIM, *};

    fn installed(host: &Host, dir: &Path, mark: &str) -> String {
        Store::new(host).install(&testing::sample(dir, mark, mark)).unwrap().version
    }

    #[test]
    fn a_version_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path().join("node"));
        let store = Store::new(&host);
        let source = testing::sample(dir.path(), "p", "1");
        let version = store.install(&source).unwrap().version;
        store.verify(&version).unwrap();
        let at = store.directory(&version);
        let text = fs::read_to_string(at.join(CONFIGURATION)).unwrap();
        assert!(text.contains(&format!("kernel = \"{}/vmlinux\"", at.display())), "{text}");
        assert_eq!(fs::read_link(at.join("config.d")).unwrap(), host.real(ADMINISTRATORS));
        // Damage is noticed and repaired by installing again.
        fs::write(at.join("vmlinux"), "bad").unwrap();
        assert!(matches!(store.verify(&version), Err(PayloadError::Differs { path }) if path.ends_with("vmlinux")));
        store.install(&source).unwrap();
        store.verify(&version).unwrap();
        // A damaged source is refused and leaves nothing.
        let other = testing::sample(dir.path(), "q", "2");
        fs::write(other.join("vmlinux"), "bad").unwrap();
        assert!(matches!(store.install(&other), Err(PayloadError::Differs { .. })));
        assert_eq!(fs::read_dir(at.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_version_stays_while_a_sandbox_runs_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path().join("node"));
        let store = Store::new(&host);
        let (old, new) = (installed(&host, dir.path(), "1"), installed(&host, dir.path(), "2"));
        let current = host.real(store.current());
        symlink(&old, &current).unwrap();
        let mut pod = Command::new(current.join(SHIM)).arg("1000").spawn().unwrap();
        host.put(&store.current(), &crate::daemon::host::Entry::Link { target: (&new).into() }).unwrap();
        let kept = Collected { gone: Vec::new(), used: vec![old.clone()] };
        assert_eq!(store.collect(Some(&new)).unwrap(), kept);
        store.verify(&old).unwrap();
        pod.kill().unwrap();
        pod.wait().unwrap();
        assert_eq!(store.collect(Some(&new)).unwrap(), Collected { gone: vec![old], used: Vec::new() });
        store.verify(&new).unwrap();
        assert_eq!(store.collect(None).unwrap().gone, [new]);
    }
}
