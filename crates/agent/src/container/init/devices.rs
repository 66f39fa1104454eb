//! Device nodes and the usual links in /dev.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{Mode, SFlag, makedev, mknodat},
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat},
};
use osc_agent_protocol::oci;

use super::{
    Result, SetupError, during,
    rootfs::{Node, RootFs, agents_stat},
};
use crate::container::sys;

/// Devices every container has: name, major, minor (OCI runtime specification,
/// "Default Devices").
const DEFAULT: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes default and listed devices and the usual links.
pub fn create(root: &RootFs, devices: &[oci::LinuxDevice]) -> Result<()> {
    let dev = root.ensure(Path::new("/dev"), Node::Directory).map_err(during("make", "/dev"))?;
    for (name, major, minor) in DEFAULT {
        let listed = devices.iter().any(|device| Path::new(&device.Path) == Path::new("/dev").join(name));
        if !listed {
            let wanted = Device { kind: SFlag::S_IFCHR, mode: 0o666, major, minor, uid: 0, gid: 0 };
            wanted.make(&dev, name, &format!("/dev/{name}"))?;
        }
    }
    for device in devices {
        listed(root, device)?;
    }
    for (name, target) in LINKS {
        link(&dev, name, target)?;
    }
    if agents_stat(Path::new("/proc/kcore")).is_ok() {
        link(&dev, "core", "/proc/kcore")?;
    }
    // The terminal multiplexer is that of the container's own devpts.
    match unlinkat(&dev, "ptmx", UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => link(&dev, "ptmx", "pts/ptmx"),
        Err(errno) => Err(during("replace", "/dev/ptmx")(errno)),
    }
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> Result<()> {
    match symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(during("link", format!("/dev/{name}"))(errno)),
    }
}

fn listed(root: &RootFs, device: &oci::LinuxDevice) -> Result<()> {
    let kind = match device.Type.as_str() {
        "c" | "u" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        other => {
            let reason = "one of c, u, b, p";
            return Err(SetupError::Invalid { field: "Linux.Devices.Type", value: other.into(), reason });
        }
    };
    let path = Path::new(&device.Path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        let reason = "an absolute path";
        return Err(SetupError::Invalid { field: "Linux.Devices.Path", value: device.Path.clone(), reason });
    };
    let dir = root.ensure(parent, Node::Directory).map_err(during("make", parent.display()))?;
    let mode = if device.FileMode == 0 { 0o666 } else { device.FileMode & 0o7777 };
    let (major, minor) = (device.Major.unsigned_abs(), device.Minor.unsigned_abs());
    Device { kind, mode, major, minor, uid: device.UID, gid: device.GID }.make(&dir, name, &device.Path)
}

struct Device {
    kind: SFlag,
    mode: u32,
    major: u64,
    minor: u64,
    uid: u32,
    gid: u32,
}

impl Device {
    fn make(&self, dir: &OwnedFd, name: &str, path: &str) -> Result<()> {
        let mode = Mode::from_bits_truncate(self.mode);
        match mknodat(dir, name, self.kind, mode, makedev(self.major, self.minor)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Ok(()),
            // Not allowed in a user namespace: borrow the agent's node.
            Err(Errno::EPERM) => return borrow(dir, name, path),
            Err(errno) => return Err(during("make device", path)(errno)),
        }
        if (self.uid, self.gid) != (0, 0) {
            let owner = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
            fchownat(dir, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(during("change owner of device", path))?;
        }
        Ok(())
    }
}

fn borrow(dir: &OwnedFd, name: &str, path: &str) -> Result<()> {
    let bound = || -> io::Result<()> {
        use nix::fcntl::{OFlag, openat};
        let tree = sys::open_tree(Path::new(path), false)?;
        let flags = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let place = openat(dir, name, flags, Mode::from_bits_truncate(0o644))?;
        sys::move_mount(tree.as_fd(), place.as_fd())
    };
    bound().map_err(during("bind device", path))
}
