//! What can go wrong in a pass. Nothing is final: passes are repeated.

use std::{fmt::Display, time::Duration};

use osc_fault::Kind;

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

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        let Self::Api { source, .. } = self else { return Kind::Timeout };
        Kind::of_http(code(source))
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
