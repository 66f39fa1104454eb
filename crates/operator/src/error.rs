//! What can go wrong in a pass. Nothing is final: passes are repeated.

use std::{fmt::Display, time::Duration};

/// Failure of one pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused a request or could not be reached.
    #[error("cannot {verb} {object}; it is tried again")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The object it was tried on.
        object: String,
        /// Answer of the API or of the transport.
        #[source]
        source: Box<kube::Error>,
    },
    /// A pass did not end in time.
    #[error("no end of a pass after {limit:?}; is the API overloaded?")]
    Timeout {
        /// The limit.
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
    /// The API does not take the object.
    Invalid,
    /// A right is missing.
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
        let Self::Api { source, .. } = self else { return ErrorKind::Timeout };
        match code(source) {
            Some(404) => ErrorKind::NotFound,
            Some(409) => ErrorKind::Busy,
            Some(400 | 422) => ErrorKind::Invalid,
            Some(401 | 403) => ErrorKind::Denied,
            Some(408 | 504) => ErrorKind::Timeout,
            Some(429 | 500..=599) | None => ErrorKind::Unavailable,
            Some(_) => ErrorKind::Bug,
        }
    }
}

/// HTTP code of a failure; `None` for transport trouble.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Attaches what was tried to an answer of the client.
pub(crate) trait Attempt<T> {
    /// Names the attempt.
    fn during(self, verb: &'static str, object: impl Display) -> Result<T, Error>;

    /// Names an attempt to read.
    fn reading(self, object: impl Display) -> Result<T, Error>
    where
        Self: Sized,
    {
        self.during("read", object)
    }
}

impl<T> Attempt<T> for Result<T, kube::Error> {
    fn during(self, verb: &'static str, object: impl Display) -> Result<T, Error> {
        self.map_err(|source| Error::Api { verb, object: object.to_string(), source: Box::new(source) })
    }
}

/// An error with its causes on one line.
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
