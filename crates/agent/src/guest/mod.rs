//! State of the guest as a machine: processors, memory, clock, files, volumes.

mod clock;
mod details;
mod files;
mod hotplug;
mod swap;
mod volume;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use osc_agent_protocol::Kind;

use crate::device::{BadAddress, DeviceError};

pub use clock::{reseed, set_time};
pub use details::details;
pub use files::{copy as copy_file, refresh_share, termination_message};
pub use hotplug::{online, probe_memory};
pub use swap::{add as add_swap, add_path as add_swap_path};
pub use volume::stats as volume_stats;

/// A request about the guest that failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A file could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A field does not hold what it must.
    #[error("{field} {value:?} is not usable: {wanted}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Processors were promised and did not come.
    #[error("{got} of {wanted} processors came online within {waited:?}: check that the host plugged them")]
    Processors {
        /// How many came.
        got: u32,
        /// How many should have.
        wanted: u32,
        /// How long they had.
        waited: Duration,
    },
    /// The clock cannot be set.
    #[error("cannot set the clock")]
    Clock(#[source] io::Error),
    /// A disk cannot be located.
    #[error("cannot locate the swap disk")]
    Address(#[source] BadAddress),
    /// A disk did not appear.
    #[error("the swap disk is missing")]
    Disk(#[source] DeviceError),
    /// A thread ended without an answer.
    #[error("work on the guest ended without a result: report this with the agent's log")]
    Died,
}

impl GuestError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { source, .. } | Self::Clock(source) => Kind::of_io(source),
            Self::Invalid { .. } | Self::Address(_) => Kind::Invalid,
            Self::Processors { .. } => Kind::Timeout,
            Self::Disk(source) => source.kind(),
            Self::Died => Kind::Bug,
        }
    }
}

type Result<T, E = GuestError> = std::result::Result<T, E>;

/// Runs work that may wait for a disk or the host.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| GuestError::Died)?
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GuestError {
    let path = path.to_path_buf();
    move |source| GuestError::File { action, path, source }
}
