//! What kind of failure an error is, independent of its text.
//!
//! RPC codes, condition reasons, exit codes and retries derive from the [`Kind`]
//! and from nothing else; people read the [`chain`].

/// The kinds every public error answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named object does not exist.
    NotFound,
    /// The object exists but is in use or already exists; try again later.
    Busy,
    /// The request can never succeed as it stands.
    Invalid,
    /// Policy or permission forbids it.
    Denied,
    /// A deadline passed.
    Timeout,
    /// A component that is needed is not there or went away.
    Unavailable,
    /// The feature does not exist here.
    Unsupported,
    /// An invariant of ours broke.
    Bug,
}

impl Kind {
    /// The kind of an operating-system error.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        match error.kind() {
            E::NotFound => Self::NotFound,
            E::PermissionDenied => Self::Denied,
            E::AlreadyExists | E::ResourceBusy | E::WouldBlock => Self::Busy,
            E::InvalidInput | E::InvalidData => Self::Invalid,
            E::TimedOut => Self::Timeout,
            E::Unsupported => Self::Unsupported,
            E::ConnectionRefused | E::ConnectionReset | E::BrokenPipe | E::UnexpectedEof | E::StorageFull => {
                Self::Unavailable
            }
            _ => Self::Bug,
        }
    }

    /// The kind of an answer of an API server; no code means that none came.
    pub fn of_http(code: Option<u16>) -> Self {
        match code {
            Some(404) => Self::NotFound,
            Some(409) => Self::Busy,
            Some(400 | 422) => Self::Invalid,
            Some(401 | 403) => Self::Denied,
            Some(408 | 504) => Self::Timeout,
            Some(429 | 500..=599) | None => Self::Unavailable,
            Some(_) => Self::Bug,
        }
    }
}

/// An error and everything that caused it, on one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn answers_of_an_api_server_by_code() {
        for (code, kind) in [
            (Some(400), Kind::Invalid),
            (Some(403), Kind::Denied),
            (Some(404), Kind::NotFound),
            (Some(409), Kind::Busy),
            (Some(410), Kind::Bug),
            (Some(429), Kind::Unavailable),
            (Some(503), Kind::Unavailable),
            (Some(504), Kind::Timeout),
            (None, Kind::Unavailable),
        ] {
            assert_eq!(Kind::of_http(code), kind, "{code:?}");
        }
    }

    #[test]
    fn causes_follow_the_error_they_caused() {
        #[derive(Debug)]
        struct Outer(io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("cannot read the template")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(chain(&Outer(io::Error::other("disk gone"))), "cannot read the template: disk gone");
    }
}
