//! System calls without a safe wrapper.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

use nix::{
    libc,
    sys::mman::{MmapAdvise, madvise},
};
use vm_memory::{GuestMemoryRegion, GuestRegionMmap};

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

/// Ends this process's view of a region's pages until they are next used. The
/// region must be a shared mapping of a file, as guest memory always is here:
/// its contents are the file's.
///
/// # Errors
/// `EINVAL` for huge pages on kernels before 5.18.
pub fn let_pages_go(region: &GuestRegionMmap) -> io::Result<()> {
    let Some(start) = NonNull::new(region.as_ptr().cast::<libc::c_void>()) else { return Ok(()) };
    // SAFETY: the range is that of a live mapping, which `region` keeps alive for the call. Pages of a shared mapping
    // of a file are read back from the file, so no byte anybody may be looking at changes.
    unsafe { madvise(start, region.len() as usize, MmapAdvise::MADV_DONTNEED) }?;
    Ok(())
}
