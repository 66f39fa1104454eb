//! What can go wrong while a controller works, and how bad it is.

use std::{fmt::Display, time::Duration};

/// Failure of one reconciliation. It is retried with back-off, so it is never final.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused a request or could not be reached.
    #[error("{verb} {object} failed; it is retried")]
    Api {
        /// What was tried, for example `create pod of`.
        verb: &'static str,
        /// The object it was tried on.
        object: String,
        /// Answer of the API or of the transport.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object holds something no controller can act on.
    #[error("{object}: {field} is unusable ({problem}); correct the object")]
    Invalid {
        /// Kind and name.
        object: String,
        /// Path of the field.
        field: &'static str,
        /// Why it is unusable.
        problem: String,
    },
    /// A reconciliation did not end in time and was dropped.
    #[error("{controller} gave up on {key} after {limit:?}; is the API overloaded?")]
    Timeout {
        /// Name of the controller.
        controller: &'static str,
        /// Key of the object.
        key: String,
        /// The limit that was passed.
        limit: Duration,
    },
}

/// Coarse class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object is gone.
    NotFound,
    /// Somebody else changed the object first.
    Busy,
    /// The object cannot be acted on.
    Invalid,
    /// The controller lacks a permission.
    Denied,
    /// Too slow.
    Timeout,
    /// The API cannot be reached or is overloaded.
    Unavailable,
    /// Anything else.
    Bug,
}

impl Error {
    /// Class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Api { source, .. } => match status_code(source) {
                Some(404) => ErrorKind::NotFound,
                Some(409) => ErrorKind::Busy,
                Some(400 | 422) => ErrorKind::Invalid,
                Some(401 | 403) => ErrorKind::Denied,
                Some(408 | 504) => ErrorKind::Timeout,
                Some(429 | 500..=599) | None => ErrorKind::Unavailable,
                Some(_) => ErrorKind::Bug,
            },
        }
    }

    /// The message an API server attached, for events and conditions.
    pub(crate) fn api_message(&self) -> String {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }

    /// Whether the namespace of the object is being deleted: creating there is pointless.
    pub(crate) fn namespace_terminating(&self) -> bool {
        let Self::Api { source, .. } = self else { return false };
        let kube::Error::Api(status) = source.as_ref() else { return false };
        status.code == 403
            && (status.message.contains("is being terminated")
                || status
                    .details
                    .as_ref()
                    .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")))
    }
}

/// HTTP code of an API failure; `None` for transport trouble.
pub(crate) fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Attaches what was tried, and on what, to an answer of the client.
pub(crate) trait Attempt<T> {
    /// Names the attempt.
    fn during(self, verb: &'static str, object: impl Display) -> Result<T, Error>;
    /// Like [`during`](Self::during); an object that is gone is `None`, not a failure.
    fn unless_gone(self, verb: &'static str, object: impl Display) -> Result<Option<T>, Error>;
}

impl<T> Attempt<T> for Result<T, kube::Error> {
    fn during(self, verb: &'static str, object: impl Display) -> Result<T, Error> {
        self.map_err(|source| Error::Api { verb, object: object.to_string(), source: Box::new(source) })
    }

    fn unless_gone(self, verb: &'static str, object: impl Display) -> Result<Option<T>, Error> {
        match self {
            Err(error) if status_code(&error) == Some(404) => Ok(None),
            other => other.during(verb, object).map(Some),
        }
    }
}

/// An error with its causes, for one field of a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
