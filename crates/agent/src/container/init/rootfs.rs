//! The container's root file system while it is being filled.
//!
//! Its content belongs to the workload: any path may lead through links made to
//! point outside. Every path is therefore resolved by the kernel with the root
//! file system as the root (`openat2`, `RESOLVE_IN_ROOT`), and used through the
//! descriptor that comes out of it.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat},
    unistd::{fchdir, pivot_root},
};

use super::{Result, during, options};
use crate::container::sys::{self, MountAttr, attr};

/// Most links followed while making a path; the kernel's own limit.
const MAX_LINKS: u32 = 40;

/// A root file system, by descriptor.
#[derive(Debug)]
pub struct RootFs(OwnedFd);

/// What a path is wanted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

impl Node {
    /// What the object behind `fd` is.
    pub fn of(fd: &OwnedFd) -> nix::Result<Self> {
        fstat(fd).map(|stat| Self::of_stat(&stat))
    }

    fn of_stat(stat: &FileStat) -> Self {
        let directory = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        if directory { Self::Directory } else { Self::File }
    }
}

impl RootFs {
    /// A detached copy of the tree at `path`.
    pub fn capture(path: &Path) -> Result<Self> {
        sys::open_tree(path, true).map(Self).map_err(during("open root file system", path.display()))
    }

    /// The root we are in already.
    pub fn current() -> Result<Self> {
        open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map(Self).map_err(during("open", "/"))
    }

    /// Attaches the copy over `path` in our own mount namespace, which from here
    /// on only receives mounts from outside.
    pub fn attach(&self, path: &Path) -> Result<()> {
        let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
            .map_err(during("isolate", "the mount namespace"))?;
        let slave = MountAttr::new(0, 0, MsFlags::MS_SLAVE.bits());
        sys::mount_setattr(self.0.as_fd(), true, &slave).map_err(during("isolate", "the root file system"))?;
        let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        let place = place.map_err(during("open", path.display()))?;
        sys::move_mount(self.0.as_fd(), place.as_fd()).map_err(during("mount root file system on", path.display()))
    }

    /// Makes this the root and lets go of the old one.
    pub fn enter(self, read_only: bool, propagation: &str) -> Result<()> {
        if read_only {
            let attr = MountAttr::new(attr::RDONLY, 0, 0);
            sys::mount_setattr(self.0.as_fd(), false, &attr)
                .map_err(during("make read-only", "the root file system"))?;
        }
        fchdir(&self.0).map_err(during("enter", "the root file system"))?;
        // The old root ends up on top of the new one, from where it is detached.
        pivot_root(".", ".").map_err(during("change to", "the root file system"))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(during("detach", "the old root"))?;
        std::env::set_current_dir("/").map_err(during("enter", "/"))?;
        if let Some((flags, recursive)) = options::propagation(propagation) {
            let recursive = if recursive { MsFlags::MS_REC } else { MsFlags::empty() };
            mount(None::<&str>, "/", None::<&str>, flags | recursive, None::<&str>)
                .map_err(during("set propagation of", "/"))?;
        }
        Ok(())
    }

    /// A descriptor of what is at `path`.
    pub fn open(&self, path: impl AsRef<Path>) -> nix::Result<OwnedFd> {
        self.open_with(path.as_ref(), OFlag::O_PATH, Mode::empty(), ResolveFlag::empty())
    }

    /// As [`open`](Self::open), but no part of the path may be a link.
    pub fn open_plain(&self, path: impl AsRef<Path>) -> nix::Result<OwnedFd> {
        self.open_with(path.as_ref(), OFlag::O_PATH, Mode::empty(), ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    /// Opens `path` for use, with `flags`.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlag) -> nix::Result<OwnedFd> {
        self.open_with(path.as_ref(), flags, Mode::empty(), ResolveFlag::empty())
    }

    fn open_with(&self, path: &Path, flags: OFlag, mode: Mode, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
        let how =
            OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(ResolveFlag::RESOLVE_IN_ROOT | resolve);
        openat2(self.0.as_fd(), path, how)
    }

    /// A descriptor of what is at `path`, which is made if it is not there.
    pub fn ensure(&self, path: &Path, node: Node) -> io::Result<OwnedFd> {
        self.ensure_within(path, node, MAX_LINKS)
    }

    fn ensure_within(&self, path: &Path, node: Node, links: u32) -> io::Result<OwnedFd> {
        match self.open(path) {
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
        let path = normal(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = self.ensure_within(parent, Node::Directory, links)?;
        match make(&dir, name, node) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        match self.open(&path) {
            // A link to nowhere: make what it points to.
            Err(Errno::ENOENT) if links > 0 => {
                let target = PathBuf::from(readlinkat(&dir, name)?);
                self.ensure_within(&parent.join(target), node, links - 1)
            }
            result => Ok(result?),
        }
    }
}

/// `path` from the root, without `.` and with `..` taken literally.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn make(dir: &OwnedFd, name: &OsStr, node: Node) -> nix::Result<()> {
    match node {
        Node::Directory => mkdirat(dir, name, Mode::from_bits_truncate(0o755)),
        Node::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
            nix::fcntl::openat(dir, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
        }
    }
}

/// A path that leads to what `fd` refers to, for calls that take no descriptor.
pub fn through(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What the agent's own namespaces have at `path`.
pub fn agents_stat(path: &Path) -> nix::Result<FileStat> {
    fstatat(AT_FDCWD, path, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn tree(name: &str) -> (PathBuf, RootFs) {
        let dir = std::env::temp_dir().join(format!("rootfs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("etc")).unwrap();
        let fd = open(&dir, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        (dir, RootFs(fd))
    }

    #[test]
    fn links_cannot_lead_out() {
        let (dir, root) = tree("links");
        symlink("/nowhere-outside", dir.join("absolute")).unwrap();
        symlink("../../../../../../../nowhere-above", dir.join("relative")).unwrap();
        for name in ["absolute", "relative"] {
            let made = root.ensure(&Path::new(name).join("deep"), Node::Directory).unwrap();
            assert_eq!(Node::of(&made).unwrap(), Node::Directory, "{name}");
        }
        assert!(dir.join("nowhere-outside/deep").is_dir() && dir.join("nowhere-above/deep").is_dir());
        assert!(!Path::new("/nowhere-outside").exists() && !Path::new("/nowhere-above").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_behind_a_dangling_link_is_made_where_it_points() {
        let (dir, root) = tree("dangling");
        symlink("../run/resolve/stub.conf", dir.join("etc/resolv.conf")).unwrap();
        let made = root.ensure(Path::new("/etc/resolv.conf"), Node::File).unwrap();
        assert_eq!(Node::of(&made).unwrap(), Node::File);
        assert!(dir.join("run/resolve/stub.conf").is_file());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_circle_of_links_ends() {
        let (dir, root) = tree("circle");
        symlink("b", dir.join("a")).unwrap();
        symlink("a", dir.join("b")).unwrap();
        assert!(root.ensure(Path::new("/a/x"), Node::Directory).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
