//! What can go wrong with the shared tree.

use std::{fmt, io, path::PathBuf};

use osc_agent_protocol::{Kind, kind::chain};

use crate::id::{ContainerId, SandboxId};

/// A file that could not be shared, or a tree that could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The root file system is not there any more.
    #[error("root file system {} of container {container} is gone: create the container again", path.display())]
    RootfsGone {
        /// The container.
        container: ContainerId,
        /// Where it should be.
        path: PathBuf,
    },
    /// The source of a volume is not there.
    #[error("volume {} for {destination} does not exist", path.display())]
    SourceGone {
        /// Host path.
        path: PathBuf,
        /// Path in the container.
        destination: String,
    },
    /// A disk where only files can be shared.
    #[error("{} is a block device: raw block volumes and privileged pods with host devices are not supported; use a \
             file system volume, or set privileged_without_host_devices in the engine", path.display())]
    BlockDevice {
        /// Host path.
        path: PathBuf,
    },
    /// A mount with an own mapping of user ids.
    #[error(
        "volume for {destination} has an id mapping, which the shared file system cannot express: \
             run the pod without hostUsers: false"
    )]
    IdMapped {
        /// Path in the container.
        destination: String,
    },
    /// The container has its files already.
    #[error("container {container} already has files in the tree of sandbox {sandbox}")]
    Exists {
        /// The sandbox.
        sandbox: SandboxId,
        /// The container.
        container: ContainerId,
    },
    /// An operation on one path failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is still mounted in a tree that should be empty.
    #[error("{} is still a mount: unmount it, then delete the sandbox again", path.display())]
    StillMounted {
        /// The mount point.
        path: PathBuf,
    },
    /// Something in the tree was not put there by the runtime.
    #[error("{} was not put there by the runtime and is left alone: look at it, then remove it", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// Clean-up tried every step; these failed.
    #[error("clean-up of {what} is incomplete: {}", Chains(failures))]
    Incomplete {
        /// What was cleaned up.
        what: String,
        /// Every failure.
        failures: Vec<ShareError>,
    },
}

impl ShareError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::RootfsGone { .. } | Self::SourceGone { .. } => Kind::NotFound,
            Self::BlockDevice { .. } | Self::IdMapped { .. } => Kind::Unsupported,
            Self::Exists { .. } | Self::StillMounted { .. } | Self::Foreign { .. } => Kind::Busy,
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Incomplete { failures, .. } => failures.first().map_or(Kind::Bug, Self::kind),
        }
    }

    /// Wraps the error of `action` on `path`.
    pub(super) fn io<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

/// All `failures` of a clean-up of `what` as one error.
pub(super) fn incomplete(what: impl fmt::Display, failures: Vec<ShareError>) -> Result<(), ShareError> {
    if failures.is_empty() { Ok(()) } else { Err(ShareError::Incomplete { what: what.to_string(), failures }) }
}

struct Chains<'a>(&'a [ShareError]);

impl fmt::Display for Chains<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, failure) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n > 0 { "; " } else { "" }, chain(failure))?;
        }
        Ok(())
    }
}
