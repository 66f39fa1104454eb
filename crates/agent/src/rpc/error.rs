//! Any failure, on its way to the host.

use osc_agent_protocol::{Kind, kind, kind::chain};

use crate::{
    container, guest::GuestError, metrics::MetricsError, network::NetworkError, sandbox::SandboxError,
    storage::StorageError,
};

/// A request that failed, whatever it was about. Each part keeps its own words.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// About the sandbox or the existence of a container.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// About one container.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// About a storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// About the network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// About the guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// About the metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The method is part of the protocol, but not of this agent.
    #[error("{method} is not implemented: {cure}")]
    Unimplemented {
        /// Its name.
        method: &'static str,
        /// What to do instead.
        cure: &'static str,
    },
    /// The task that did the work ended without an answer.
    #[error("work on a request ended without a result: report this with the agent's log")]
    Died,
}

impl RequestError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sandbox(error) => error.kind(),
            Self::Container(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Guest(error) => error.kind(),
            Self::Metrics(error) => error.kind(),
            Self::Unimplemented { .. } => Kind::Unsupported,
            Self::Died => Kind::Bug,
        }
    }

    /// The status that carries it to the host, with the whole chain of causes.
    pub(super) fn status(&self) -> ttrpc::Error {
        kind::status(self.kind(), chain(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_contract() {
        let id = || "c".to_owned();
        for (error, code) in [
            (SandboxError::Id { id: id() }.into(), ttrpc::Code::INVALID_ARGUMENT),
            (SandboxError::NoContainer { id: id() }.into(), ttrpc::Code::NOT_FOUND),
            (container::Error::NoProcess { container: id(), exec: id() }.into(), ttrpc::Code::NOT_FOUND),
            (container::Error::NoTerminal { container: id(), exec: id() }.into(), ttrpc::Code::UNAVAILABLE),
            (RequestError::Unimplemented { method: "ResizeVolume", cure: "" }, ttrpc::Code::UNIMPLEMENTED),
            (RequestError::Died, ttrpc::Code::INTERNAL),
        ] {
            let error: RequestError = error;
            let ttrpc::Error::RpcStatus(status) = error.status() else { panic!("{error}") };
            assert_eq!(status.code(), code, "{error}");
        }
    }
}
