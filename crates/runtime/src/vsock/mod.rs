//! Streams from the host to a guest.
//!
//! A sandbox has one vsock device. Where the kernel has vhost-vsock it is the
//! kernel's; elsewhere it is a thread of this process ([`device`]). Callers see
//! no difference: [`Vsock::connect`] reaches a port of the guest, retrying until
//! something listens there, and [`Vsock::address`] tells other programs how to.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

pub use self::{
    address::{Address, BadAddress},
    error::VsockError,
    stream::{VsockStream, dial},
};
use self::{device::Device, kernel::Claimed};
use crate::{deadline::Deadline, qemu::VsockDevice, socket};

mod address;
mod device;
mod error;
mod kernel;
mod stream;
mod sys;

/// Socket QEMU connects to, in the sandbox directory.
const QEMU_SOCKET: &str = "vhost-vsock.sock";
/// Socket host programs connect to, in the sandbox directory.
const DIAL_SOCKET: &str = "vsock.sock";

/// The vsock device of one sandbox. Dropping it closes every stream made
/// through the device of this process and removes its sockets.
#[derive(Debug)]
pub struct Vsock {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Kernel(Claimed),
    User { device: Device, qemu: PathBuf, dial: PathBuf },
}

impl Vsock {
    /// Opens the kernel's device, or starts one in this process with its sockets
    /// in `dir`, which must exist.
    ///
    /// # Errors
    /// See [`VsockError`]; nothing is left behind.
    pub fn open(dir: &Path) -> Result<Self, VsockError> {
        match kernel::claim(Path::new(kernel::DEVICE))? {
            Some(claimed) => Ok(Self { kind: Kind::Kernel(claimed) }),
            None => Self::open_user(dir),
        }
    }

    fn open_user(dir: &Path) -> Result<Self, VsockError> {
        let (qemu, dial) = (dir.join(QEMU_SOCKET), dir.join(DIAL_SOCKET));
        let listen =
            |path: &Path| socket::listen(path).map_err(|source| VsockError::Listen { path: path.to_owned(), source });
        let started = listen(&qemu).and_then(|for_qemu| {
            let for_dialling = listen(&dial)?;
            Device::start(for_qemu, for_dialling).map_err(|source| VsockError::Start { source })
        });
        match started {
            Ok(device) => Ok(Self { kind: Kind::User { device, qemu, dial } }),
            Err(error) => {
                remove(&qemu);
                remove(&dial);
                Err(error)
            }
        }
    }

    /// The device QEMU is to be started with.
    ///
    /// # Errors
    /// [`VsockError::Open`] when the descriptor cannot be duplicated.
    pub fn device(&self) -> Result<VsockDevice, VsockError> {
        match &self.kind {
            Kind::User { qemu, .. } => Ok(VsockDevice::User { socket: qemu.clone() }),
            Kind::Kernel(Claimed { fd, cid }) => {
                let fd: OwnedFd =
                    fd.try_clone().map_err(|source| VsockError::Open { path: kernel::DEVICE.into(), source })?;
                Ok(VsockDevice::Kernel { fd, cid: *cid })
            }
        }
    }

    /// Where any program on this host reaches `port` of the guest.
    pub fn address(&self, port: u32) -> Address {
        match &self.kind {
            Kind::Kernel(claimed) => Address::Vsock { cid: claimed.cid, port },
            Kind::User { dial, .. } => Address::Hybrid { path: dial.clone(), port },
        }
    }

    /// Connects to `port` of the guest, waiting for the guest to boot and for
    /// something to listen there. Cancel-safe.
    ///
    /// # Errors
    /// [`VsockError::Silent`] when the deadline passes, [`VsockError::Gone`] when
    /// the virtual machine ends first.
    pub async fn connect(&self, port: u32, by: Deadline) -> Result<VsockStream, VsockError> {
        let address = self.address(port);
        match &self.kind {
            Kind::Kernel(_) => dial(&address, by).await,
            Kind::User { device, .. } => tokio::select! {
                stream = dial(&address, by) => stream,
                () = device.ended() => Err(VsockError::Gone { address: address.clone() }),
            },
        }
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        if let Kind::User { device, qemu, dial } = &self.kind {
            device.stop();
            remove(qemu);
            remove(dial);
        }
    }
}

fn remove(socket: &Path) {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %socket.display(), error = %error, "cannot remove a vsock socket");
        }
        _ => {}
    }
}
