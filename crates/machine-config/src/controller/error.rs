//! What can go wrong while the controller works. Rounds are repeated, so nothing
//! is final.

use std::{fmt::Display, time::Duration};

/// Longest answer of the API.
const ANSWER: Duration = Duration::from_secs(30);

/// A round that failed.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The API refused.
    #[error("cannot {verb} {object}; it is tried again")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// The API did not answer.
    #[error("cannot {verb} {object}: no answer within {ANSWER:?}; is the API overloaded?")]
    Silent {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
    },
    /// A round took too long.
    #[error("a round took more than {0:?}; is the API overloaded?")]
    Slow(Duration),
}

impl ControllerError {
    /// Whether somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Waits for an answer of the API, not for ever.
pub(super) async fn ask<T>(
    verb: &'static str,
    object: impl Display,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ControllerError> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => {
            answer.map_err(|source| ControllerError::Api { verb, object: object.to_string(), source: Box::new(source) })
        }
        Err(_) => Err(ControllerError::Silent { verb, object: object.to_string() }),
    }
}

/// Takes an object that is gone already, or there already, for success.
pub(super) fn unless<T>(code: u16, result: Result<T, ControllerError>) -> Result<Option<T>, ControllerError> {
    match result {
        Err(error) if error.code() == Some(code) => Ok(None),
        other => other.map(Some),
    }
}
