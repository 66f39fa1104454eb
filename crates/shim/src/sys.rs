//! System calls without a safe wrapper: the allocator, inherited descriptors, core
//! scheduling, and descriptors placed at fixed numbers for a child.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    process::Command,
};

use std::os::unix::process::CommandExt;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Makes the allocator keep little: one arena for all threads, and freed memory
/// goes back to the kernel early. A shim is idle nearly always.
pub fn frugal_allocator() {
    for (option, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, 64 << 10), (libc::M_MMAP_THRESHOLD, 64 << 10)]
    {
        // SAFETY: mallopt only changes tunables of the allocator, and this runs
        // before other threads exist.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Lets everything else run before this process and those it starts.
///
/// # Errors
/// None in practice: anybody may become nicer.
pub fn be_nice() -> io::Result<()> {
    const NICEST: libc::c_int = 19;
    // SAFETY: the call takes integers only; 0 is the calling process.
    let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn nothing(_: libc::c_int) {}

/// Lets this process do nothing on `number`. Programs it starts get the default
/// back, which they would not if the signal were ignored.
///
/// # Errors
/// For signals that cannot be caught.
pub fn disregard(number: Signal) -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing at all.
    unsafe { sigaction(number, &action) }.map(drop)
}

/// Takes over the descriptor `number` that the parent process left open for us; what we
/// start does not get it.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD sets a flag and nothing else, whatever the number.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and called once at start, before anything else could
    // own a descriptor of this number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts the calling process into a core-scheduling group of its own.
///
/// # Errors
/// When the kernel has no core scheduling.
pub fn own_core_cookie() -> io::Result<()> {
    const SCOPE_PROCESS_GROUP: libc::c_ulong = 2;
    // SAFETY: prctl with integer arguments; PR_SCHED_CORE_CREATE takes no pointer
    // that it would write to.
    let outcome = unsafe { libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_CREATE, 0, SCOPE_PROCESS_GROUP, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets `command` start with `fds` at 3, 4, 5 and so on.
pub fn pass_from_three(command: &mut Command, fds: Vec<OwnedFd>) {
    let place = move || {
        // First out of the way of the targets, then onto them: descriptors may
        // come in with numbers that are targets of others.
        let base = 3 + fds.len() as RawFd;
        let mut lifted = [-1; 8];
        for (slot, fd) in lifted.iter_mut().zip(&fds) {
            // SAFETY: duplicates a descriptor this closure owns; async-signal-safe.
            *slot = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, base) };
            if *slot < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (number, fd) in (3..base).zip(lifted) {
            // SAFETY: both numbers are valid; async-signal-safe; dup2 clears close-on-exec.
            if unsafe { libc::dup2(fd, number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(place) };
}
