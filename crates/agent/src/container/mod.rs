//! Containers inside the guest.
//!
//! ```text
//!   create ──► Created ──start──► Running ──exit──► Stopped ──remove──► (gone)
//!                 │                  │ ▲
//!                 │             pause│ │resume
//!                 └──────────────────┴─┴───── remove kills first
//! ```
//!
//! A container is built by a process of its own: the agent runs its own binary
//! again as `kata-agent init` ([`init`]), already inside the right pid namespace
//! and control group, sends it the specification over a socket ([`wire`]) and
//! answers its questions. That process is single-threaded, so it may enter
//! namespaces freely; having built everything it waits for the start order and
//! becomes the container's program by `execve`. Processes added later take the
//! same way and join instead of building.
//!
//! The attacker here is the workload: it owns its root file system and volumes,
//! so every path below them is resolved as if it were the root, and nothing of
//! the agent stays reachable once its program runs.

pub mod bundle;
pub mod cgroup;
mod error;
mod hooks;
pub mod init;
mod io;
mod launch;
mod life;
mod namespaces;
mod oci_json;
mod process;
mod processes;
pub mod reaper;
mod seccomp;
mod sys;
mod wire;

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use osc_agent_protocol::oci;
use tokio::sync::oneshot;

use self::{cgroup::Hierarchy, reaper::Reaper};

pub use error::Error;
pub use life::Container;

/// Result of a container operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What all containers of one agent are made with.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The agent's own binary; run with the argument `init`.
    exe: PathBuf,
    /// Parent of all bundles.
    run_dir: PathBuf,
    /// Bytes a stdio pipe holds; `None` leaves the kernel's default.
    pipe_size: Option<u32>,
    reaper: Reaper,
    hierarchy: Hierarchy,
}

/// Namespaces all containers of a sandbox share.
#[derive(Clone, Debug, Default)]
pub struct SandboxNamespaces {
    /// File of the sandbox's IPC namespace; `None` gives the container its own.
    pub ipc: Option<PathBuf>,
    /// File of the sandbox's UTS namespace; `None` gives the container its own.
    pub uts: Option<PathBuf>,
    /// The sandbox's pid namespace ([`Container::pid_namespace`] of its first
    /// container); `None` gives the container its own.
    pub pid: Option<Arc<OwnedFd>>,
}

/// What to build.
#[derive(Debug)]
pub struct CreateRequest {
    /// Checked identifier; names the bundle directory.
    pub id: String,
    /// The container as the runtime describes it; storages, devices and guest
    /// hooks are already written into it. Namespace entries for IPC and UTS
    /// without a path, and the pid namespace in any case, follow `namespaces`.
    pub spec: oci::Spec,
    /// What the sandbox shares.
    pub namespaces: SandboxNamespaces,
}

impl Launcher {
    /// A launcher whose bundles live below `run_dir`.
    ///
    /// `exe` is the agent's binary, usually `/proc/self/exe`.
    ///
    /// # Errors
    /// [`Error::System`] when the mount table cannot be read.
    pub fn new(exe: impl Into<PathBuf>, run_dir: impl Into<PathBuf>, reaper: Reaper) -> Result<Self> {
        let hierarchy = Hierarchy::locate()?;
        Ok(Self { exe: exe.into(), run_dir: run_dir.into(), pipe_size: None, reaper, hierarchy })
    }

    /// Sets how many bytes a stdio pipe of a container holds.
    #[must_use]
    pub fn pipe_size(mut self, bytes: Option<u32>) -> Self {
        self.pipe_size = bytes;
        self
    }

    /// The reaper exit statuses come from.
    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    /// Builds a container up to the point where its program waits to be started.
    ///
    /// Runs to its end even when the caller goes away; the container is then
    /// taken down again.
    ///
    /// # Errors
    /// Any [`Error`]; nothing of the container is left behind. A program that
    /// is not there gives kind `NotFound`, one that may not be run `Denied`.
    pub async fn create(&self, request: CreateRequest) -> Result<Arc<Container>> {
        let (answer, result) = oneshot::channel();
        let id = request.id.clone();
        let launcher = self.clone();
        tokio::spawn(async move {
            let made = Container::build(launcher, request).await;
            if let Err(Ok(orphan)) = answer.send(made) {
                orphan.discard("caller of create went away").await;
            }
        });
        result.await.unwrap_or(Err(Error::SetupDied { container: id.clone(), exec: id }))
    }
}
