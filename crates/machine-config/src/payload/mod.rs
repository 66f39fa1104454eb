//! The payload of the extension `sandboxed-containers` (`kata-containers` on
//! Fedora): shim, guest image and what else a sandbox needs.
//!
//! ```text
//! /opt/sandboxed-containers/<version>/     one directory per version, never changed
//! /opt/sandboxed-containers/current        link to the one new pods use
//! ```
//!
//! A version is installed beside the others and used from the moment the link is
//! replaced. Pods that run keep the files they were started with: a version goes
//! only when no process uses it.

mod manifest;
mod stage;
pub(crate) mod store;
mod usage;

use std::{io, path::PathBuf};

pub use manifest::{Item, Manifest, Part, pack};
pub use stage::stage;
pub use store::{Collected, Store};

/// The shim inside a version; the one file a payload must have besides
/// [`CONFIGURATION`].
pub const SHIM: &str = "bin/containerd-shim-kata-v2";
/// The shim's configuration inside a version.
pub const CONFIGURATION: &str = "configuration.toml";
/// Stands for the directory of the version in files that are marked so.
pub const PLACE: &str = "@PAYLOAD@";

/// A payload that cannot be packed, installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The manifest means nothing.
    #[error("{} is damaged: install the payload again", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The manifest asks for something it must not.
    #[error("{}: {problem}: install the payload again", path.display())]
    Unusable {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file is not what the manifest says.
    #[error("{} is not what its manifest says: install the payload again", path.display())]
    Differs {
        /// The file.
        path: PathBuf,
    },
}

pub(crate) fn on(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PayloadError {
    let path = path.into();
    move |source| PayloadError::Io { action, path, source }
}
