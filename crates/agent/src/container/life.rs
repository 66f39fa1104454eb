//! A container's life from creation to removal.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use nix::sys::signal::Signal;
use osc_agent_protocol::{agent::StatsContainerResponse, oci};
use tokio::{net::UnixStream, sync::mpsc};

use super::{
    CreateRequest, Error, Launcher, Result,
    bundle::Bundle,
    cgroup::{self, Cgroup},
    hooks::{self, Stage, State},
    launch,
    process::Process,
};

/// Where in its life a container is; exit is known to its first process alone.
#[derive(Debug)]
enum Phase {
    /// Built; dropping the gate ends the waiting process.
    Created { gate: UnixStream },
    /// The start order is on its way.
    Starting,
    /// The program was started; it may have ended since.
    Started,
    /// Taken down, or being so.
    Removed,
}

/// One container.
#[derive(Debug)]
pub struct Container {
    pub(super) id: String,
    pub(super) spec: oci::Spec,
    pub(super) launcher: Launcher,
    bundle: Bundle,
    pub(super) cgroup: Cgroup,
    /// Whether its first process is not the first of its pid namespace, so that
    /// others outlive it.
    pub(super) shares_pid_namespace: bool,
    pid_namespace: Arc<OwnedFd>,
    pub(super) init: Arc<Process>,
    phase: Mutex<Phase>,
    pub(super) execs: Mutex<HashMap<String, Arc<Process>>>,
}

/// Longest wait for a built container to turn into its program, hooks apart.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for a frozen control group; memory writeback can delay it.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for processes to be gone where nobody gave a limit.
const DISCARD_LIMIT: Duration = Duration::from_secs(30);

impl Container {
    pub(super) async fn build(launcher: Launcher, request: CreateRequest) -> Result<Arc<Self>> {
        let CreateRequest { id, mut spec, namespaces } = request;
        let bundle = Bundle::create(&launcher.run_dir, &id, &mut spec)?;
        let cgroup = match launcher.hierarchy.create(&id, &spec) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                bundle.delete_logged();
                return Err(error);
            }
        };
        match launch::first(&launcher, &id, &spec, &bundle, &cgroup, &namespaces).await {
            Ok(launched) => Ok(Arc::new(Self {
                id,
                spec,
                launcher,
                bundle,
                cgroup,
                shares_pid_namespace: namespaces.pid.is_some(),
                pid_namespace: launched.pid_namespace,
                init: Arc::new(launched.process),
                phase: Mutex::new(Phase::Created { gate: launched.control }),
                execs: Mutex::default(),
            })),
            Err(error) => {
                cgroup.discard().await;
                bundle.delete_logged();
                Err(error)
            }
        }
    }

    /// Takes down a container nobody asked about any more; failures are logged.
    pub(super) async fn discard(&self, reason: &'static str) {
        tracing::warn!(container.id = self.id, reason, "container discarded");
        if let Err(error) = self.remove(Some(DISCARD_LIMIT)).await {
            let error = osc_agent_protocol::kind::chain(&error);
            tracing::error!(container.id = self.id, error, "discarded container not gone");
        }
    }

    /// Its identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The specification it was built from, with the bundle's root file system.
    pub fn spec(&self) -> &oci::Spec {
        &self.spec
    }

    /// Its bundle directory.
    pub fn bundle(&self) -> &Path {
        self.bundle.path()
    }

    /// Process id of its first process in the agent's pid namespace.
    pub fn pid(&self) -> i32 {
        self.init.pid()
    }

    /// The pid namespace its processes are in, for [`SandboxNamespaces::pid`].
    pub fn pid_namespace(&self) -> Arc<OwnedFd> {
        self.pid_namespace.clone()
    }

    /// Its control group.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Whether its first process has ended.
    pub fn exited(&self) -> bool {
        self.init.exit().is_some()
    }

    /// Lets the program run; returns once it does. Then runs poststart hooks.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it was just created, [`Error::Refused`] when
    /// a start hook or the program itself failed to start.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        let gate = self.open_gate()?;
        let limit = START_LIMIT + hooks::time_needed(&self.spec, Stage::StartContainer);
        let started = launch::start(gate, &self.id, limit).await;
        {
            let mut phase = self.phase();
            if matches!(*phase, Phase::Starting) {
                *phase = Phase::Started;
            }
        }
        started?;
        if self.shares_pid_namespace {
            self.kill_with_first();
        }
        let state = self.state("running");
        if let Err(error) = hooks::run_all(&self.launcher.reaper, &self.spec, Stage::Poststart, &state).await {
            tracing::warn!(container.id = self.id, error = %error, "poststart hook failed");
        }
        Ok(())
    }

    fn open_gate(&self) -> Result<UnixStream> {
        let mut phase = self.phase();
        match std::mem::replace(&mut *phase, Phase::Starting) {
            Phase::Created { gate } => Ok(gate),
            other => {
                let state = if matches!(other, Phase::Removed) { "being removed" } else { "started already" };
                *phase = other;
                Err(Error::WrongState { container: self.id.clone(), action: "start", state })
            }
        }
    }

    /// Without a pid namespace of its own nothing but us ends what the first
    /// process leaves behind.
    fn kill_with_first(&self) {
        let (init, cgroup, id) = (self.init.clone(), self.cgroup.clone(), self.id.clone());
        tokio::spawn(async move {
            init.wait().await;
            if let Err(error) = cgroup.kill() {
                tracing::warn!(container.id = id, error = %error, "processes left behind not killed");
            }
        });
    }

    pub(super) fn check_running(&self, action: &'static str) -> Result<()> {
        let state = match *self.phase() {
            Phase::Started if self.init.exit().is_none() => return Ok(()),
            Phase::Started => "stopped",
            Phase::Created { .. } | Phase::Starting => "not started",
            Phase::Removed => "being removed",
        };
        Err(Error::WrongState { container: self.id.clone(), action, state })
    }

    /// Applies new limits.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when the kernel refuses a value.
    pub fn update(&self, resources: &oci::LinuxResources) -> Result<()> {
        self.cgroup.apply(resources)
    }

    /// Stops all processes from running.
    ///
    /// # Errors
    /// [`Error::WrongState`], [`Error::TimedOut`].
    pub async fn pause(&self) -> Result<()> {
        self.check_running("pause")?;
        self.cgroup.freeze(true, FREEZE_LIMIT).await
    }

    /// Lets paused processes run again.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn resume(&self) -> Result<()> {
        self.cgroup.freeze(false, FREEZE_LIMIT).await
    }

    /// What the container uses.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when the control group is gone.
    pub fn stats(&self) -> Result<StatsContainerResponse> {
        self.cgroup.stats()
    }

    /// Process ids of the container in the agent's pid namespace.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when the control group is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.cgroup.pids()
    }

    /// Sends the container's id to `events` each time the kernel kills one of
    /// its processes for want of memory, until the container is removed.
    pub fn watch_oom(&self, events: mpsc::Sender<String>) {
        cgroup::events::watch_oom(&self.cgroup, self.id.clone(), self.init.watch(), events);
    }

    /// Kills what runs, runs poststop hooks and deletes control group and bundle.
    /// May be called again after a failure.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when processes are still there after `timeout`; `None`
    /// waits as long as it takes.
    pub async fn remove(&self, timeout: Option<Duration>) -> Result<()> {
        *self.phase() = Phase::Removed;
        let work = self.take_down();
        match timeout {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                Err(Error::TimedOut { container: self.id.clone(), action: "removal", waited: limit })
            }),
        }
    }

    async fn take_down(&self) -> Result<()> {
        if !self.cgroup.kill()? {
            self.kill_known()?;
        }
        self.init.wait().await;
        let state = self.state("stopped");
        if let Err(error) = hooks::run_all(&self.launcher.reaper, &self.spec, Stage::Poststop, &state).await {
            tracing::warn!(container.id = self.id, error = %error, "poststop hook failed");
        }
        self.cgroup.destroy().await?;
        self.execs().clear();
        self.bundle.delete()
    }

    /// Where there is no control group to kill: first process and execs.
    fn kill_known(&self) -> Result<()> {
        let execs: Vec<_> = self.execs().values().cloned().collect();
        for process in execs.iter().chain([&self.init]) {
            process.signal(Signal::SIGKILL as i32).map_err(|e| self.system("kill", e))?;
        }
        Ok(())
    }

    fn state(&self, status: &'static str) -> State {
        State::new(&self.id, status, self.init.pid(), self.bundle.path(), &self.spec)
    }

    pub(super) fn system(&self, action: &'static str, source: std::io::Error) -> Error {
        Error::System { container: self.id.clone(), action, source }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().expect("no holder panics")
    }
}
