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
mod namespaces;
mod oci_json;
mod process;
pub mod reaper;
mod seccomp;
mod sys;
mod wire;

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use nix::sys::signal::Signal;
use osc_agent_protocol::{agent::StatsContainerResponse, oci};
use tokio::{net::UnixStream, sync::mpsc};

use self::{
    bundle::Bundle,
    cgroup::{Cgroup, Hierarchy},
    hooks::{Stage, State},
    process::Process,
    reaper::Reaper,
};

pub use error::Error;

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
        let (answer, result) = tokio::sync::oneshot::channel();
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
    id: String,
    spec: oci::Spec,
    launcher: Launcher,
    bundle: Bundle,
    cgroup: Cgroup,
    /// Whether its first process is not the first of its pid namespace, so that
    /// others outlive it.
    shares_pid_namespace: bool,
    pid_namespace: Arc<OwnedFd>,
    init: Arc<Process>,
    phase: Mutex<Phase>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
}

/// Longest wait for a built container to turn into its program, hooks apart.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for a frozen control group; memory writeback can delay it.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for processes to be gone where nobody gave a limit.
const DISCARD_LIMIT: Duration = Duration::from_secs(30);

impl Container {
    async fn build(launcher: Launcher, request: CreateRequest) -> Result<Arc<Self>> {
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
    async fn discard(&self, reason: &'static str) {
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

    /// Runs another process in the container; returns once its program runs.
    ///
    /// # Errors
    /// [`Error::ProcessExists`], [`Error::WrongState`] when the container does
    /// not run, [`Error::Refused`] when the program cannot be started.
    pub async fn exec(&self, exec_id: &str, process: oci::Process) -> Result<()> {
        if self.is_first(exec_id) || self.execs().contains_key(exec_id) {
            return Err(Error::ProcessExists { container: self.id.clone(), exec: exec_id.into() });
        }
        self.check_running("exec in")?;
        let process = launch::joining(self, exec_id, process).await?;
        match self.execs().entry(exec_id.into()) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Arc::new(process));
                Ok(())
            }
            std::collections::hash_map::Entry::Occupied(_) => {
                process.signal(Signal::SIGKILL as i32).map_err(|e| self.system("kill the second of two execs", e))?;
                Err(Error::ProcessExists { container: self.id.clone(), exec: exec_id.into() })
            }
        }
    }

    fn check_running(&self, action: &'static str) -> Result<()> {
        let state = match *self.phase() {
            Phase::Started if self.init.exit().is_none() => return Ok(()),
            Phase::Started => "stopped",
            Phase::Created { .. } | Phase::Starting => "not started",
            Phase::Removed => "being removed",
        };
        Err(Error::WrongState { container: self.id.clone(), action, state })
    }

    /// Sends a signal. An empty `exec_id` with SIGKILL reaches every process of
    /// the container; anything else only the process named. A SIGTERM the first
    /// process would not notice becomes SIGKILL. A process that is gone is no
    /// error.
    ///
    /// # Errors
    /// [`Error::NoProcess`], [`Error::Invalid`] for an unknown signal number.
    pub fn signal(&self, exec_id: &str, signal: i32) -> Result<()> {
        let process = self.process(exec_id)?;
        if exec_id.is_empty() && signal == Signal::SIGKILL as i32 {
            if self.cgroup.kill()? {
                return Ok(());
            }
        } else if self.is_first(exec_id)
            && signal == Signal::SIGTERM as i32
            && !self.shares_pid_namespace
            && process.ignores_quietly(signal)
        {
            return process.signal(Signal::SIGKILL as i32).map_err(|e| self.system("signal", e));
        }
        process.signal(signal).map_err(|e| self.system("signal", e))
    }

    /// Waits for a process to end and returns its exit status, 128 + n when
    /// signal n ended it. The record of an exec is dropped once its output has
    /// been read to the end; that of the first process stays until removal.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub async fn wait(&self, exec_id: &str) -> Result<i32> {
        let process = self.process(exec_id)?;
        let status = process.wait().await;
        process.mark_waited();
        self.forget_if_done(exec_id, &process);
        Ok(status)
    }

    fn forget_if_done(&self, exec_id: &str, process: &Arc<Process>) {
        if !process.done() || self.is_first(exec_id) {
            return;
        }
        let mut execs = self.execs();
        if execs.get(exec_id).is_some_and(|known| Arc::ptr_eq(known, process)) {
            execs.remove(exec_id);
        }
    }

    /// Writes all of `data` to standard input; empty data closes it. Not
    /// cancel-safe: a prefix may have been written.
    ///
    /// # Errors
    /// [`Error::NoProcess`], [`Error::StdinClosed`].
    pub async fn write_stdin(&self, exec_id: &str, data: &[u8]) -> Result<usize> {
        let process = self.process(exec_id)?;
        if data.is_empty() {
            process.io().close_stdin();
            return Ok(0);
        }
        match process.io().write(data).await {
            Ok(()) => Ok(data.len()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(Error::StdinClosed { container: self.id.clone(), exec: exec_id.into() })
            }
            Err(error) => Err(self.system("write standard input", error)),
        }
    }

    /// Up to `len` bytes of standard output; empty at its end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub async fn read_stdout(&self, exec_id: &str, len: usize) -> Result<Vec<u8>> {
        self.read(exec_id, io::Stream::Stdout, len).await
    }

    /// Up to `len` bytes of standard error; empty at its end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub async fn read_stderr(&self, exec_id: &str, len: usize) -> Result<Vec<u8>> {
        self.read(exec_id, io::Stream::Stderr, len).await
    }

    async fn read(&self, exec_id: &str, stream: io::Stream, len: usize) -> Result<Vec<u8>> {
        let process = self.process(exec_id)?;
        let data = process.read(stream, len).await.map_err(|e| self.system("read output", e))?;
        if data.is_empty() {
            self.forget_if_done(exec_id, &process);
        }
        Ok(data)
    }

    /// Closes standard input; a terminal stays open.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub fn close_stdin(&self, exec_id: &str) -> Result<()> {
        self.process(exec_id)?.io().close_stdin();
        Ok(())
    }

    /// Sets the window size of a process's terminal.
    ///
    /// # Errors
    /// [`Error::NoTerminal`].
    pub fn resize(&self, exec_id: &str, rows: u32, columns: u32) -> Result<()> {
        match self.process(exec_id)?.io().resize(rows, columns) {
            None => Err(Error::NoTerminal { container: self.id.clone(), exec: exec_id.into() }),
            Some(result) => result.map_err(|e| self.system("resize the terminal", e)),
        }
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

    fn is_first(&self, exec_id: &str) -> bool {
        exec_id.is_empty() || exec_id == self.id
    }

    fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if self.is_first(exec_id) {
            return Ok(self.init.clone());
        }
        let known = self.execs().get(exec_id).cloned();
        known.ok_or_else(|| Error::NoProcess { container: self.id.clone(), exec: exec_id.into() })
    }

    fn system(&self, action: &'static str, source: std::io::Error) -> Error {
        Error::System { container: self.id.clone(), action, source }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().expect("no holder panics")
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().expect("no holder panics")
    }
}
