//! Failed calls.

use std::time::Duration;

use osc_agent_protocol::Kind;
use tonic::{Code, Status};

/// A call the engine did not fulfil.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// It said no.
    #[error("{call} of {object}: {message}")]
    Refused {
        /// The call, in snake case.
        call: &'static str,
        /// What it was about.
        object: String,
        /// The engine's own words.
        message: String,
        /// The engine's status code.
        code: Code,
    },
    /// It did not answer in time.
    #[error("{call} of {object}: no answer within {waited:?}; look into the log of containerd")]
    Silent {
        /// The call, in snake case.
        call: &'static str,
        /// What it was about.
        object: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl CriError {
    pub(super) fn refused(call: &'static str, object: &str, status: &Status) -> Self {
        Self::Refused { call, object: object.to_owned(), message: status.message().to_owned(), code: status.code() }
    }

    /// What kind of failure this is. Engines report most failures as `Unknown`:
    /// something they rely on did not work.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Silent { .. } => Kind::Timeout,
            Self::Refused { code, .. } => match code {
                Code::NotFound => Kind::NotFound,
                Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Kind::Busy,
                Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
                Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
                Code::DeadlineExceeded | Code::Cancelled => Kind::Timeout,
                Code::Unavailable | Code::ResourceExhausted | Code::Unknown => Kind::Unavailable,
                Code::Unimplemented => Kind::Unsupported,
                _ => Kind::Bug,
            },
        }
    }

    /// Whether the engine could not even be asked.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Refused { code: Code::Unavailable | Code::Cancelled, .. } | Self::Silent { .. })
    }

    /// Whether the object does not exist, which teardown counts as done.
    pub fn is_not_found(&self) -> bool {
        self.kind() == Kind::NotFound
    }
}
