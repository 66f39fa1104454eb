//! A container's directory in the guest: `config.json` and `rootfs`.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use osc_agent_protocol::oci;

use super::{Error, Result, oci_json};

/// The bundle of one container.
#[derive(Debug)]
pub struct Bundle {
    id: String,
    path: PathBuf,
}

impl Bundle {
    /// Makes the bundle below `run_dir`, binds the root file system into it and
    /// points `spec` there.
    pub(super) fn create(run_dir: &Path, id: &str, spec: &mut oci::Spec) -> Result<Self> {
        let bundle = Self { id: id.into(), path: run_dir.join(id) };
        bundle.fill(spec).inspect_err(|_| bundle.delete_logged())?;
        Ok(bundle)
    }

    fn fill(&self, spec: &mut oci::Spec) -> Result<()> {
        let rootfs = self.rootfs();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&rootfs)
            .map_err(|source| self.failed("make the bundle", source))?;
        let root = spec.Root.mut_or_insert_default();
        let source = Path::new(&root.Path);
        if source != rootfs {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(source), &rootfs, None::<&str>, flags, None::<&str>)
                .map_err(|errno| self.failed("bind the root file system", errno.into()))?;
        }
        root.Path = rootfs.to_string_lossy().into_owned();
        let config = serde_json::to_vec(&oci_json::config(spec)).map_err(io::Error::from);
        config
            .and_then(|config| fs::write(self.path.join("config.json"), config))
            .map_err(|source| self.failed("write config.json", source))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its root file system is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Detaches the root file system and deletes the directory.
    ///
    /// # Errors
    /// [`Error::System`]; a bundle that is gone is none.
    pub(super) fn delete(&self) -> Result<()> {
        let rootfs = self.rootfs();
        loop {
            match umount2(&rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(errno) => return Err(self.failed("detach the root file system", errno.into())),
            }
        }
        // Never recursively: should anything still be mounted there, it is not ours to delete.
        let deleted = fs::remove_dir(&rootfs).or_else(ignore_missing).and_then(|()| fs::remove_dir_all(&self.path));
        deleted.or_else(ignore_missing).map_err(|source| self.failed("delete the bundle", source))
    }

    /// Deletes after a failure that is reported already.
    pub(super) fn delete_logged(&self) {
        if let Err(error) = self.delete() {
            let error = osc_agent_protocol::kind::chain(&error);
            tracing::warn!(container.id = self.id, error, "bundle of failed container not deleted");
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::System { container: self.id.clone(), action, source }
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
