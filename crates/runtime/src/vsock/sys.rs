//! The one system call vhost-vsock needs.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

nix::ioctl_write_ptr!(
    /// `VHOST_VSOCK_SET_GUEST_CID`.
    vhost_vsock_set_guest_cid,
    0xAF,
    0x60,
    u64
);

/// Claims `cid` for the guest behind an open `/dev/vhost-vsock`.
///
/// # Errors
/// `EADDRINUSE` when another guest has it.
pub fn claim_cid(device: BorrowedFd<'_>, cid: u32) -> io::Result<()> {
    let cid = u64::from(cid);
    // SAFETY: the descriptor is open for the length of the call, and the kernel only reads one u64 at `cid`.
    unsafe { vhost_vsock_set_guest_cid(device.as_raw_fd(), &raw const cid) }?;
    Ok(())
}
