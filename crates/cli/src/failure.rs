//! Failed commands: how they are printed and what the shell sees.

use std::{
    error::Error,
    io::{Write, stderr},
    process::ExitCode,
};

use osc_agent_protocol::{Kind, kind::chain};
use osc_guest_image::{BuildError, ManifestError};
use osc_node::{
    cri::CriError,
    engine::EngineError,
    pod::{ManifestError as PodManifestError, PodError},
    stream::StreamError,
};

use crate::image::ImageError;

/// Why a command failed, and the kind that decides its exit code.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure of `kind` because of `error`, an error or a text.
    pub fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, error: error.into() }
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Prints the error with its causes and gives the exit code.
    pub fn report(&self) -> ExitCode {
        // With stderr closed, the exit code still tells.
        drop(writeln!(stderr(), "osc: {}", chain(&*self.error)));
        ExitCode::from(exit_code(self.kind))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&chain(&*self.error))
    }
}

/// Exit codes follow `sysexits.h`; 2 is clap's for a wrong command line. The
/// help text of [`crate::commands::Line`] lists them.
fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Invalid => 65,
        Kind::NotFound => 66,
        Kind::Unavailable | Kind::Unsupported => 69,
        Kind::Bug => 70,
        Kind::Busy | Kind::Timeout => 75,
        Kind::Denied => 77,
    }
}

/// The kind a process of ours ended with; the first that has its exit code.
pub fn kind_of(code: Option<i32>) -> Kind {
    match code {
        Some(65) => Kind::Invalid,
        Some(66) => Kind::NotFound,
        Some(75) => Kind::Busy,
        Some(77) => Kind::Denied,
        Some(69) => Kind::Unavailable,
        _ => Kind::Bug,
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Kind::of_io(&error), error)
    }
}

macro_rules! from_library_error {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.kind(), error)
            }
        }
    )*};
}

from_library_error!(
    BuildError,
    ManifestError,
    ImageError,
    CriError,
    EngineError,
    PodError,
    PodManifestError,
    StreamError,
);
