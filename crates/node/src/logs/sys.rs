//! Registration of a descriptor with the runtime.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use nix::sys::inotify::Inotify;
use tokio::io::unix::AsyncFd;

/// An inotify instance that never lets go of its descriptor.
pub(super) struct Descriptor(Inotify);

impl Descriptor {
    pub(super) fn inotify(&self) -> &Inotify {
        &self.0
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Makes the instance something to wait for.
pub(super) fn register(inotify: Inotify) -> io::Result<AsyncFd<Descriptor>> {
    // SAFETY: `Descriptor` owns its descriptor, always names the same one, and is
    // only dropped by the `AsyncFd`, which deregisters it first.
    let registered = unsafe { AsyncFd::register(Descriptor(inotify)) };
    registered.map_err(io::Error::from)
}
