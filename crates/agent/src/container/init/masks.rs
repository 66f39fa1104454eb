//! Paths of /proc and /sys a container shall not read or not write.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

use super::{
    Result, during,
    rootfs::{Node, RootFs, through},
};
use crate::container::sys::{self, MountAttr, attr};

/// What is at `path`, if anything: protecting what is not there is no error.
fn present(root: &RootFs, path: &str) -> Result<Option<OwnedFd>> {
    match root.open(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(during("open", path)(errno)),
    }
}

/// Makes each path, and everything below it, read-only.
pub fn read_only(root: &RootFs, paths: &[String]) -> Result<()> {
    for path in paths {
        let Some(place) = present(root, path)? else { continue };
        let bound = || -> io::Result<()> {
            let tree = sys::open_tree_at(place.as_fd())?;
            sys::mount_setattr(tree.as_fd(), true, &MountAttr::new(attr::RDONLY, 0, 0))?;
            sys::move_mount(tree.as_fd(), place.as_fd())
        };
        bound().map_err(during("make read-only", path))?;
    }
    Ok(())
}

/// Hides each path: directories behind an empty one, files behind /dev/null.
pub fn mask(root: &RootFs, paths: &[String]) -> Result<()> {
    for path in paths {
        let Some(place) = present(root, path)? else { continue };
        let hidden = match Node::of(&place).map_err(during("look at", path))? {
            Node::Directory => {
                let target = through(&place);
                mount(Some("tmpfs"), target.as_str(), Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)
                    .map_err(io::Error::from)
            }
            // The agent's own, which nobody in the container could have replaced.
            Node::File => sys::open_tree(Path::new("/dev/null"), false)
                .and_then(|null| sys::move_mount(null.as_fd(), place.as_fd())),
        };
        hidden.map_err(during("mask", path))?;
    }
    Ok(())
}
