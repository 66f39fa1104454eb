//! What can go wrong between the host and a guest's stream sockets.

use std::{io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

use super::address::Address;

/// Failures of a sandbox's vsock device and of dialling through it.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The kernel's device exists and cannot be used.
    #[error("cannot open {}: check its permissions, or unload vhost_vsock to use the device of this process", path.display())]
    Open {
        /// The device node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Every context identifier tried is taken, or the kernel refused one.
    #[error("no free vsock context identifier after {attempts} attempts: look for leaked virtual machines")]
    NoCid {
        /// How many identifiers were tried.
        attempts: u32,
        /// What the kernel said to the last one.
        source: io::Error,
    },
    /// A socket of the device in this process cannot be made.
    #[error("cannot listen on {}: check that the sandbox directory exists and is writable", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device in this process cannot be started.
    #[error("cannot start the vsock device: check the limits on threads and open files")]
    Start {
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody accepted in time.
    #[error("nobody answered on {address} within {waited:?}: read the guest console")]
    Silent {
        /// What was dialled.
        address: Address,
        /// How long.
        waited: Duration,
        /// Why the last attempt failed, when it failed rather than hung.
        source: Option<io::Error>,
    },
    /// The virtual machine closed the device.
    #[error("the virtual machine behind {address} is gone: read the log of its monitor process")]
    Gone {
        /// What was dialled.
        address: Address,
    },
}

impl VsockError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open { source, .. } | Self::Listen { source, .. } | Self::Start { source } => Kind::of_io(source),
            Self::NoCid { .. } | Self::Gone { .. } => Kind::Unavailable,
            Self::Silent { .. } => Kind::Timeout,
        }
    }
}
