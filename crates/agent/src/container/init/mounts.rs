//! The mounts of the specification.

use std::{io, os::fd::AsFd, os::fd::OwnedFd, path::Path};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount as mount_call},
};
use osc_agent_protocol::oci;

use super::{
    Result, SetupError, during,
    options::Options,
    rootfs::{Node, RootFs, through},
};
use crate::container::sys::{self, MountAttr};

fn options(mount: &oci::Mount) -> Options {
    let mut options = Options::parse(mount.options.iter().map(String::as_str));
    match mount.type_.as_str() {
        "bind" => options.bind = options.bind.or(Some(false)),
        "rbind" => options.bind = Some(true),
        _ => {}
    }
    options
}

/// Copies of all trees to be bound, taken where their sources can be seen; the
/// rest are made later.
pub fn capture(mounts: &[oci::Mount]) -> Result<Vec<Option<OwnedFd>>> {
    let capture = |mount: &oci::Mount| {
        let Some(recursive) = options(mount).bind else { return Ok(None) };
        let tree = sys::open_tree(Path::new(&mount.source), recursive);
        tree.map(Some).map_err(during("open mount source", &mount.source))
    };
    mounts.iter().map(capture).collect()
}

/// Whether /dev is somebody else's, so that nothing is to be made in it.
pub fn dev_is_foreign(mounts: &[oci::Mount]) -> bool {
    mounts.iter().any(|mount| Path::new(&mount.destination) == Path::new("/dev") && options(mount).bind.is_some())
}

/// Mounts `mount` below `root`: `source` when it is a bind.
pub fn apply(root: &RootFs, mount: &oci::Mount, source: Option<OwnedFd>) -> Result<()> {
    let options = options(mount);
    match source {
        Some(tree) => bind(root, mount, &options, &tree),
        None => fresh(root, mount, &options),
    }
}

fn bind(root: &RootFs, mount: &oci::Mount, options: &Options, tree: &OwnedFd) -> Result<()> {
    let destination = &mount.destination;
    // Restrictions are in place before anybody could reach the mount.
    for (recursive, attr) in [(false, &options.attr), (true, &options.recursive_attr)] {
        if !attr.is_empty() {
            sys::mount_setattr(tree.as_fd(), recursive, attr).map_err(during("restrict mount", destination))?;
        }
    }
    propagate(tree, options.propagation.unwrap_or((MsFlags::MS_SLAVE, true)), destination)?;
    let node = Node::of(tree).map_err(during("look at mount source", &mount.source))?;
    let place = root.ensure(Path::new(destination), node).map_err(during("make mount point", destination))?;
    sys::move_mount(tree.as_fd(), place.as_fd()).map_err(during("bind on", destination))
}

fn propagate(tree: &OwnedFd, (flag, recursive): (MsFlags, bool), destination: &str) -> Result<()> {
    let attr = MountAttr::new(0, 0, flag.bits());
    sys::mount_setattr(tree.as_fd(), recursive, &attr).map_err(during("set propagation of", destination))
}

fn fresh(root: &RootFs, mount: &oci::Mount, options: &Options) -> Result<()> {
    let destination = &mount.destination;
    // The guest has the unified hierarchy only.
    let kind = if mount.type_ == "cgroup" { "cgroup2" } else { mount.type_.as_str() };
    let place = mount_point(root, Path::new(destination), kind)?;
    let flags = MsFlags::from_bits_retain(options.flags);
    let data = if kind == "cgroup2" { None } else { Some(options.data.as_str()).filter(|data| !data.is_empty()) };
    mount_call(Some(mount.source.as_str()), through(&place).as_str(), Some(kind), flags, data)
        .map_err(during("mount", format!("{kind} on {destination}")))?;
    if let Some(propagation) = options.propagation {
        let mounted = root.open(destination).map_err(during("open", destination))?;
        propagate(&mounted, propagation, destination)?;
    }
    Ok(())
}

/// Kernel file systems must be where they seem to be: masks and read-only paths
/// below them would otherwise protect the wrong place.
fn mount_point(root: &RootFs, destination: &Path, kind: &str) -> Result<OwnedFd> {
    let made = root.ensure(destination, Node::Directory).map_err(during("make mount point", destination.display()))?;
    if !matches!(kind, "proc" | "sysfs") {
        return Ok(made);
    }
    match root.open_plain(destination) {
        Ok(place) => Ok(place),
        Err(Errno::ELOOP) => Err(SetupError::Invalid {
            field: "Mounts.destination",
            value: destination.display().to_string(),
            reason: "kernel file systems are mounted on plain directories, not on links",
        }),
        Err(errno) => Err(during("open mount point", destination.display())(io::Error::from(errno))),
    }
}
