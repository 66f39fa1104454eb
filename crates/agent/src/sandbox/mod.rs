//! The sandbox: what the containers of one pod share, and the containers.
//!
//! ```text
//!   Empty ──create──► Running ──destroy──► Destroyed (the agent leaves)
//! ```
//!
//! Requests for different containers run side by side. The only locks are around
//! maps and are never held while something is waited for; a container being made
//! or removed is a reserved name in the map meanwhile.

mod containers;
mod error;
mod hooks;
mod modules;
mod namespaces;
mod paths;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use osc_agent_protocol::{agent::CreateSandboxRequest, names::valid_id};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    container::{Launcher, SandboxNamespaces},
    device::Devices,
    network::Network,
    storage::Storages,
};

use containers::Slot;
pub use error::SandboxError;
use hooks::GuestHooks;
pub(crate) use paths::mounts_below;

/// OOM events nobody fetched yet; more are dropped, the first ones matter.
const OOM_QUEUE: usize = 64;

type Result<T, E = SandboxError> = std::result::Result<T, E>;

/// The sandbox of this guest.
pub struct Sandbox {
    /// Makes its containers.
    launcher: Launcher,
    /// Devices of the guest.
    pub devices: Arc<Devices>,
    /// Mounts of sandbox and containers.
    pub storages: Storages,
    /// Interfaces, routes and packet filter.
    pub network: Network,
    phase: Mutex<Phase>,
    containers: Mutex<HashMap<String, Slot>>,
    oom_sender: mpsc::Sender<String>,
    oom_events: tokio::sync::Mutex<mpsc::Receiver<String>>,
    stop: CancellationToken,
}

#[derive(Default)]
enum Phase {
    /// Nothing was asked for yet.
    #[default]
    Empty,
    /// Being made.
    Creating,
    /// Ready for containers.
    Running(Shared),
    /// Taken down; the agent is about to leave.
    Destroyed,
}

/// What containers share once the sandbox runs.
#[derive(Clone, Default)]
struct Shared {
    namespaces: SandboxNamespaces,
    hooks: Arc<GuestHooks>,
}

impl Sandbox {
    /// An empty sandbox. `stop` is cancelled when it has been destroyed.
    pub fn new(launcher: Launcher, devices: Arc<Devices>, stop: CancellationToken) -> Self {
        let (oom_sender, oom_events) = mpsc::channel(OOM_QUEUE);
        Self {
            storages: Storages::new(Arc::clone(&devices)),
            network: Network::new(Arc::clone(&devices), launcher.reaper().clone()),
            launcher,
            devices,
            phase: Mutex::default(),
            containers: Mutex::default(),
            oom_sender,
            oom_events: tokio::sync::Mutex::new(oom_events),
            stop,
        }
    }

    /// Makes the sandbox.
    ///
    /// # Errors
    /// [`SandboxError`]; the sandbox is then empty again.
    pub async fn create(&self, request: CreateSandboxRequest) -> Result<()> {
        if !valid_id(&request.sandbox_id) {
            return Err(SandboxError::Id { id: request.sandbox_id });
        }
        self.begin()?;
        let made = self.make(&request).await;
        let mut phase = self.phase();
        if !matches!(*phase, Phase::Creating) {
            return Err(SandboxError::Leaving);
        }
        match made {
            Ok(shared) => {
                *phase = Phase::Running(shared);
                tracing::info!(sandbox.id = request.sandbox_id, "sandbox runs");
                Ok(())
            }
            Err(error) => {
                *phase = Phase::Empty;
                Err(error)
            }
        }
    }

    fn begin(&self) -> Result<()> {
        let mut phase = self.phase();
        match *phase {
            Phase::Empty => {
                *phase = Phase::Creating;
                Ok(())
            }
            _ => Err(SandboxError::Exists),
        }
    }

    async fn make(&self, request: &CreateSandboxRequest) -> Result<Shared> {
        let (hostname, hook_path) = (request.hostname.clone(), request.guest_hook_path.clone());
        let (namespaces, hooks) = spawn_blocking(move || -> Result<_> {
            paths::recreate()?;
            Ok((namespaces::make(&hostname)?, hooks::scan(&hook_path)))
        })
        .await
        .map_err(|_| SandboxError::Died)??;
        modules::load_all(self.launcher.reaper(), &request.kernel_modules).await?;
        let held = self.storages.add_all(&request.storages, None).await.map_err(SandboxError::Storage)?;
        let dns = request.dns.clone();
        let resolved = spawn_blocking(move || paths::set_resolver(&dns)).await.map_err(|_| SandboxError::Died)?;
        if let Err(error) = resolved {
            self.storages.release_all(&held).await;
            return Err(error);
        }
        Ok(Shared { namespaces, hooks: Arc::new(hooks) })
    }

    /// Removes all containers, unmounts everything and tells the agent to leave.
    /// Tries every step; failures are logged, because the guest ends anyway.
    pub async fn destroy(&self) {
        *self.phase() = Phase::Destroyed;
        self.remove_all().await;
        self.storages.clear().await;
        let _ = spawn_blocking(|| {
            namespaces::unpin();
            paths::unset_resolver();
        })
        .await;
        tracing::info!("sandbox destroyed");
        self.stop.cancel();
    }

    /// Waits until the kernel has killed a process for want of memory and returns
    /// the container it was in. Cancel-safe.
    ///
    /// # Errors
    /// [`SandboxError::Leaving`] once the agent is about to leave.
    pub async fn next_oom(&self) -> Result<String> {
        let wait = async { self.oom_events.lock().await.recv().await };
        tokio::select! {
            () = self.stop.cancelled() => Err(SandboxError::Leaving),
            event = wait => event.ok_or(SandboxError::Leaving),
        }
    }

    /// What containers share.
    fn shared(&self) -> Result<Shared> {
        match &*self.phase() {
            Phase::Running(shared) => Ok(shared.clone()),
            Phase::Destroyed => Err(SandboxError::Leaving),
            Phase::Empty | Phase::Creating => Err(SandboxError::Missing),
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The containers by name.
    fn containers(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mount points a container references.
type Held = Vec<PathBuf>;
