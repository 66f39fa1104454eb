//! What can go wrong while a controller works, and how bad it is.

use std::{fmt::Display, time::Duration};

use osc_fault::Kind;

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

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::Invalid,
            Self::Timeout { .. } => Kind::Timeout,
            Self::Api { source, .. } => Kind::of_http(status_code(source)),
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
