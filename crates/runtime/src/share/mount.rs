//! Mounts with the flags and the propagation the shared tree needs.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::{FsFlags, statvfs},
};

use super::{
    error::ShareError,
    mountinfo::mounts_below,
    source::{FileKind, Source},
};

/// How a source appears to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exposure {
    /// The guest cannot write.
    pub read_only: bool,
    /// Nor can it write to what is mounted on the source.
    pub read_only_below: bool,
    /// What is mounted on the source comes along.
    pub recursive: bool,
    /// What the host mounts on the source later comes along.
    pub follow_host: bool,
}

/// Unmounting may uncover another mount at the same place; nobody stacks more.
const LAYERS: usize = 16;

/// Makes one bind mount of `source` at `target`.
fn bind(source: &Path, target: &Path, recursive: bool) -> Result<(), ShareError> {
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount(Some(source), target, None::<&str>, flags, None::<&str>).map_err(ShareError::io("mount", target))
}

/// Changes how mounts on `target` propagate.
fn propagate(target: &Path, flags: MsFlags) -> Result<(), ShareError> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .map_err(ShareError::io("change propagation of", target))
}

/// Makes the mount at `target` read-only, keeping its other restrictions.
fn make_read_only(target: &Path) -> Result<(), ShareError> {
    let failed = || ShareError::io("make read-only", target);
    let present = statvfs(target).map_err(failed())?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (present_flag, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if present.contains(present_flag) {
            flags |= flag;
        }
    }
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(failed())
}

/// A directory that is a mount of its own and tells nobody about mounts on it.
pub(super) fn mount_private(dir: &Path) -> Result<(), ShareError> {
    bind(dir, dir, false)?;
    propagate(dir, MsFlags::MS_PRIVATE)
}

/// Mounts `from` on itself and, read-only, on `to`, so that whatever is mounted on `from`
/// later appears on `to`, and never the other way round.
pub(super) fn mount_mirror(from: &Path, to: &Path) -> Result<(), ShareError> {
    bind(from, from, false)?;
    propagate(from, MsFlags::MS_SHARED)?;
    bind(from, to, false)?;
    propagate(to, MsFlags::MS_SLAVE)?;
    make_read_only(to)
}

/// Mounts `source` at `target` by way of `staging`; both are made, neither may exist.
///
/// On `staging`, below a private mount, the copy gets its flags: a change of flags
/// does not propagate, so it must come before the guest sees the mount. There it also
/// stops being a peer of its source: otherwise unmounting it later would unmount
/// what is mounted on the source, on the host.
pub(super) fn expose(source: &Source, staging: &Path, target: &Path, how: Exposure) -> Result<(), ShareError> {
    mount_point(staging, source.kind)?;
    let staged = stage(source, staging, how).and_then(|()| {
        mount_point(target, source.kind)?;
        bind(staging, target, true)
    });
    let unstaged = detach(staging).and_then(|()| remove_mount_point(staging, source.kind));
    match (staged, unstaged) {
        (Ok(()), Ok(())) => Ok(()),
        (Ok(()), Err(error)) => {
            // The guest must not see what the caller is told it does not.
            detach_below(target)?;
            Err(error)
        }
        // What is left at `target` is an empty mount point: it goes with its container.
        (Err(error), _) => Err(error),
    }
}

fn stage(source: &Source, staging: &Path, how: Exposure) -> Result<(), ShareError> {
    bind(&source.path(), staging, how.recursive)?;
    let kind = if how.follow_host { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
    propagate(staging, kind | MsFlags::MS_REC)?;
    if how.read_only_below {
        let below = mounts_below(staging).map_err(ShareError::io("list mounts of", staging))?;
        return below.iter().try_for_each(|mount| make_read_only(&mount.point));
    }
    if how.read_only { make_read_only(staging) } else { Ok(()) }
}

/// Makes what a mount of `kind` needs to be mounted on.
fn mount_point(path: &Path, kind: FileKind) -> Result<(), ShareError> {
    match kind {
        FileKind::Directory => make_dir(path),
        _ => File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map(drop)
            .map_err(ShareError::io("create", path)),
    }
}

fn remove_mount_point(path: &Path, kind: FileKind) -> Result<(), ShareError> {
    let removed = match kind {
        FileKind::Directory => fs::remove_dir(path),
        _ => fs::remove_file(path),
    };
    removed.map_err(ShareError::io("remove", path))
}

/// Makes a directory only root may enter.
pub(super) fn make_dir(path: &Path) -> Result<(), ShareError> {
    DirBuilder::new().mode(0o700).create(path).map_err(ShareError::io("create", path))
}

/// Lazily unmounts what is mounted at `path`, if anything is.
fn detach(path: &Path) -> Result<(), ShareError> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Not a mount, or already gone with another one.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(ShareError::io("unmount", path)(error)),
    }
}

/// Lazily unmounts everything at and below `path`, which must be canonical.
pub(super) fn detach_below(path: &Path) -> Result<(), ShareError> {
    for _ in 0..LAYERS {
        let mounts = mounts_below(path).map_err(ShareError::io("list mounts of", path))?;
        if mounts.is_empty() {
            return Ok(());
        }
        // Last mounted first: what is mounted on another goes before it.
        for mount in mounts.iter().rev() {
            detach(&mount.point)?;
        }
    }
    let mounts: io::Result<_> = mounts_below(path);
    match mounts.map_err(ShareError::io("list mounts of", path))?.pop() {
        None => Ok(()),
        Some(mount) => Err(ShareError::StillMounted { path: mount.point }),
    }
}
