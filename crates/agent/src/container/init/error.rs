//! Why a container cannot be built, in words for whoever asked for it.

use std::{fmt, io};

use osc_agent_protocol::Kind;

/// A step of the set-up that failed. Crosses to the agent as kind and text.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A system call failed.
    #[error("{action} {object}")]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// The program is not there.
    #[error("exec: {name:?}: {reason}")]
    Program {
        /// As given in the arguments.
        name: String,
        /// In the words people know from other runtimes.
        reason: &'static str,
        /// `NotFound` or `Denied`.
        kind: Kind,
    },
    /// A value of the specification can never work.
    #[error("{field} {value:?} is not usable: {reason}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// The value found.
        value: String,
        /// What would be allowed.
        reason: &'static str,
    },
    /// A failed hook or an unusable filter, which the agent knows in the same words.
    #[error(transparent)]
    Known(#[from] crate::container::Error),
}

impl SetupError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::System { source, .. } => Kind::of_io(source),
            Self::Program { kind, .. } => *kind,
            Self::Invalid { .. } => Kind::Invalid,
            Self::Known(error) => error.kind(),
        }
    }
}

/// Turns a system error into one that says what was tried on what.
pub fn during<E: Into<io::Error>>(action: &'static str, object: impl fmt::Display) -> impl FnOnce(E) -> SetupError {
    move |error| SetupError::System { action, object: object.to_string(), source: error.into() }
}
