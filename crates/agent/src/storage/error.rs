//! What can go wrong with a storage.

use std::{io, path::PathBuf};

use nix::errno::Errno;
use osc_agent_protocol::Kind;

use crate::device::{BadAddress, DeviceError};

/// A storage that cannot be made, changed or undone.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nobody serves this driver.
    #[error("storage driver {driver:?} is not supported: the agent's details list those that are")]
    Unsupported {
        /// Name the host used.
        driver: String,
    },
    /// A driver option asks for something this guest does not have.
    #[error("storage at {} asks for {option:?}, which this guest cannot do: {cure}", path.display())]
    Option {
        /// Mount point.
        path: PathBuf,
        /// The option.
        option: String,
        /// What to do instead.
        cure: &'static str,
    },
    /// The mount point is relative or climbs.
    #[error("mount point {} is not usable: give an absolute path without \"..\"", path.display())]
    MountPoint {
        /// As given.
        path: PathBuf,
    },
    /// The address of a disk does not follow its driver's grammar.
    #[error("the disk of the storage at {} cannot be located", path.display())]
    Address {
        /// Mount point.
        path: PathBuf,
        /// Why.
        source: BadAddress,
    },
    /// The disk did not appear.
    #[error("the disk of the storage at {} is missing", path.display())]
    Disk {
        /// Mount point.
        path: PathBuf,
        /// Why.
        source: DeviceError,
    },
    /// The kernel refused to mount.
    #[error("cannot mount {source_name:?} of type {fstype:?} at {}: check type, options and that the source exists", path.display())]
    Mount {
        /// What was to be mounted.
        source_name: String,
        /// File system type.
        fstype: String,
        /// Mount point.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The kernel refused to unmount.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        /// Mount point.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A file or directory could not be prepared.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guest has no room for the huge pages a volume needs.
    #[error("guest has {got} of {wanted} huge pages of {page_kib} KiB: give the sandbox more memory")]
    HugePages {
        /// Size of a page.
        page_kib: u64,
        /// Pages needed altogether.
        wanted: u64,
        /// Pages the kernel could free.
        got: u64,
    },
    /// The thread that did the work ended without an answer.
    #[error("work on a storage ended without a result: report this with the agent's log")]
    Died,
}

impl StorageError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unsupported { .. } | Self::Option { .. } => Kind::Unsupported,
            Self::MountPoint { .. } | Self::Address { .. } => Kind::Invalid,
            Self::Disk { source, .. } => source.kind(),
            Self::Mount { source, .. } | Self::Unmount { source, .. } => Kind::of_io(&(*source).into()),
            Self::File { source, .. } => Kind::of_io(source),
            Self::HugePages { .. } => Kind::Unavailable,
            Self::Died => Kind::Bug,
        }
    }
}
