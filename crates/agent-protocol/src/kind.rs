//! How the kind of a failure crosses a ttrpc boundary.

use std::fmt;

pub use osc_fault::{Kind, chain};
use ttrpc::{Code, Status};

/// The gRPC status code that carries a kind.
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NOT_FOUND,
        Kind::Busy => Code::FAILED_PRECONDITION,
        Kind::Invalid => Code::INVALID_ARGUMENT,
        Kind::Denied => Code::PERMISSION_DENIED,
        Kind::Timeout => Code::DEADLINE_EXCEEDED,
        Kind::Unavailable => Code::UNAVAILABLE,
        Kind::Unsupported => Code::UNIMPLEMENTED,
        Kind::Bug => Code::INTERNAL,
    }
}

/// The kind a received code stands for; codes we never send count as `Bug`.
pub fn of_code(code: Code) -> Kind {
    match code {
        Code::NOT_FOUND => Kind::NotFound,
        Code::FAILED_PRECONDITION | Code::ALREADY_EXISTS | Code::ABORTED => Kind::Busy,
        Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => Kind::Invalid,
        Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => Kind::Denied,
        Code::DEADLINE_EXCEEDED | Code::CANCELLED => Kind::Timeout,
        Code::UNAVAILABLE | Code::RESOURCE_EXHAUSTED => Kind::Unavailable,
        Code::UNIMPLEMENTED => Kind::Unsupported,
        _ => Kind::Bug,
    }
}

/// The kind of an error returned by a ttrpc call.
pub fn of_ttrpc(error: &ttrpc::Error) -> Kind {
    match error {
        ttrpc::Error::RpcStatus(status) => of_code(status.code()),
        ttrpc::Error::Socket(_) | ttrpc::Error::RemoteClosed | ttrpc::Error::LocalClosed => Kind::Unavailable,
        _ => Kind::Bug,
    }
}

/// A ttrpc error of a kind.
pub fn status(kind: Kind, message: impl fmt::Display) -> ttrpc::Error {
    let mut status = Status::new();
    status.set_code(code(kind));
    status.set_message(message.to_string());
    ttrpc::Error::RpcStatus(status)
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
            assert_eq!(of_ttrpc(&status(kind, "x")), kind);
        }
    }
}
