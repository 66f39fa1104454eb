//! What can go wrong while a pod's network is handed to its guest.

use std::{io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

/// Failures of attaching, detaching and cleaning up a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The namespace cannot be entered.
    #[error("cannot enter network namespace {}: check that it still exists", netns.display())]
    Enter {
        /// The namespace.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The namespace is the host's own.
    #[error("{} is the network namespace of the host: a sandbox needs one of its own, so unset hostNetwork", netns.display())]
    Host {
        /// The namespace.
        netns: PathBuf,
    },
    /// The kernel refused a request about an interface.
    #[error("cannot {action} in network namespace {}: check it with `ip` and `tc` there", netns.display())]
    Netlink {
        /// What was asked.
        action: String,
        /// The namespace.
        netns: PathBuf,
        /// What the kernel said.
        source: Box<rtnetlink::Error>,
    },
    /// A tap device cannot be opened or configured.
    #[error("cannot {action}: check that {} exists and that this process may use it", device.display())]
    Tap {
        /// What was tried.
        action: String,
        /// The device node.
        device: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not answer in time.
    #[error("network namespace {} not ready within {waited:?}: look for kernel tasks holding the network lock", netns.display())]
    Slow {
        /// The namespace.
        netns: PathBuf,
        /// How long.
        waited: Duration,
    },
}

impl NetworkError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Enter { source, .. } | Self::Tap { source, .. } => Kind::of_io(source),
            Self::Host { .. } => Kind::Invalid,
            Self::Netlink { source, .. } => match &**source {
                rtnetlink::Error::NetlinkError(message) => Kind::of_io(&message.to_io()),
                _ => Kind::Bug,
            },
            Self::Slow { .. } => Kind::Timeout,
        }
    }
}
