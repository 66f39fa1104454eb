//! What can go wrong with a sandbox.

use std::{io, path::PathBuf};

use osc_agent_protocol::Kind;

use crate::{container, device::DeviceError, storage::StorageError};

/// A sandbox operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// An identifier cannot be a path component.
    #[error(
        "identifier {id:?} is not usable: 1 to 128 letters, digits, '_', '.' or '-', beginning with a letter or digit"
    )]
    Id {
        /// As given.
        id: String,
    },
    /// This guest has a sandbox already.
    #[error("this guest already runs a sandbox: start another virtual machine")]
    Exists,
    /// There is no sandbox yet.
    #[error("this guest has no sandbox: create it before its containers")]
    Missing,
    /// The sandbox is gone.
    #[error("the sandbox is being taken down")]
    Leaving,
    /// No container of this name.
    #[error("no container {id:?} in this sandbox: it was never created or has been removed")]
    NoContainer {
        /// The name.
        id: String,
    },
    /// The name is taken.
    #[error("container {id:?} exists already: remove it first")]
    ContainerExists {
        /// The name.
        id: String,
    },
    /// Another request is making or removing this container.
    #[error("container {id:?} is being created or removed: try again")]
    ContainerBusy {
        /// The name.
        id: String,
    },
    /// The request names no specification.
    #[error("container {id:?} comes without a specification")]
    NoSpec {
        /// The name.
        id: String,
    },
    /// The shared pid namespace ended with the container that began it.
    #[error("container {id:?} wants the sandbox's pid namespace, but no container has begun one")]
    NoPidNamespace {
        /// The name.
        id: String,
    },
    /// A feature of the request this agent does not have.
    #[error("container {id:?} asks for {feature}, which this agent does not support")]
    Unsupported {
        /// The container.
        id: String,
        /// What it asks for.
        feature: &'static str,
    },
    /// A storage could not be made.
    #[error("cannot prepare the storages")]
    Storage(#[source] StorageError),
    /// A device could not be found.
    #[error("cannot prepare the devices of container {id:?}")]
    Device {
        /// The container.
        id: String,
        /// Why.
        source: DeviceError,
    },
    /// The container operation failed. Its text stands alone: runtimes show it.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// A namespace could not be made.
    #[error("cannot {action} for the sandbox's namespaces")]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file or directory of the sandbox could not be prepared.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A kernel module could not be loaded.
    #[error("cannot load kernel module {name:?}: {said}; check that the guest image carries it")]
    Module {
        /// Its name.
        name: String,
        /// What `modprobe` said.
        said: String,
    },
    /// `modprobe` could not be run.
    #[error("cannot run modprobe for kernel module {name:?}")]
    Modprobe {
        /// The module.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A thread ended without an answer.
    #[error("work on the sandbox ended without a result: report this with the agent's log")]
    Died,
}

impl SandboxError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Id { .. } | Self::NoSpec { .. } | Self::NoPidNamespace { .. } => Kind::Invalid,
            Self::Exists | Self::ContainerExists { .. } | Self::ContainerBusy { .. } => Kind::Busy,
            Self::NoContainer { .. } => Kind::NotFound,
            Self::Missing | Self::Leaving => Kind::Unavailable,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::Storage(source) => source.kind(),
            Self::Device { source, .. } => source.kind(),
            Self::Container(source) => source.kind(),
            Self::Namespace { source, .. } | Self::File { source, .. } | Self::Modprobe { source, .. } => {
                Kind::of_io(source)
            }
            Self::Module { .. } | Self::Died => Kind::Bug,
        }
    }
}
