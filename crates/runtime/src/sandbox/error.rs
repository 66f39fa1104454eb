//! What can go wrong with a sandbox.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use osc_agent_protocol::Kind;

use super::{agent::AgentError, hooks::HookError, phase::Cause, process::ProcessState};
use crate::{
    id::SandboxId,
    network::NetworkError,
    qemu::{BootError, HotplugError},
    share::{DaemonError, ShareError},
    spec::{SizeError, SpecError},
    vsock::VsockError,
};

/// A request a sandbox could not fulfil.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No such container or process.
    #[error("{what} {id} does not exist")]
    NotFound {
        /// What kind of object.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The id is taken.
    #[error("{what} {id} exists already")]
    Exists {
        /// What kind of object.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The process is in the wrong state.
    #[error("cannot {action} {process}: {state}")]
    State {
        /// The process.
        process: String,
        /// What was asked for.
        action: &'static str,
        /// What it does instead.
        state: ProcessState,
    },
    /// The process does not read its input any more.
    #[error("{process} has closed its standard input")]
    Closed {
        /// The process.
        process: String,
    },
    /// The sandbox has ended.
    #[error("sandbox {id} {cause}")]
    Gone {
        /// The sandbox.
        id: SandboxId,
        /// Why.
        cause: Arc<Cause>,
    },
    /// The sandbox still boots.
    #[error("sandbox {id} is still starting: try again")]
    Booting {
        /// The sandbox.
        id: SandboxId,
    },
    /// A file of the sandbox could not be made.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sandbox could not enter its control group.
    #[error("cannot enter control group {}: the pod's group was removed or its limits are too small", path.display())]
    Cgroup {
        /// The group.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent did not answer after the machine started.
    #[error("the agent of sandbox {id} did not answer within {waited:?}; end of the guest console: {console}")]
    AgentSilent {
        /// The sandbox.
        id: SandboxId,
        /// How long it was given.
        waited: Duration,
        /// Last lines of the guest console.
        console: String,
        /// What dialling met.
        source: VsockError,
    },
    /// The machine ended while its agent was waited for.
    #[error(
        "the virtual machine of sandbox {id} ended ({how}) before its agent answered; end of the guest console: {console}"
    )]
    Died {
        /// The sandbox.
        id: SandboxId,
        /// How the hypervisor ended.
        how: String,
        /// Last lines of the guest console.
        console: String,
    },
    /// The file server ended while the sandbox started.
    #[error("the file server of sandbox {id} ended ({how}): look for what killed it, first the pod's memory limit")]
    FileServerEnded {
        /// The sandbox.
        id: SandboxId,
        /// How it ended.
        how: String,
    },
    /// The container's specification cannot be used.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No machine can be made for the limits.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Files could not be shared into the guest.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A pod wants the host's network.
    #[error("sandbox {id} has no network namespace: a machine of its own cannot use the host's network")]
    HostNetwork {
        /// The sandbox.
        id: SandboxId,
    },
    /// The pod's network could not be joined to the machine.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The file server did not start.
    #[error(transparent)]
    FileServer(#[from] DaemonError),
    /// The channel to the agent could not be made.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// The machine did not start.
    #[error(transparent)]
    Machine(#[from] BootError),
    /// The machine did not go on from a template. The sandbox then boots.
    #[error("sandbox {id} cannot go on from a template: it boots instead")]
    Restore {
        /// The sandbox.
        id: SandboxId,
        /// Why.
        source: Box<SandboxError>,
    },
    /// The machine could not be resized.
    #[error(transparent)]
    Hotplug(#[from] HotplugError),
    /// The agent did not do what was asked.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl SandboxError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            // Signals to what has ended find nothing, as with any process.
            Self::State { state: ProcessState::Stopped(_), .. } => Kind::NotFound,
            Self::Exists { .. } | Self::State { .. } | Self::Booting { .. } => Kind::Busy,
            Self::Closed { .. } | Self::Gone { .. } | Self::Died { .. } | Self::FileServerEnded { .. } => {
                Kind::Unavailable
            }
            Self::File { source, .. } | Self::Cgroup { source, .. } => Kind::of_io(source),
            Self::AgentSilent { .. } => Kind::Timeout,
            Self::HostNetwork { .. } => Kind::Unsupported,
            Self::Network(error) => error.kind(),
            Self::Spec(error) => error.kind(),
            Self::Size(error) => error.kind(),
            Self::FileServer(error) => error.kind(),
            Self::Hook(error) => error.kind(),
            Self::Share(error) => error.kind(),
            Self::Vsock(error) => error.kind(),
            Self::Machine(error) => error.kind(),
            Self::Restore { source, .. } => source.kind(),
            Self::Hotplug(error) => error.kind(),
            Self::Agent(error) => error.kind(),
        }
    }
}
