//! Tap devices, and the queues of macvtaps.
//!
//! Both carry Ethernet frames behind a `virtio_net_hdr`, so that checksums and
//! segmentation can be left to whoever does them last: QEMU tells the kernel
//! what the guest's driver takes, and the kernel completes the rest. None is
//! persistent: a tap disappears with its last descriptor.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, O_CLOEXEC, O_NONBLOCK, c_int},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use super::{error::NetworkError, netns, sys};

/// Where taps are made.
const TUN: &str = "/dev/net/tun";

/// Packet processing in the kernel, where the host has it.
const VHOST_NET: &str = "/dev/vhost-net";

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK | O_CLOEXEC).open(path)
}

fn flags(queues: u16) -> c_int {
    IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | if queues > 1 { IFF_MULTI_QUEUE } else { 0 }
}

/// Makes a tap in `netns` and opens all its queues.
///
/// # Errors
/// [`NetworkError::Tap`], with `EBUSY` when somebody still holds a tap of that
/// name.
pub async fn create(netns: &Path, name: &str, queues: u16) -> Result<Vec<OwnedFd>, NetworkError> {
    let wanted = name.to_owned();
    let opened = netns::run(netns, move || Ok(open_taps(&wanted, queues))).await?;
    opened.map_err(|source| NetworkError::Tap { action: format!("make tap {name}"), device: TUN.into(), source })
}

fn open_taps(name: &str, queues: u16) -> io::Result<Vec<OwnedFd>> {
    let one = |_| {
        let queue = open(Path::new(TUN))?;
        sys::attach_queue(queue.as_fd(), name, flags(queues))?;
        Ok(queue.into())
    };
    (0..queues).map(one).collect()
}

/// Opens all queues of the macvtap `name` with interface number `index`.
///
/// # Errors
/// [`NetworkError::Tap`].
pub async fn open_macvtap(netns: &Path, name: &str, index: u32, queues: u16) -> Result<Vec<OwnedFd>, NetworkError> {
    let wanted = name.to_owned();
    let opened = netns::run(netns, move || Ok(open_character_device(&wanted, index, queues))).await?;
    let device = PathBuf::from(format!("/sys/class/net/{name}/tap{index}"));
    opened.map_err(|source| NetworkError::Tap { action: format!("open macvtap {name}"), device, source })
}

/// The node in `/dev` is of no use: its name is the interface's number, which
/// other namespaces use too. So the device number is read from a sysfs of this
/// namespace, and the node made where nobody else looks. For a thread of its
/// own, whose view of the file system ends with it.
fn open_character_device(name: &str, index: u32, queues: u16) -> io::Result<Vec<OwnedFd>> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::MS_RDONLY, none)?;
    let number = std::fs::read_to_string(format!("/sys/class/net/{name}/tap{index}/dev"))?;
    let (major, minor) = number.trim().split_once(':').ok_or(io::ErrorKind::InvalidData)?;
    let parse = |part: &str| part.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
    let device = makedev(parse(major)?, parse(minor)?);

    mount(Some("tmpfs"), "/sys", Some("tmpfs"), MsFlags::MS_NOEXEC, Some("size=4k"))?;
    let node = Path::new("/sys/queue");
    mknod(node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, device)?;
    let one = |_| {
        let queue = open(node)?;
        if queue.metadata()?.rdev() != device {
            return Err(io::ErrorKind::InvalidData.into());
        }
        sys::attach_queue(queue.as_fd(), name, flags(queues))?;
        Ok(queue.into())
    };
    (0..queues).map(one).collect()
}

/// Opens `/dev/vhost-net` once per queue; nothing where the host has none.
///
/// # Errors
/// [`NetworkError::Tap`] when it is there and cannot be opened.
pub fn vhosts(queues: u16) -> Result<Vec<OwnedFd>, NetworkError> {
    if !Path::new(VHOST_NET).exists() {
        return Ok(Vec::new());
    }
    let failed = |source| NetworkError::Tap { action: "use vhost-net".into(), device: VHOST_NET.into(), source };
    (0..queues).map(|_| open(Path::new(VHOST_NET)).map(OwnedFd::from).map_err(failed)).collect()
}
