//! Mounting one file system.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use nix::{errno::Errno, mount::MsFlags};
use osc_agent_protocol::agent::Storage;

use super::{StorageError, Undo, options};

/// Mounts `source` as the storage says, making the mount point when it is missing.
pub(super) fn mount(storage: &Storage, source: &str, mount_point: &Path) -> Result<Undo, StorageError> {
    let options = options::parse(&storage.options);
    let bind = options.flags.contains(MsFlags::MS_BIND);
    if bind && Path::new(source).is_file() {
        make_file(mount_point)?;
    } else {
        make_directory(mount_point)?;
    }
    let failed = |errno| StorageError::Mount {
        source_name: source.to_owned(),
        fstype: storage.fstype.clone(),
        path: mount_point.into(),
        source: errno,
    };
    attach(source, mount_point, &storage.fstype, &options).map_err(failed)?;
    Ok(Undo::Unmount)
}

fn attach(source: &str, target: &Path, fstype: &str, options: &options::Parsed) -> Result<(), Errno> {
    let mount = |source: Option<&str>, flags| {
        nix::mount::mount(source, target, Some(fstype), flags, Some(options.data.as_str()).filter(|d| !d.is_empty()))
    };
    mount(Some(source), options.flags)?;
    let result = finish(target, options);
    if result.is_err() {
        let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
    }
    result
}

/// A bind mount takes over the flags of its source; others need a second call.
/// So does propagation.
fn finish(target: &Path, options: &options::Parsed) -> Result<(), Errno> {
    let none = None::<&str>;
    let kind = MsFlags::MS_BIND | MsFlags::MS_REC;
    if options.flags.contains(MsFlags::MS_BIND) && !(options.flags - kind).is_empty() {
        nix::mount::mount(none, target, none, options.flags | MsFlags::MS_REMOUNT, none)?;
    }
    if !options.propagation.is_empty() {
        nix::mount::mount(none, target, none, options.propagation, none)?;
    }
    Ok(())
}

/// Makes a directory and its parents; one that exists is fine.
pub(super) fn make_directory(path: &Path) -> Result<(), StorageError> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|source| StorageError::File {
        action: "make directory",
        path: path.into(),
        source,
    })
}

/// Makes an empty file to mount over.
fn make_file(path: &Path) -> Result<(), StorageError> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StorageError::File { action: "make file", path: path.into(), source: error })
        }
        _ => Ok(()),
    }
}

/// Sets the permission bits of `path`.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), StorageError> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(|source| StorageError::File {
        action: "set the mode of",
        path: path.into(),
        source,
    })
}

/// Gives `path` to `gid`, and to it everything made below from now on.
pub(super) fn give_to_group(path: &Path, gid: u32) -> Result<(), StorageError> {
    use std::os::unix::fs::MetadataExt;
    let failed = |action| move |source| StorageError::File { action, path: path.into(), source };
    std::os::unix::fs::chown(path, None, Some(gid)).map_err(failed("set the group of"))?;
    let mode = fs::metadata(path).map_err(failed("read the mode of"))?.mode();
    set_mode(path, (mode & 0o7777) | 0o2000)
}
