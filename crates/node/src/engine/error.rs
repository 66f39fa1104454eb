//! What can go wrong with the engine itself.

use std::{io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

use crate::cri::CriError;

/// A failure to start, use or remove the private engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A program the engine needs is not installed.
    #[error("{program} is not installed: run `apt-get install {package}`")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// containerd ended while it was being started.
    #[error("containerd ended at once ({status}): read {}; its last words: {tail}", log.display())]
    Exited {
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// containerd runs but does not answer.
    #[error("containerd not ready after {waited:?}: read {}", log.display())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
        /// The last answer.
        source: Option<CriError>,
    },
    /// Somebody else is starting or stopping the engine.
    #[error("another osc holds {} for more than {waited:?}: wait for it or end it", lock.display())]
    Locked {
        /// The lock file.
        lock: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A helper program failed.
    #[error("`{command}` failed: {output}")]
    Tool {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// No free address range was found.
    #[error("no free pod subnet: every candidate collides with a route of this machine; free one of 10.128.0.0/10")]
    NoSubnet,
    /// A call to the engine failed.
    #[error("the engine refused")]
    Cri(#[from] CriError),
    /// Things that should be gone are still there.
    #[error("still there after stopping: {}", .0.join(", "))]
    Left(Vec<String>),
}

impl EngineError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } | Self::Exited { .. } | Self::NoSubnet => Kind::Unavailable,
            Self::Io { source, .. } => Kind::of_io(source),
            Self::NotReady { .. } => Kind::Timeout,
            Self::Locked { .. } | Self::Left(_) => Kind::Busy,
            Self::Tool { .. } => Kind::Invalid,
            Self::Cri(source) => source.kind(),
        }
    }
}

/// Names the object of a failed file operation.
pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.into();
    move |source| EngineError::Io { action, path, source }
}
