//! Why a request failed, and how the engine is told.

use std::{io, path::PathBuf};

use osc_agent_protocol::{Kind, kind::chain};
use osc_runtime::{
    config::ConfigError,
    id::BadId,
    sandbox::SandboxError,
    spec::{KindError, SpecError},
};
use ttrpc::{Code, get_status};

use crate::{io::IoError, options::BadOptions, service::rootfs::RootfsError};

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// An id is not usable.
    #[error(transparent)]
    Id(#[from] BadId),
    /// The options of the runtime are damaged.
    #[error(transparent)]
    Options(#[from] BadOptions),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Annotations contradict themselves.
    #[error(transparent)]
    Kind(#[from] KindError),
    /// The container's specification is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A stream cannot be opened.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The root file system cannot be mounted.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The sandbox could not do it.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// No such container or process in this shim.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The container is in this shim already.
    #[error("container {0} exists already")]
    Exists(String),
    /// A message of a type that is not understood.
    #[error("a message of type {seen:?} cannot be used here: {want} is expected")]
    Type {
        /// Type URL of the message.
        seen: String,
        /// What is expected.
        want: &'static str,
    },
    /// A call that does not exist here.
    #[error("{0} is not supported for sandboxed containers")]
    Unsupported(&'static str),
    /// A file of the bundle cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The work on a request ended without an answer.
    #[error("the request was given up: the shim is ending")]
    GivenUp,
}

impl ShimError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Id(_) | Self::Type { .. } => Kind::Invalid,
            Self::Options(error) => error.kind(),
            Self::Config(error) => error.kind(),
            Self::Kind(error) => error.kind(),
            Self::Spec(error) => error.kind(),
            Self::Io(error) => error.kind(),
            Self::Rootfs(error) => error.kind(),
            Self::Sandbox(error) => error.kind(),
            Self::NotFound(_) => Kind::NotFound,
            Self::Exists(_) => Kind::Busy,
            Self::Unsupported(_) => Kind::Unsupported,
            Self::File { source, .. } => Kind::of_io(source),
            Self::GivenUp => Kind::Unavailable,
        }
    }

    /// The answer on the wire: the codes engines act on, and "unknown" with the
    /// whole text for everything else.
    pub fn to_wire(&self) -> ttrpc::Error {
        let code = match self.kind() {
            Kind::NotFound => Code::NOT_FOUND,
            Kind::Invalid => Code::INVALID_ARGUMENT,
            Kind::Unsupported => Code::UNIMPLEMENTED,
            _ => Code::UNKNOWN,
        };
        ttrpc::Error::RpcStatus(get_status(code, chain(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_get_the_codes_they_act_on() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        for (error, want) in [
            (ShimError::NotFound("c1".into()), Code::NOT_FOUND),
            (ShimError::Type { seen: "x".into(), want: "y" }, Code::INVALID_ARGUMENT),
            (ShimError::Unsupported("checkpoint"), Code::UNIMPLEMENTED),
            (ShimError::Exists("c1".into()), Code::UNKNOWN),
            (ShimError::File { action: "read", path: "/x".into(), source: denied }, Code::UNKNOWN),
        ] {
            let ttrpc::Error::RpcStatus(status) = error.to_wire() else { panic!("{error}") };
            assert_eq!(status.code(), want, "{error}");
            assert!(!status.message.is_empty());
        }
    }
}
