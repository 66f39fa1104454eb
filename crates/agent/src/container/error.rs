//! What can go wrong with a container, seen from the agent.

use std::{io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

/// A container operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process goes by this exec id.
    #[error("container {container} has no process {exec:?}: it was never started or has been waited for already")]
    NoProcess {
        /// Container asked.
        container: String,
        /// Exec id asked for.
        exec: String,
    },
    /// The exec id is taken.
    #[error("container {container} already runs a process {exec:?}: choose another exec id")]
    ProcessExists {
        /// Container asked.
        container: String,
        /// Exec id asked for.
        exec: String,
    },
    /// The operation does not fit the state of the container.
    #[error("cannot {action} container {container}: it is {state}")]
    WrongState {
        /// Container asked.
        container: String,
        /// What was wanted.
        action: &'static str,
        /// State it is in.
        state: &'static str,
    },
    /// A window size was given for a process without a terminal.
    #[error("process {exec:?} of container {container} has no terminal")]
    NoTerminal {
        /// Container asked.
        container: String,
        /// Exec id asked for.
        exec: String,
    },
    /// Bytes were written to a closed standard input.
    #[error("standard input of process {exec:?} of container {container} is closed")]
    StdinClosed {
        /// Container asked.
        container: String,
        /// Exec id asked for.
        exec: String,
    },
    /// A value of the request can never work.
    #[error("{field} {value:?} is not usable: {reason}")]
    Invalid {
        /// Name of the field in the OCI specification.
        field: &'static str,
        /// The value found.
        value: String,
        /// What would be allowed.
        reason: &'static str,
    },
    /// The process that builds the container reported why it could not.
    #[error("cannot run process {exec:?} of container {container}: {reason}")]
    Refused {
        /// Container being built.
        container: String,
        /// Exec id of the process.
        exec: String,
        /// Its own words, with the whole chain of causes.
        reason: String,
        /// Its kind.
        kind: Kind,
    },
    /// The process that builds the container ended without a word.
    #[error(
        "set-up of process {exec:?} of container {container} ended early: read the guest console for its last words"
    )]
    SetupDied {
        /// Container being built.
        container: String,
        /// Exec id of the process.
        exec: String,
    },
    /// Something took longer than it may.
    #[error(
        "{action} of container {container} not done after {waited:?}: ETIME: look for processes in uninterruptible sleep"
    )]
    TimedOut {
        /// Container concerned.
        container: String,
        /// What was waited for.
        action: &'static str,
        /// How long.
        waited: Duration,
    },
    /// A hook failed.
    #[error("{stage} hook {} failed: {reason}", path.display())]
    Hook {
        /// Stage of the container's life.
        stage: &'static str,
        /// Executable.
        path: PathBuf,
        /// Exit status or time-out, with what it wrote to standard error.
        reason: String,
    },
    /// A control group file or directory could not be used.
    #[error("cannot {action} control group {}", path.display())]
    Cgroup {
        /// What was tried.
        action: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action} for container {container}")]
    System {
        /// Container concerned.
        container: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoProcess { .. } => Kind::NotFound,
            Self::ProcessExists { .. } | Self::WrongState { .. } => Kind::Busy,
            Self::NoTerminal { .. } | Self::StdinClosed { .. } => Kind::Unavailable,
            Self::Invalid { .. } => Kind::Invalid,
            Self::Refused { kind, .. } => *kind,
            Self::SetupDied { .. } | Self::Hook { .. } => Kind::Bug,
            Self::TimedOut { .. } => Kind::Timeout,
            Self::Cgroup { source, .. } | Self::System { source, .. } => Kind::of_io(source),
        }
    }
}
