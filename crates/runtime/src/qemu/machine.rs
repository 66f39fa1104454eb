//! A machine from launch to end.
//!
//! ```text
//!  launch() or
//!  restore() ─► Machine<Spawned> ─ connect() ─► Machine<Running> ─ stop() ─► gone
//!                    │ error, drop                  │ drop
//!                    └──────────► killed, reaped ◄──┘
//! ```

use std::{fs::File, io, os::fd::OwnedFd, path::PathBuf, time::Duration};

use nix::fcntl::OFlag;
use tokio::{
    net::UnixStream,
    sync::{broadcast, watch},
    task::{JoinHandle, spawn_blocking},
};

use super::{
    command::{Channels, CommandLine, VsockLink},
    console::{self, Label},
    error::{BootError, Evidence, HotplugError, StopError},
    hotplug::{Inventory, Late},
    kernel::clock_word,
    preload::{Preloaded, preload, preload_running},
    process::{Exit, Launch, Process},
    qmp::{Client, Event, QmpError, RunState},
    saved::{self, Saved},
    spec::{MemoryBackend, VmSpec, VsockDevice},
    stderr, sys,
};
use crate::{deadline::Deadline, lines::Tail, socket};

/// How long QEMU may take until the machine runs.
pub const START_LIMIT: Duration = Duration::from_secs(10);
/// How long the readers of a dead QEMU may take to reach the end.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A machine whose QEMU process exists.
#[derive(Debug)]
pub struct Machine<S> {
    pub(super) body: Body,
    pub(super) state: S,
}

/// QEMU is there, its control socket not yet.
#[derive(Debug)]
pub struct Spawned {
    qmp: UnixStream,
    inventory: Inventory,
    incoming: Option<Incoming>,
}

/// What a machine that does not boot goes on from.
#[derive(Debug)]
struct Incoming {
    state: OwnedFd,
    late: Late,
}

/// The guest executes.
#[derive(Debug)]
pub struct Running {
    pub(super) qmp: Client,
    pub(super) inventory: Inventory,
}

/// What every state has.
#[derive(Debug)]
pub(super) struct Body {
    name: String,
    process: Process,
    console: Tail,
    stderr: Tail,
    logging: JoinHandle<()>,
    files: Vec<PathBuf>,
}

/// Starts QEMU. `place` is called with its process identifier at once, to put
/// it into a cgroup.
///
/// The daemons behind vsock and shared file system must be listening.
///
/// # Errors
/// [`BootError`]; nothing is left then.
pub async fn launch(
    spec: VmSpec,
    place: impl FnOnce(i32) -> io::Result<()> + Send + 'static,
) -> Result<Machine<Spawned>, BootError> {
    start_process(spec, None, place).await
}

/// As [`launch`], for a machine that goes on from `saved`, which was booted with the
/// same specification but without network cards, socket device and shared files.
///
/// # Errors
/// [`BootError`]; nothing is left then.
pub async fn restore(
    spec: VmSpec,
    saved: Saved,
    place: impl FnOnce(i32) -> io::Result<()> + Send + 'static,
) -> Result<Machine<Spawned>, BootError> {
    start_process(spec, Some(saved), place).await
}

async fn start_process(
    spec: VmSpec,
    saved: Option<Saved>,
    place: impl FnOnce(i32) -> io::Result<()> + Send + 'static,
) -> Result<Machine<Spawned>, BootError> {
    check_files(&spec)?;
    let files = vec![spec.qmp_socket(), spec.console_socket(), spec.pid_file()];
    let spawned = spawn(spec, saved, place).await;
    match spawned {
        Ok((body, state)) => Ok(Machine { body: Body { files, ..body }, state }),
        Err(error) => {
            // The error says more than a socket that cannot be removed.
            let _ = remove(&files);
            Err(error)
        }
    }
}

async fn spawn(
    mut spec: VmSpec,
    saved: Option<Saved>,
    place: impl FnOnce(i32) -> io::Result<()> + Send + 'static,
) -> Result<(Body, Spawned), BootError> {
    let inventory = Inventory::of(&spec);
    let (qmp, qmp_listener) = control(&spec)?;
    let (console, console_end) = console(&spec)?;
    let vsock = vsock(spec.vsock.take())?;
    let share = spec.share.as_ref().map(|share| dial(share.socket.clone())).transpose()?;
    let mut channels = Channels { qmp: qmp_listener, console: console_end, vsock, share };
    if let Some(word) = clock_word(spec.accelerator, sys::tsc_khz()) {
        spec.boot.command_line = format!("{word} {}", spec.boot.command_line);
    }
    let (memory, state) = saved.map(|saved| (saved.memory, saved.state)).unzip();
    let late = state.is_some().then(|| late(&mut spec, &mut channels));
    let preloaded = preloaded(&spec, memory).await?;
    let mut line = CommandLine::build(&mut spec, channels, preloaded)?;
    let incoming = state.zip(late).map(|(state, late)| Incoming { state: state.into(), late });
    if incoming.is_some() {
        line.await_state();
    }
    let failed =
        |source| BootError::Spawn { binary: spec.binary.clone(), cure: "the host is out of descriptors", source };
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let launch = Launch {
        binary: spec.binary.clone(),
        args: line.args,
        inherited: line.inherited,
        output: writer,
        netns: spec.netns.take(),
        selinux_label: spec.selinux_label.take(),
    };
    let process = Process::spawn(launch, place).await?;
    let (stderr, logging) = stderr::follow(reader, process.pid()).map_err(failed)?;
    let body = Body { name: spec.name, process, console, stderr, logging, files: Vec::new() };
    Ok((body, Spawned { qmp, inventory, incoming }))
}

/// Takes what no saved machine has out of the specification.
fn late(spec: &mut VmSpec, channels: &mut Channels) -> Late {
    Late {
        share: spec.share.take().zip(channels.share.take()),
        nics: std::mem::take(&mut spec.nics),
        vsock: channels.vsock.take(),
    }
}

/// Memory with the kernel in it, where memory can be made without QEMU; `running` is
/// such memory already.
async fn preloaded(spec: &VmSpec, running: Option<File>) -> Result<Option<Preloaded>, BootError> {
    if spec.memory.backend != MemoryBackend::Memfd {
        return Ok(None);
    }
    let (kernel, size) = (spec.boot.kernel.clone(), spec.memory.boot);
    let load = move || match running {
        Some(memory) => preload_running(&kernel, size, memory).map(Some),
        None => preload(&kernel, size),
    };
    let loaded = spawn_blocking(load).await.map_err(io::Error::other).flatten();
    loaded.map_err(|source| BootError::Kernel { path: spec.boot.kernel.clone(), source })
}

fn remove(files: &[PathBuf]) -> Vec<StopError> {
    let removed = files.iter().map(|path| (path, std::fs::remove_file(path)));
    removed
        .filter_map(|(path, result)| match result {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Some(StopError::Remove { path: path.clone(), source })
            }
            _ => None,
        })
        .collect()
}

fn check_files(spec: &VmSpec) -> Result<(), BootError> {
    let cure = "build the guest image (`osc guest build`) or correct the configuration";
    for (what, path) in [("guest kernel", &spec.boot.kernel), ("guest root", &spec.boot.root.path().to_owned())] {
        if !path.is_file() {
            return Err(BootError::Missing { what, path: path.clone(), cure });
        }
    }
    Ok(())
}

/// The control socket, already connected: QEMU finds us waiting.
fn control(spec: &VmSpec) -> Result<(UnixStream, OwnedFd), BootError> {
    let path = spec.qmp_socket();
    let open = || {
        let listener = socket::listen(&path)?;
        Ok((to_async(socket::connect_blocking(&path)?)?, listener.into()))
    };
    open().map_err(|source| BootError::Socket { action: "listen at", path: path.clone(), source })
}

fn console(spec: &VmSpec) -> Result<(Tail, OwnedFd), BootError> {
    let path = spec.console_socket();
    let label = Label { sandbox: spec.name.clone(), url: path.display().to_string(), lines: spec.log_console };
    let open = || {
        let (ours, qemus) = std::os::unix::net::UnixStream::pair()?;
        Ok((console::attend(to_async(ours)?, socket::listen(&path)?, label)?, qemus.into()))
    };
    open().map_err(|source| BootError::Socket { action: "listen at", path: path.clone(), source })
}

fn vsock(device: Option<VsockDevice>) -> Result<Option<VsockLink>, BootError> {
    device
        .map(|device| match device {
            VsockDevice::Kernel { fd, cid } => Ok(VsockLink::Kernel { fd, cid }),
            VsockDevice::User { socket } => Ok(VsockLink::User(dial(socket)?)),
        })
        .transpose()
}

fn dial(path: PathBuf) -> Result<OwnedFd, BootError> {
    match socket::connect_blocking(&path) {
        Ok(socket) => Ok(socket.into()),
        Err(source) => Err(BootError::Socket { action: "connect to", path, source }),
    }
}

fn to_async(socket: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

impl<S> Machine<S> {
    /// Identifier of the QEMU process.
    pub fn pid(&self) -> i32 {
        self.body.process.pid()
    }

    /// Becomes `Some` once QEMU is gone, for whatever reason.
    pub fn exited(&self) -> watch::Receiver<Option<Exit>> {
        self.body.process.exited()
    }

    /// The last lines of the guest's console.
    pub fn console(&self) -> Tail {
        self.body.console.clone()
    }

    /// The last lines QEMU itself wrote.
    pub fn stderr(&self) -> Tail {
        self.body.stderr.clone()
    }

    /// Kills QEMU, waits until it is gone and removes its files. Stopping a
    /// machine that already ended is no error.
    ///
    /// # Errors
    /// All steps that failed.
    pub async fn stop(mut self, by: Deadline) -> Result<Exit, Vec<StopError>> {
        self.body.stop(by).await
    }
}

impl Machine<Spawned> {
    /// Waits until the guest executes.
    ///
    /// # Errors
    /// [`BootError`] with the last words of QEMU and guest; nothing is left then.
    pub async fn connect(self, by: Deadline) -> Result<Machine<Running>, BootError> {
        let Self { body, state: Spawned { qmp, inventory, incoming } } = self;
        let (state, late) = incoming.map(|incoming| (incoming.state, incoming.late)).unzip();
        let mut exited = body.process.exited();
        let connect = async {
            match state {
                Some(state) => saved::load(qmp, state, by).await,
                None => start(qmp, by).await,
            }
        };
        let outcome = tokio::select! {
            biased;
            exit = gone(&mut exited) => Err(Failure::Ended(exit)),
            connected = connect => connected.map_err(Failure::Control),
        };
        let qmp = match outcome {
            Ok(qmp) => qmp,
            Err(failure) => return Err(body.fail(failure, by).await),
        };
        let mut machine = Machine { body, state: Running { qmp, inventory } };
        let Some(late) = late else { return Ok(machine) };
        match machine.go_on(late, by).await {
            Ok(()) => Ok(machine),
            Err(failure) => Err(machine.body.fail(failure, by).await),
        }
    }
}

impl Machine<Running> {
    /// Completes a machine with a loaded state and lets it execute.
    async fn go_on(&mut self, late: Late, by: Deadline) -> Result<(), Failure> {
        self.add_late(late, by).await.map_err(Failure::Device)?;
        self.resume(by).await.map_err(Failure::Control)
    }

    /// What happens to the machine from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.state.qmp.events()
    }

    /// Whether the guest executes.
    ///
    /// # Errors
    /// [`QmpError`] when QEMU does not answer.
    pub async fn status(&self, by: Deadline) -> Result<RunState, QmpError> {
        status(&self.state.qmp, by).await
    }

    /// Stops execution; memory and devices stay. Idempotent.
    ///
    /// # Errors
    /// [`QmpError`] when QEMU does not answer or refuses.
    pub async fn pause(&self, by: Deadline) -> Result<(), QmpError> {
        self.state.qmp.execute("stop", serde_json::Value::Null, by).await
    }

    /// Goes on after [`Self::pause`]. Idempotent.
    ///
    /// # Errors
    /// [`QmpError`] when QEMU does not answer or refuses.
    pub async fn resume(&self, by: Deadline) -> Result<(), QmpError> {
        self.state.qmp.execute("cont", serde_json::Value::Null, by).await
    }
}

/// Why a start failed, before the evidence is collected.
enum Failure {
    Ended(Exit),
    Control(QmpError),
    Device(HotplugError),
}

async fn start(qmp: UnixStream, by: Deadline) -> Result<Client, QmpError> {
    let client = Client::connect(qmp, by).await?;
    if status(&client, by).await? != RunState::Running {
        client.execute("cont", serde_json::Value::Null, by).await?;
    }
    Ok(client)
}

async fn status(qmp: &Client, by: Deadline) -> Result<RunState, QmpError> {
    #[derive(serde::Deserialize)]
    struct Status {
        status: RunState,
    }
    Ok(qmp.query::<Status>("query-status", serde_json::Value::Null, by).await?.status)
}

/// Waits for the end.
pub(super) async fn gone(exited: &mut watch::Receiver<Option<Exit>>) -> Exit {
    exited.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Lost)
}

impl Body {
    async fn stop(&mut self, by: Deadline) -> Result<Exit, Vec<StopError>> {
        self.process.kill();
        let mut errors = Vec::new();
        let exit = by.run(gone(&mut self.process.exited())).await;
        if let Err(elapsed) = exit {
            errors.push(StopError::Undead { pid: self.process.pid(), waited: elapsed.0 });
        }
        errors.extend(remove(&self.files));
        match exit {
            Ok(exit) if errors.is_empty() => Ok(exit),
            _ => Err(errors),
        }
    }

    /// Undoes the start and says why it failed.
    async fn fail(mut self, failure: Failure, by: Deadline) -> BootError {
        // QEMU that dies closes its control socket first: give the exit a moment to show, it says more.
        let failure = match failure {
            Failure::Control(QmpError::Lost { .. })
            | Failure::Device(HotplugError::Qmp { source: QmpError::Lost { .. }, .. }) => {
                let exit = Deadline::after(LAST_WORDS).run(gone(&mut self.process.exited())).await;
                exit.map_or(failure, Failure::Ended)
            }
            other => other,
        };
        if let Err(errors) = self.stop(Deadline::after(START_LIMIT)).await {
            for error in errors {
                tracing::warn!(error = %error, "machine that failed to start is not gone");
            }
        }
        let _ = Deadline::after(LAST_WORDS).run(&mut self.logging).await;
        let evidence = Box::new(Evidence { stderr: self.stderr.lines(), console: self.console.lines() });
        let name = self.name.clone();
        match failure {
            Failure::Ended(exit) => BootError::Ended { name, exit, evidence },
            Failure::Control(QmpError::Silent { .. }) => BootError::Slow { name, waited: by.total(), evidence },
            Failure::Control(source) => BootError::Control { name, evidence, source },
            Failure::Device(source) => BootError::Device { name, evidence, source: Box::new(source) },
        }
    }
}
