//! System calls without a safe wrapper.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::libc::{self, c_int};

nix::ioctl_write_ptr_bad!(
    /// `TUNSETIFF`, whose number was made before there were rules.
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<c_int>()),
    libc::ifreq
);

/// Attaches an open `/dev/net/tun` or macvtap queue to the interface `name`,
/// made when it does not exist, with `IFF_…` flags.
///
/// # Errors
/// What the kernel says; a name that is too long among others.
pub fn attach_queue(queue: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        // The kernel reads a short; no flag is beyond its bits.
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short },
    };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the descriptor is open for the length of the call, and the kernel reads and writes one ifreq.
    unsafe { tun_set_iff(queue.as_raw_fd(), &raw const request) }?;
    Ok(())
}
