//! Files the host puts into the guest or reads from it.
//!
//! Workloads own parts of the shared directory and may have put links anywhere in
//! it. Every path is therefore walked from the directory's own descriptor without
//! following links or leaving it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, OpenOptionsExt},
        },
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat},
    sys::stat::{Mode, SFlag, fchmod, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat},
};
use osc_agent_protocol::{agent::CopyFileRequest, names, oci};

use super::{GuestError, Result, blocking, failed};

/// Most bytes of a termination message Kubernetes keeps.
const LONGEST_MESSAGE: u64 = 4096;
/// Annotation naming the file a container leaves its last words in.
const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";

/// Writes one piece of a file, or makes a directory or link, below the shared
/// directory. A file appears under its name once it is complete.
///
/// # Errors
/// [`GuestError`] when the path leaves the shared directory or cannot be written.
pub async fn copy(request: CopyFileRequest) -> Result<()> {
    blocking(move || copy_below(Path::new(names::GUEST_SHARE_DIR), &request)).await
}

fn copy_below(root: &Path, request: &CopyFileRequest) -> Result<()> {
    let target = Target::open(root, request)?;
    match SFlag::from_bits_truncate(request.file_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => target.directory(request),
        SFlag::S_IFLNK => target.link(request),
        SFlag::S_IFREG => target.file(request),
        _ => Err(GuestError::Invalid {
            field: "file_mode",
            value: format!("{:o}", request.file_mode),
            wanted: "give the mode of a directory, a link or a regular file",
        }),
    }
}

/// A name in an open directory.
struct Target {
    parent: OwnedFd,
    name: PathBuf,
    path: PathBuf,
}

impl Target {
    /// Makes missing parents and opens the nearest one.
    fn open(root: &Path, request: &CopyFileRequest) -> Result<Self> {
        let path = PathBuf::from(&request.path);
        let parts = below(root, &path)?;
        let (name, parents) = parts.split_last().ok_or_else(|| outside(&path))?;
        fs::create_dir_all(root).map_err(failed("make", root))?;
        let at = |errno: Errno| failed("open the directory of", &path)(errno.into());
        let mut parent = OwnedFd::from(File::open(root).map_err(failed("open", root))?);
        let mode = Mode::from_bits_truncate(request.dir_mode & 0o777);
        for (depth, part) in parents.iter().enumerate() {
            let made = match mkdirat(&parent, part, mode) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(at(errno)),
            };
            let next = open_directory(&parent, part).map_err(at)?;
            if made {
                // The creation mask may have taken bits away.
                fchmod(&next, mode).map_err(at)?;
            }
            if made && depth + 1 == parents.len() {
                chown(&next, Path::new(""), AtFlags::AT_EMPTY_PATH, request).map_err(at)?;
            }
            parent = next;
        }
        Ok(Self { parent, name: name.clone(), path })
    }

    fn directory(&self, request: &CopyFileRequest) -> Result<()> {
        let mode = Mode::from_bits_truncate(request.file_mode & 0o7777);
        match mkdirat(&self.parent, &self.name, mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(self.failed("make", errno)),
        }
        let made = open_directory(&self.parent, &self.name).map_err(|errno| self.failed("open", errno))?;
        fchmod(&made, mode).map_err(|errno| self.failed("set the mode of", errno))?;
        chown(&made, Path::new(""), AtFlags::AT_EMPTY_PATH, request).map_err(|errno| self.failed("give away", errno))
    }

    /// The new link takes the old one's place in one step: Kubernetes switches
    /// revisions of a volume by replacing a link.
    fn link(&self, request: &CopyFileRequest) -> Result<()> {
        let draft = self.draft();
        let to = OsStr::from_bytes(&request.data);
        self.remove(&draft)?;
        symlinkat(to, &self.parent, &draft).map_err(|errno| self.failed("make link", errno))?;
        chown(&self.parent, &draft, AtFlags::AT_SYMLINK_NOFOLLOW, request)
            .map_err(|errno| self.failed("give away", errno))?;
        self.publish(&draft)
    }

    fn file(&self, request: &CopyFileRequest) -> Result<()> {
        let (offset, size) = match (u64::try_from(request.offset), u64::try_from(request.file_size)) {
            (Ok(offset), Ok(size)) if offset.saturating_add(request.data.len() as u64) <= size => (offset, size),
            _ => {
                return Err(GuestError::Invalid {
                    field: "offset",
                    value: request.offset.to_string(),
                    wanted: "pieces lie within the size of the file",
                });
            }
        };
        let draft = self.draft();
        let fresh = if offset == 0 { OFlag::O_TRUNC } else { OFlag::empty() };
        let mode = Mode::from_bits_truncate(request.file_mode & 0o7777);
        let how = how(OFlag::O_WRONLY | OFlag::O_CREAT | fresh).mode(mode);
        let file = openat2(&self.parent, &draft, how).map_err(|errno| self.failed("open", errno))?;
        let file = File::from(file);
        file.write_all_at(&request.data, offset).map_err(failed("write", &self.path))?;
        if offset + (request.data.len() as u64) < size {
            return Ok(());
        }
        file.set_len(size).map_err(failed("write", &self.path))?;
        chown(&file, Path::new(""), AtFlags::AT_EMPTY_PATH, request)
            .map_err(|errno| self.failed("give away", errno))?;
        // After the owner: changing that clears set-id bits.
        fchmod(&file, mode).map_err(|errno| self.failed("set the mode of", errno))?;
        self.publish(&draft)
    }

    fn publish(&self, draft: &Path) -> Result<()> {
        renameat(&self.parent, draft, &self.parent, &self.name).map_err(|errno| self.failed("rename to", errno))
    }

    fn remove(&self, name: &Path) -> Result<()> {
        match unlinkat(&self.parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.failed("replace", errno)),
        }
    }

    fn draft(&self) -> PathBuf {
        let mut name = self.name.clone().into_os_string();
        name.push(".tmp");
        name.into()
    }

    fn failed(&self, action: &'static str, errno: Errno) -> GuestError {
        failed(action, &self.path)(errno.into())
    }
}

/// The parts of `path` below `root`.
fn below(root: &Path, path: &Path) -> Result<Vec<PathBuf>> {
    let rest = path.strip_prefix(root).map_err(|_| outside(path))?;
    rest.components()
        .map(|part| match part {
            Component::Normal(name) => Ok(PathBuf::from(name)),
            _ => Err(outside(path)),
        })
        .collect()
}

fn outside(path: &Path) -> GuestError {
    GuestError::Invalid {
        field: "path",
        value: path.display().to_string(),
        wanted: "give a path below the shared directory of containers",
    }
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn open_directory(parent: impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    openat2(parent, name, how(OFlag::O_RDONLY | OFlag::O_DIRECTORY))
}

/// Gives a file away; a negative identifier leaves it as it is.
fn chown(parent: impl AsFd, name: &Path, flags: AtFlags, request: &CopyFileRequest) -> Result<(), Errno> {
    let uid = u32::try_from(request.uid).ok().map(Uid::from_raw);
    let gid = u32::try_from(request.gid).ok().map(Gid::from_raw);
    fchownat(parent, name, uid, gid, flags)
}

/// Looks at every mount below the shared directory, so that the file system asks
/// the host again and lets go of files that are no longer there.
///
/// # Errors
/// [`GuestError`] when the mounts cannot be listed.
pub async fn refresh_share() -> Result<()> {
    blocking(|| {
        let root = Path::new(names::GUEST_SHARE_DIR);
        for mount_point in crate::sandbox::mounts_below(root).map_err(failed("list the mounts of", root))? {
            // A stale one is what this is for: the failed look is what drops it.
            let _ = fs::metadata(mount_point);
        }
        Ok(())
    })
    .await
}

/// The last words of a container, from the file its specification mounts at the
/// path the annotation names; empty when it names none.
///
/// # Errors
/// [`GuestError`] when there is such a file and it cannot be read.
pub async fn termination_message(spec: oci::Spec) -> Result<String> {
    blocking(move || {
        let Some(path) = spec.Annotations.get(MESSAGE_PATH) else { return Ok(String::new()) };
        let Some(mount) = spec.Mounts.iter().find(|mount| mount.destination == *path) else {
            return Ok(String::new());
        };
        let source = Path::new(&mount.source);
        let text = read_start(source).map_err(failed("read", source))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    })
    .await
}

fn read_start(path: &Path) -> io::Result<Vec<u8>> {
    // The workload may have put anything there, a pipe nobody writes to included.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(LONGEST_MESSAGE).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
