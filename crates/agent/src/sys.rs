//! System calls without a safe binding.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;

/// Readiness of a descriptor that is not one of the usual sockets.
pub(crate) fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and the same descriptor until it is dropped,
    // which the `AsyncFd` that takes it does last.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Makes the child lead a session whose terminal is its standard input.
pub(crate) fn on_own_terminal(command: &mut Command) -> &mut Command {
    let take_terminal = || {
        nix::unistd::setsid()?;
        // SAFETY: descriptor 0 is the child's own standard input and the request
        // takes no pointer.
        Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing, so it may
    // run between fork and exec.
    unsafe { command.pre_exec(take_terminal) }
}

/// Starts swapping to a block device or file.
pub(crate) fn swap_on(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` is a string ended by zero that outlives the call.
    Errno::result(unsafe { libc::swapon(path.as_ptr(), 0) }).map(drop)
}

nix::ioctl_none! {
    /// Derives the random generator's output from fresh input at once.
    reseed_generator, b'R', 0x07
}

nix::ioctl_write_ptr! {
    /// Credits the input pool with bits of entropy.
    credit_entropy, b'R', 0x01, libc::c_int
}

/// Tells the kernel that what was written to its random device, `bits` of it
/// unpredictable, is to be used from now on.
pub(crate) fn reseed(random: &File, bits: i32) -> Result<(), Errno> {
    // SAFETY: `random` is open and `bits` a readable C integer for the call.
    unsafe { credit_entropy(random.as_raw_fd(), &raw const bits) }?;
    // SAFETY: `random` is open; the request takes no argument.
    unsafe { reseed_generator(random.as_raw_fd()) }.map(drop)
}
