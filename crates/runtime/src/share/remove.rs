//! Removing mount points without ever removing what could be mounted on them.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::error::ShareError;

/// The tree is four directories deep; more is not ours.
const DEPTH: u32 = 8;

/// Removes the directory `path` and all directories and empty files in it, without
/// leaving its file system mount or following a link. Anything else stays and is
/// reported, after everything that can go has gone. Absence is success.
pub(super) fn remove_tree(path: &Path, failures: &mut Vec<ShareError>) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let opened =
        nix::fcntl::open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty());
    match opened {
        Ok(parent) => remove_dir(&parent, name, path, DEPTH, failures),
        Err(Errno::ENOENT) => {}
        Err(error) => failures.push(ShareError::io("open", path)(error)),
    }
}

fn remove_dir(parent: &OwnedFd, name: &OsStr, path: &Path, depth: u32, failures: &mut Vec<ShareError>) {
    // Opening fails with EXDEV when `name` is a mount, even one of the same file system.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let dir = match openat2(parent, name, how) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return,
        Err(Errno::EXDEV) => return failures.push(ShareError::StillMounted { path: path.to_owned() }),
        Err(Errno::ELOOP | Errno::ENOTDIR) => return failures.push(ShareError::Foreign { path: path.to_owned() }),
        Err(error) => return failures.push(ShareError::io("open", path)(error)),
    };
    if depth == 0 {
        return failures.push(ShareError::Foreign { path: path.to_owned() });
    }
    let before = failures.len();
    match names(&dir) {
        Ok(names) => {
            for name in names {
                remove_entry(&dir, &name, &path.join(&name), depth, failures);
            }
        }
        Err(error) => failures.push(ShareError::io("list", path)(error)),
    }
    // With something left in it, the directory itself is no news.
    if failures.len() == before {
        unlink(parent, name, path, UnlinkatFlags::RemoveDir, failures);
    }
}

fn remove_entry(dir: &OwnedFd, name: &OsStr, path: &Path, depth: u32, failures: &mut Vec<ShareError>) {
    let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::ENOENT) => return,
        Err(error) => return failures.push(ShareError::io("look at", path)(error)),
    };
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => remove_dir(dir, name, path, depth - 1, failures),
        // Mount points of files are empty. A file mounted on one cannot be unlinked: EBUSY.
        SFlag::S_IFREG if stat.st_size == 0 => unlink(dir, name, path, UnlinkatFlags::NoRemoveDir, failures),
        _ => failures.push(ShareError::Foreign { path: path.to_owned() }),
    }
}

fn unlink(dir: &impl AsFd, name: &OsStr, path: &Path, flags: UnlinkatFlags, failures: &mut Vec<ShareError>) {
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(Errno::EBUSY) => failures.push(ShareError::StillMounted { path: path.to_owned() }),
        Err(error) => failures.push(ShareError::io("remove", path)(error)),
    }
}

fn names(dir: &OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(dir.try_clone()?)?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
