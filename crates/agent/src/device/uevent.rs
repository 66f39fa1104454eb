//! The kernel's announcements of devices (`NETLINK_KOBJECT_UEVENT`).

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket},
};
use tokio::{io::Interest, sync::watch};

/// Longest announcement: the kernel's buffer is 2048 bytes plus the header line.
const LONGEST: usize = 4096;
/// The kernel's own multicast group; daemons re-announce on others.
const KERNEL_GROUP: u32 = 1;

/// Says when devices may have changed. Clones share one source.
#[derive(Clone, Debug)]
pub struct Uevents(watch::Sender<()>);

impl Default for Uevents {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Uevents {
    /// A receiver that is woken by every change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }

    /// Wakes everybody who waits for a device.
    pub(super) fn announce(&self) {
        self.0.send_replace(());
    }

    /// Listens to the kernel until it fails. Memory that was plugged in is put
    /// to use at once: nothing else in the guest would.
    ///
    /// # Errors
    /// When the socket cannot be made or read.
    pub async fn listen(&self) -> io::Result<()> {
        let socket = crate::sys::async_fd(open()?)?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let received = socket
                .async_io(Interest::READABLE, |fd| Ok(recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?))
                .await;
            match received {
                Ok(length) => {
                    if let Some(block) = added_memory(&buffer[..length]) {
                        online(Path::new("/sys"), block);
                    }
                }
                // Announcements were lost: anything may have changed.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) => return Err(error),
            }
            self.announce();
        }
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(fd)
}

/// The sysfs path of a memory block this announcement adds. The format is a
/// header line and `KEY=value` strings, each ended by a zero byte.
fn added_memory(message: &[u8]) -> Option<&str> {
    let field = |key: &str| {
        message.split(|b| *b == 0).filter_map(|part| std::str::from_utf8(part).ok()).find_map(|p| p.strip_prefix(key))
    };
    (field("ACTION=")? == "add" && field("SUBSYSTEM=")? == "memory").then(|| field("DEVPATH="))?
}

fn online(sysfs: &Path, block: &str) {
    let state = sysfs.join(block.trim_start_matches('/')).join("state");
    // The kernel may have been told to do this by itself.
    if fs::read_to_string(&state).is_ok_and(|text| text.trim() == "online") {
        return;
    }
    if let Err(error) = fs::write(&state, "online") {
        tracing::warn!(path = %state.display(), error = %error, "memory block stays offline");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_blocks_are_recognised() {
        let add = b"add@/devices/system/memory/memory32\0ACTION=add\0DEVPATH=/devices/system/memory/memory32\0SUBSYSTEM=memory\0SEQNUM=7\0";
        for (message, want) in [
            (&add[..], Some("/devices/system/memory/memory32")),
            (b"add@/x\0ACTION=add\0DEVPATH=/x\0SUBSYSTEM=block\0", None),
            (b"remove@/x\0ACTION=remove\0DEVPATH=/x\0SUBSYSTEM=memory\0", None),
            (b"add@/x\0ACTION=add\0SUBSYSTEM=memory\0", None),
            (b"\xff\0\0", None),
            (b"", None),
        ] {
            assert_eq!(added_memory(message), want, "{}", String::from_utf8_lossy(message));
        }
    }
}
