//! The one place that needs `unsafe`.
#![allow(unsafe_code)]

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime.
pub(super) fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and the same until it is dropped, which the
    // `AsyncFd` that takes it does last.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
