//! The tree of one sandbox.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    error::{ShareError, incomplete},
    mount::{Exposure, detach_below, expose, make_dir, mount_mirror, mount_private},
    remove::remove_tree,
    source::{FileKind, Source},
};
use crate::{
    config::BindMount,
    dirs::Dirs,
    id::{ContainerId, SandboxId},
};

/// Where the guest finds the host directories every sandbox sees.
const SANDBOX_MOUNTS: &str = "sandbox-mounts";
/// Where the guest keeps its copies of watched volumes.
pub(super) const WATCHABLE: &str = "watchable";

/// The tree one sandbox shares with its guest. Holds no resource: what exists on the
/// host outlives it until [`Share::remove`] or [`Share::cleanup`].
#[derive(Clone, Debug)]
pub struct Share {
    id: SandboxId,
    /// Canonical, so that it can be compared with the kernel's list of mounts.
    base: PathBuf,
}

impl Share {
    /// Makes the tree of sandbox `id` with `bind_mounts` in it. What an earlier sandbox of
    /// this id left is removed first. On error nothing is left. Blocking.
    ///
    /// # Errors
    /// Directories or mounts that cannot be made.
    pub fn create(dirs: &Dirs, id: &SandboxId, bind_mounts: &[BindMount]) -> Result<Self, ShareError> {
        let base = dirs.share(id);
        let parent = base.parent().unwrap_or(&base);
        fs::create_dir_all(parent).map_err(ShareError::io("create", parent))?;
        let parent = fs::canonicalize(parent).map_err(ShareError::io("resolve", parent))?;
        let share = Self { id: id.clone(), base: parent.join(id) };
        share.remove()?;
        match share.build(bind_mounts) {
            Ok(()) => Ok(share),
            Err(error) => {
                if let Err(left) = share.remove() {
                    tracing::warn!(sandbox.id = %share.id, error = %left, "shared tree is left behind");
                }
                Err(error)
            }
        }
    }

    /// Removes the tree of sandbox `id`, whatever state it is in. Blocking, idempotent.
    ///
    /// # Errors
    /// Every step that failed; all are tried.
    pub fn cleanup(dirs: &Dirs, id: &SandboxId) -> Result<(), ShareError> {
        let base = dirs.share(id);
        let Some(parent) = base.parent() else { return Ok(()) };
        match fs::canonicalize(parent) {
            Ok(parent) => Self { id: id.clone(), base: parent.join(id) }.remove(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ShareError::io("resolve", parent)(error)),
        }
    }

    /// Removes the tree. Blocking, idempotent.
    ///
    /// # Errors
    /// Every step that failed; all are tried.
    pub fn remove(&self) -> Result<(), ShareError> {
        let mut failures = Vec::new();
        failures.extend(detach_below(&self.base).err());
        remove_tree(&self.base, &mut failures);
        incomplete(format_args!("the shared tree of sandbox {}", self.id), failures)
    }

    /// The directory virtiofsd serves.
    pub fn shared_dir(&self) -> PathBuf {
        self.base.join("shared")
    }

    /// The sandbox this tree belongs to.
    pub fn sandbox(&self) -> &SandboxId {
        &self.id
    }

    fn build(&self, bind_mounts: &[BindMount]) -> Result<(), ShareError> {
        make_dir(&self.base)?;
        mount_private(&self.base)?;
        for dir in ["mounts", "shared", "private"] {
            make_dir(&self.base.join(dir))?;
        }
        mount_mirror(&self.mounts(), &self.shared_dir())?;
        // The guest cannot make directories at the top, so what it mounts on is made here.
        make_dir(&self.mounts().join(WATCHABLE))?;
        if bind_mounts.is_empty() {
            return Ok(());
        }
        make_dir(&self.mounts().join(SANDBOX_MOUNTS))?;
        bind_mounts.iter().try_for_each(|mount| self.expose_bind_mount(mount))
    }

    fn expose_bind_mount(&self, mount: &BindMount) -> Result<(), ShareError> {
        let source = Source::open(&mount.path).map_err(ShareError::io("open", &mount.path))?;
        let name = mount.path.file_name().unwrap_or_default();
        let how = Exposure { read_only: mount.read_only, ..Exposure::default() };
        expose(&source, &self.staging(Path::new(name)), &self.mounts().join(SANDBOX_MOUNTS).join(name), how)
    }

    /// The directory whose mounts the guest sees.
    pub(super) fn mounts(&self) -> PathBuf {
        self.base.join("mounts")
    }

    fn staging(&self, name: &Path) -> PathBuf {
        self.base.join("private").join(name)
    }

    /// Mounts `source` as `name` at the top of the tree.
    pub(super) fn expose(&self, source: &Source, name: &str, how: Exposure) -> Result<(), ShareError> {
        expose(source, &self.staging(Path::new(name)), &self.mounts().join(name), how)
    }

    /// Mounts `rootfs` as the root file system of `container`.
    pub(super) fn expose_rootfs(&self, container: &ContainerId, rootfs: &Path) -> Result<(), ShareError> {
        let gone = || ShareError::RootfsGone { container: container.clone(), path: rootfs.to_owned() };
        let source = Source::open(rootfs).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => gone(),
            _ => ShareError::io("open", rootfs)(error),
        })?;
        if source.kind != FileKind::Directory {
            return Err(gone());
        }
        let dir = self.mounts().join(container);
        if fs::symlink_metadata(&dir).is_ok() {
            return Err(ShareError::Exists { sandbox: self.id.clone(), container: container.clone() });
        }
        make_dir(&dir)?;
        // Layers of an image can be mounts of their own.
        let how = Exposure { recursive: true, ..Exposure::default() };
        expose(&source, &self.staging(container.as_ref()), &dir.join("rootfs"), how)
    }

    /// Removes what `container` has in the tree. Blocking, idempotent.
    ///
    /// # Errors
    /// Every step that failed; all are tried.
    pub fn remove_container(&self, container: &ContainerId) -> Result<(), ShareError> {
        let mut failures = Vec::new();
        for name in self.names_of(container).unwrap_or_default() {
            for dir in [self.mounts(), self.shared_dir()] {
                failures.extend(detach_below(&dir.join(&name)).err());
            }
            remove_tree_or_file(&self.mounts().join(&name), &mut failures);
        }
        incomplete(format_args!("the files of container {container}"), failures)
    }

    /// Names at the top of the tree that belong to `container`: its directory and its volumes.
    fn names_of(&self, container: &ContainerId) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.mounts())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if belongs(&name, container) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// Whether `name` is `<container>` or `<container>-<16 hex digits>-…`.
fn belongs(name: &str, container: &ContainerId) -> bool {
    let Some(rest) = name.strip_prefix(container.as_str()) else { return false };
    let Some(rest) = rest.strip_prefix('-') else { return rest.is_empty() };
    match rest.split_at_checked(16) {
        Some((random, rest)) => random.bytes().all(|byte| byte.is_ascii_hexdigit()) && rest.starts_with('-'),
        None => false,
    }
}

fn remove_tree_or_file(path: &Path, failures: &mut Vec<ShareError>) {
    match fs::symlink_metadata(path) {
        // Volumes that are files are mounted on empty files.
        Ok(meta) if meta.is_file() && meta.len() == 0 => {
            failures.extend(fs::remove_file(path).err().map(ShareError::io("remove", path)));
        }
        Ok(_) => remove_tree(path, failures),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => failures.push(ShareError::io("look at", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_they_are() {
        let id = ContainerId::new("c1").unwrap();
        for (name, want) in [
            ("c1", true),
            ("c1-0123456789abcdef-hosts", true),
            ("c1-0123456789abcdef-", true),
            ("c10", false),
            ("c1-x", false),
            ("c1-0123456789abcdeg-hosts", false),
            ("c1-0123456789abcdef", false),
            ("c1-é123456789abcdef-x", false),
            ("c2", false),
        ] {
            assert_eq!(belongs(name, &id), want, "{name}");
        }
    }
}
