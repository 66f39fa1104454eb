//! System calls without a safe binding.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Takes over a descriptor this process was started with.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer; a number that is no descriptor is an error.
    nix::errno::Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: the descriptor is open, and whoever started this process passed it for
    // this purpose: nothing else here uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends the process when it is asked to. The default would not do: inside its process
/// namespace it is the first process, which signals without a handler do not reach.
pub fn end_on_signals() -> nix::Result<()> {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: `_exit` may be called in a signal handler and does not return.
        unsafe { libc::_exit(1) }
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        // SAFETY: the handler makes one system call that is safe in handlers.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}
