//! What kind of failure an error is, independent of its text.

use std::fmt;

use ttrpc::{Code, Status};

/// The kinds every public error answers with. RPC codes, condition reasons,
/// exit codes and retries derive from the kind and from nothing else.
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
    /// The gRPC status code that carries this kind across a ttrpc boundary.
    pub fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NOT_FOUND,
            Self::Busy => Code::FAILED_PRECONDITION,
            Self::Invalid => Code::INVALID_ARGUMENT,
            Self::Denied => Code::PERMISSION_DENIED,
            Self::Timeout => Code::DEADLINE_EXCEEDED,
            Self::Unavailable => Code::UNAVAILABLE,
            Self::Unsupported => Code::UNIMPLEMENTED,
            Self::Bug => Code::INTERNAL,
        }
    }

    /// The kind a received code stands for; codes we never send count as `Bug`.
    pub fn from_code(code: Code) -> Self {
        match code {
            Code::NOT_FOUND => Self::NotFound,
            Code::FAILED_PRECONDITION | Code::ALREADY_EXISTS | Code::ABORTED => Self::Busy,
            Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => Self::Invalid,
            Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => Self::Denied,
            Code::DEADLINE_EXCEEDED | Code::CANCELLED => Self::Timeout,
            Code::UNAVAILABLE | Code::RESOURCE_EXHAUSTED => Self::Unavailable,
            Code::UNIMPLEMENTED => Self::Unsupported,
            _ => Self::Bug,
        }
    }

    /// The kind of an error returned by a ttrpc call.
    pub fn of_ttrpc(error: &ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => Self::from_code(status.code()),
            ttrpc::Error::Socket(_) | ttrpc::Error::RemoteClosed | ttrpc::Error::LocalClosed => Self::Unavailable,
            _ => Self::Bug,
        }
    }

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

    /// A ttrpc error of this kind.
    pub fn status(self, message: impl fmt::Display) -> ttrpc::Error {
        let mut status = Status::new();
        status.set_code(self.code());
        status.set_message(message.to_string());
        ttrpc::Error::RpcStatus(status)
    }
}

/// An error and everything that caused it, on one line, outermost first.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
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
    use super::*;

    #[test]
    fn a_kind_survives_the_wire() {
        for kind in [
            Kind::NotFound,
            Kind::Busy,
            Kind::Invalid,
            Kind::Denied,
            Kind::Timeout,
            Kind::Unavailable,
            Kind::Unsupported,
            Kind::Bug,
        ] {
            assert_eq!(Kind::of_ttrpc(&kind.status("x")), kind);
        }
    }
}
