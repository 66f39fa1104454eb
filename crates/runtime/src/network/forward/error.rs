//! What can go wrong while ports are forwarded.

use std::{io, path::PathBuf};

use osc_agent_protocol::Kind;

use crate::{
    network::NetworkError,
    vsock::{Address, VsockError},
};

/// Why ports, or one connection, are not forwarded.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The agent has no relay.
    #[error("no relay answers at {guest}: the agent of the guest image does not forward ports; use the pod's address")]
    NoRelay {
        /// Where it was looked for.
        guest: Address,
        /// What was seen instead.
        source: VsockError,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The kernel cannot hand the connections over.
    #[error("loopback connections in {} cannot be steered: needs Linux 5.9 with CONFIG_BPF_SYSCALL, and CAP_BPF", netns.display())]
    Steer {
        /// The namespace.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No more connections are taken.
    #[error("the listener in {} has failed", netns.display())]
    Accept {
        /// The namespace.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing in the guest listens there.
    #[error("nothing in the sandbox listens on port {port}")]
    Refused {
        /// The port.
        port: u16,
    },
    /// One connection broke.
    #[error("a forwarded connection broke")]
    Stream {
        /// How.
        source: io::Error,
    },
}

impl ForwardError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoRelay { .. } | Self::Refused { .. } => Kind::Unavailable,
            Self::Network(error) => error.kind(),
            Self::Steer { source, .. } | Self::Accept { source, .. } | Self::Stream { source } => Kind::of_io(source),
        }
    }
}
