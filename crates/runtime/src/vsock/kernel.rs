//! The kernel's vhost-vsock.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{error::VsockError, sys};

/// The kernel's device node, where there is one.
pub const DEVICE: &str = "/dev/vhost-vsock";

/// Identifiers 0 to 2 and the highest are reserved.
const FIRST_CID: u32 = 3;

/// Of four thousand million identifiers a handful are in use: a few attempts
/// fail only when something else is wrong.
const ATTEMPTS: u32 = 16;

/// An open vhost-vsock with its identifier claimed until it is closed.
#[derive(Debug)]
pub struct Claimed {
    /// The open device.
    pub fd: OwnedFd,
    /// The guest's context identifier.
    pub cid: u32,
}

/// Opens the device and claims a random identifier; `None` where the kernel has
/// no vhost-vsock.
///
/// # Errors
/// [`VsockError::Open`] or [`VsockError::NoCid`].
pub fn claim(device: &Path) -> Result<Option<Claimed>, VsockError> {
    let open = |source| VsockError::Open { path: device.to_owned(), source };
    let file = match OpenOptions::new().read(true).write(true).open(device) {
        Ok(file) => file,
        // ENXIO and ENODEV: a node without its driver.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENXIO | nix::libc::ENODEV)) => return Ok(None),
        Err(source) => return Err(open(source)),
    };
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..ATTEMPTS {
        let cid = random_cid().map_err(open)?;
        match sys::claim_cid(file.as_fd(), cid) {
            Ok(()) => return Ok(Some(Claimed { fd: file.into(), cid })),
            Err(error) => last = error,
        }
    }
    Err(VsockError::NoCid { attempts: ATTEMPTS, source: last })
}

fn random_cid() -> io::Result<u32> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(cid_from(u32::from_ne_bytes(bytes)))
}

fn cid_from(random: u32) -> u32 {
    FIRST_CID + random % (u32::MAX - FIRST_CID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_identifiers_are_never_chosen() {
        for (random, want) in [(0, 3), (1, 4), (u32::MAX - 4, u32::MAX - 1), (u32::MAX - 3, 3), (u32::MAX, 6)] {
            assert_eq!(cid_from(random), want, "{random}");
        }
    }

    #[test]
    fn a_kernel_without_the_device_is_no_error() {
        assert!(claim(Path::new("/dev/no-such-vhost-vsock")).unwrap().is_none());
    }

    #[test]
    fn a_device_that_is_something_else_is_an_error() {
        let error = claim(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, VsockError::NoCid { .. }), "{error:?}");
    }
}
