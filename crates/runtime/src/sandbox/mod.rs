//! One sandbox: a virtual machine, what it is connected to, and the containers in it.
//!
//! ```text
//!            Sandbox (handles, any number)
//!     ┌──────────────┼───────────────────────────┐
//!     │ phase, table │ commands: grow            │ calls
//!     ▼              ▼                           ▼
//!   State, Kill,   Owner, one task: ──watches──► agent ── guest
//!   Wait: never    QEMU, virtiofsd, network,
//!   wait for it    vsock, cgroups, state file
//! ```
//!
//! One task owns the machine from the first file to the last; handles see its
//! [`Phase`] and send it commands. Processes are kept in a table whose entries
//! anybody may wait for; when the machine ends, for whatever reason, the owner ends
//! them all at once. Nothing is held across a boot or a call to the guest.
//!
//! Before anything is made it is written into the state file, and what things are
//! called follows from the sandbox id, so [`cleanup`] needs nothing else.

mod agent;
mod boot;
mod cgroup;
mod cleanup;
mod containers;
mod error;
mod guest;
mod held;
mod hooks;
mod identity;
mod links;
mod machine;
mod metrics;
mod monitor;
mod operations;
mod owner;
mod phase;
mod process;
mod record;
mod restore;
mod sys;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::cgroup::{Cgroups, Home};
pub use self::{
    agent::Agent,
    agent::{AgentError, Refusal},
    cgroup::Version as CgroupVersion,
    cleanup::{CleanupError, cleanup, kill_recorded_shim},
    containers::NewContainer,
    error::SandboxError,
    hooks::HookError,
    identity::Identity,
    metrics::{Histogram, Text},
    operations::Output,
    phase::{Cause, Phase},
    process::{Exit, ProcessId, ProcessState},
    record::{Record, Stage},
};
use self::{
    identity::LatestPid,
    owner::{Command, Owner},
    process::Table,
};
use crate::{
    config::Config,
    dirs::Dirs,
    id::{ContainerId, SandboxId},
    share::Share,
    spec::{Names, PodKind, Spec},
    template::Maker,
};

/// Commands that may wait for the owner; each waits for its answer.
const COMMANDS: usize = 16;
/// Memory limit events that may wait to be published.
const OOM_EVENTS: usize = 64;

/// What a sandbox is made from.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where everything lies on the host.
    pub dirs: Dirs,
    /// Configuration with the pod's annotations applied.
    pub config: Arc<Config>,
    /// The sandbox.
    pub id: SandboxId,
    /// Whether it is a pod or a single container.
    pub kind: PodKind,
    /// Bundle of its first container.
    pub bundle: PathBuf,
    /// Specification of its first container.
    pub spec: Arc<Spec>,
    /// Names people know it by.
    pub names: Names,
    /// How long requests of the engine took, for its metrics.
    pub durations: Arc<Histogram>,
    /// How templates are made; none are without it.
    pub maker: Option<Maker>,
}

/// A handle of a sandbox; clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

/// What handles and owner share.
#[derive(Debug)]
struct Shared {
    request: Request,
    share: Share,
    cgroups: Cgroups,
    phase: watch::Sender<Phase>,
    agent: OnceLock<Agent>,
    /// Hypervisor; stays known when it is gone.
    pid: LatestPid,
    /// File server.
    file_server: LatestPid,
    /// Where other programs reach the agent.
    agent_url: OnceLock<String>,
    containers: Table,
    commands: mpsc::Sender<Command>,
    /// Asks the owner to take the sandbox apart.
    stop: CancellationToken,
    /// Tasks that end with the sandbox.
    tasks: TaskTracker,
    agent_durations: Arc<Histogram>,
    overhead: monitor::Overhead,
    oom: AsyncMutex<mpsc::Receiver<ContainerId>>,
}

impl Shared {
    /// A sandbox that has not begun to boot, and its owner.
    fn new(request: Request, record: Record, share: Share) -> (Arc<Self>, Owner) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (oom, oom_events) = mpsc::channel(OOM_EVENTS);
        let shared = Arc::new(Self {
            request,
            share,
            cgroups: Cgroups::detect(),
            phase: watch::Sender::new(Phase::Booting),
            agent: OnceLock::new(),
            pid: LatestPid::default(),
            file_server: LatestPid::default(),
            agent_url: OnceLock::new(),
            containers: Table::default(),
            commands,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            agent_durations: Arc::default(),
            overhead: monitor::Overhead::default(),
            oom: AsyncMutex::new(oom_events),
        });
        let owner = Owner::new(shared.clone(), record, inbox, oom);
        (shared, owner)
    }
}

impl Sandbox {
    /// Begins to make a sandbox and returns while its machine boots.
    ///
    /// # Errors
    /// When its directories cannot be made. Failures of the boot itself are told to
    /// whoever waits for it.
    pub async fn start(request: Request) -> Result<Self, SandboxError> {
        let (dirs, id) = (request.dirs.clone(), request.id.clone());
        let (record, share) = owner::prepare(&request).await?;
        let (shared, owner) = Shared::new(request, record, share);
        tracing::debug!(sandbox.id = %id, root = %dirs.root().display(), "sandbox is being made");
        tokio::spawn(owner.run());
        Ok(Self { shared })
    }

    /// Its id.
    pub fn id(&self) -> &SandboxId {
        &self.shared.request.id
    }

    /// Where it is in its life. Never waits.
    pub fn phase(&self) -> Phase {
        self.shared.phase.borrow().clone()
    }

    /// Process identifier of its hypervisor, once there was one.
    pub fn pid(&self) -> Option<u32> {
        self.shared.pid.get()
    }

    /// Version of the host's control groups.
    pub fn cgroup_version(&self) -> CgroupVersion {
        self.shared.cgroups.version()
    }

    /// Waits until the machine runs. Cancel-safe.
    ///
    /// # Errors
    /// [`SandboxError::Gone`] when it does not come up or has ended.
    pub async fn running(&self) -> Result<(), SandboxError> {
        let mut phases = self.shared.phase.subscribe();
        let phase = phases.wait_for(|phase| !matches!(phase, Phase::Booting)).await;
        match phase.as_deref() {
            Ok(Phase::Running { .. }) => Ok(()),
            _ => Err(self.gone()),
        }
    }

    /// Asks for the end without waiting for it. Idempotent.
    pub fn request_stop(&self) {
        self.shared.stop.cancel();
    }

    /// Ends the sandbox and waits until nothing of it is left. Idempotent.
    pub async fn stop(&self) -> Arc<Cause> {
        self.request_stop();
        self.stopped().await
    }

    /// Waits until nothing of the sandbox is left. Cancel-safe.
    pub async fn stopped(&self) -> Arc<Cause> {
        let mut phases = self.shared.phase.subscribe();
        // The owner cannot end without the last phase, and we hold the sender.
        let stopped = phases.wait_for(|phase| matches!(phase, Phase::Stopped(_))).await;
        stopped.ok().and_then(|phase| phase.cause().cloned()).unwrap_or_else(|| Arc::new(Cause::Requested))
    }

    /// The next container that hits its memory limit; `None` once the sandbox has
    /// ended. For one caller at a time. Cancel-safe.
    pub async fn next_oom(&self) -> Option<ContainerId> {
        let mut events = self.shared.oom.lock().await;
        events.recv().await
    }

    /// The agent, while the machine runs.
    fn agent(&self) -> Result<Agent, SandboxError> {
        match &*self.shared.phase.borrow() {
            Phase::Running { .. } => {}
            Phase::Booting => return Err(SandboxError::Booting { id: self.id().clone() }),
            Phase::Stopping(cause) | Phase::Stopped(cause) => {
                return Err(SandboxError::Gone { id: self.id().clone(), cause: cause.clone() });
            }
        }
        // Set before the phase.
        self.shared.agent.get().cloned().ok_or_else(|| SandboxError::Booting { id: self.id().clone() })
    }

    fn gone(&self) -> SandboxError {
        let cause = self.phase().cause().cloned().unwrap_or_else(|| Arc::new(Cause::Requested));
        SandboxError::Gone { id: self.id().clone(), cause }
    }
}
