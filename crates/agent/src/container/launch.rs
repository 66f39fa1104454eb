//! Starting the process that builds or joins a container, and answering it.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use osc_agent_protocol::oci;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
    sync::oneshot,
};

use super::{
    Container, Error, Launcher, Result, SandboxNamespaces,
    bundle::Bundle,
    cgroup::Cgroup,
    hooks::{self, Stage, State},
    io::{Ends, Io, pipes, terminal},
    namespaces::{self, PidNamespace, Plan},
    process::Process,
    reaper::{ExitWatch, Window},
    sys,
    wire::{self, Frame, HEAD, Header, Tag, Task},
};

/// Longest time a container may take to be built, hooks apart: its root file
/// system may be remote and the machine emulated.
const BUILD_LIMIT: Duration = Duration::from_secs(60);

/// A container that was built.
#[derive(Debug)]
pub struct Launched {
    /// Its first process.
    pub process: Process,
    /// Its pid namespace.
    pub pid_namespace: Arc<OwnedFd>,
    /// Where the start order goes.
    pub control: UnixStream,
}

/// Builds a container; its first process then waits for [`start`].
///
/// # Errors
/// Any [`Error`]; the process is killed then.
pub async fn first(
    launcher: &Launcher,
    id: &str,
    spec: &oci::Spec,
    bundle: &Bundle,
    cgroup: &Cgroup,
    sandbox: &SandboxNamespaces,
) -> Result<Launched> {
    let plan = Plan::new(spec, sandbox)?;
    let stages = [Stage::Prestart, Stage::CreateRuntime, Stage::CreateContainer];
    let limit = BUILD_LIMIT + stages.into_iter().map(|stage| hooks::time_needed(spec, stage)).sum();
    let header = Header { id: id.into(), bundle: bundle.path().into(), task: plan.task() };
    let (io, ends) = stdio(launcher, id, &spec.Process)?;
    let mut builder = Builder::spawn(launcher, id, id, plan.pid.clone()).await?;
    match builder.converse(limit, cgroup, &header, spec, ends, None).await {
        Ok(Outcome::Ready) => {}
        other => {
            builder.abort().await;
            return Err(other.err().unwrap_or_else(|| builder.died()));
        }
    }
    let pid_namespace = match plan.pid {
        PidNamespace::Join(namespace) => namespace,
        PidNamespace::New | PidNamespace::LeftToBuilder => builder.pid_namespace()?,
    };
    let (process, control) = builder.into_process(io)?;
    Ok(Launched { process, pid_namespace, control })
}

/// Starts another process in `container`; returns once its program runs.
///
/// # Errors
/// Any [`Error`]; the process is killed then.
pub async fn joining(container: &Container, exec: &str, process: oci::Process) -> Result<Process> {
    let (launcher, id) = (&container.launcher, container.id.as_str());
    let namespaces = namespaces::to_join(&container.spec)?.bits();
    let header = Header { id: id.into(), bundle: container.bundle().into(), task: Task::Join { namespaces } };
    let spec = joining_spec(&container.spec, process);
    let (io, ends) = stdio(launcher, id, &spec.Process)?;
    let pid = PidNamespace::Join(container.pid_namespace());
    let mut builder = Builder::spawn(launcher, id, exec, pid).await?;
    let first = Some(container.init.pidfd().as_raw_fd());
    match builder.converse(BUILD_LIMIT, &container.cgroup, &header, &spec, ends, first).await {
        Ok(Outcome::Running) => Ok(builder.into_process(io)?.0),
        other => {
            builder.abort().await;
            Err(other.err().unwrap_or_else(|| builder.died()))
        }
    }
}

/// What the process that joins has to know, which is little.
fn joining_spec(container: &oci::Spec, mut process: oci::Process) -> oci::Spec {
    if process.Capabilities.is_none() {
        process.Capabilities = container.Process.Capabilities.clone();
    }
    let linux = oci::Linux { Seccomp: container.Linux.Seccomp.clone(), ..oci::Linux::default() };
    oci::Spec { Process: Some(process).into(), Linux: Some(linux).into(), ..oci::Spec::default() }
}

/// Gives the start order and waits until the program runs.
///
/// # Errors
/// [`Error::Refused`] with the builder's words, [`Error::TimedOut`].
pub async fn start(mut gate: UnixStream, id: &str, limit: Duration) -> Result<()> {
    let talk = async {
        gate.write_all(&wire::head(Tag::Go, 0)).await.map_err(|_| died(id, id))?;
        match receive(&mut gate).await {
            Ok(None) => Ok(()),
            Ok(Some(frame)) => Err(unexpected(id, id, &frame)),
            Err(source) => Err(Error::System { container: id.into(), action: "start the program", source }),
        }
    };
    match tokio::time::timeout(limit, talk).await {
        Ok(result) => result,
        Err(_) => Err(Error::TimedOut { container: id.into(), action: "start", waited: limit }),
    }
}

/// The agent's streams and, without a terminal, the process's ends.
fn stdio(launcher: &Launcher, id: &str, process: &oci::Process) -> Result<(Option<Io>, Option<Ends>)> {
    if process.Terminal {
        return Ok((None, None));
    }
    let (io, ends) = pipes(launcher.pipe_size).map_err(|source| Error::System {
        container: id.into(),
        action: "make the pipes of a process",
        source,
    })?;
    Ok((Some(io), Some(ends)))
}

/// How a conversation ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Built and waiting.
    Ready,
    /// The socket closed by itself, as it does when the program starts.
    Running,
}

/// The process that builds or joins, seen from the agent.
#[derive(Debug)]
struct Builder<'a> {
    launcher: &'a Launcher,
    container: &'a str,
    exec: &'a str,
    control: UnixStream,
    /// Open as long as the process may still name another one as the real one.
    window: Window,
    pid: i32,
    pidfd: OwnedFd,
    exit: ExitWatch,
    master: Option<OwnedFd>,
}

impl<'a> Builder<'a> {
    async fn spawn(launcher: &'a Launcher, container: &'a str, exec: &'a str, namespace: PidNamespace) -> Result<Self> {
        let failed = |source| Error::System { container: container.into(), action: "start the process", source };
        let window = launcher.reaper.window();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let control = UnixStream::from_std(ours).map_err(failed)?;
        let pid = spawn_in(namespace, launcher.exe.clone(), theirs.into()).await.map_err(failed)?;
        let exit = window.watch(pid);
        let pidfd = sys::pidfd_open(pid).map_err(failed)?;
        Ok(Self { launcher, container, exec, control, window, pid, pidfd, exit, master: None })
    }

    async fn converse(
        &mut self,
        limit: Duration,
        cgroup: &Cgroup,
        header: &Header,
        spec: &oci::Spec,
        ends: Option<Ends>,
        first: Option<RawFd>,
    ) -> Result<Outcome> {
        let container = self.container.to_owned();
        let talk = async {
            cgroup.attach(self.pid)?;
            self.request(header, spec, ends, first).await.map_err(|_| self.died())?;
            self.answer(spec, &header.bundle).await
        };
        match tokio::time::timeout(limit, talk).await {
            Ok(result) => result,
            Err(_) => Err(Error::TimedOut { container, action: "set-up", waited: limit }),
        }
    }

    /// Sends the request with the process's streams and, to join a container,
    /// its first process. Our copies of the streams are closed afterwards.
    async fn request(
        &mut self,
        header: &Header,
        spec: &oci::Spec,
        ends: Option<Ends>,
        first: Option<RawFd>,
    ) -> io::Result<()> {
        let payload = wire::encode_request(header, spec)?;
        let fds: Vec<_> = ends.iter().flatten().map(AsRawFd::as_raw_fd).chain(first).collect();
        let head = wire::head(Tag::Request, payload.len());
        let control = &self.control;
        let sent = control.async_io(Interest::WRITABLE, || wire::send_with_fds(control, &head, &fds)).await?;
        self.control.write_all(&head[sent..]).await?;
        self.control.write_all(&payload).await
    }

    /// Does what the builder asks for until it is ready or gone.
    async fn answer(&mut self, spec: &oci::Spec, bundle: &Path) -> Result<Outcome> {
        loop {
            let frame = receive(&mut self.control).await.map_err(|e| self.failed("hear from the process", e))?;
            let Some(mut frame) = frame else { return Ok(Outcome::Running) };
            match frame.tag {
                Tag::Ready => return Ok(Outcome::Ready),
                Tag::Terminal => self.master = frame.fds.pop(),
                Tag::Pid => self.follow(&frame.payload)?,
                Tag::MapIds => {
                    map_ids(self.pid, &spec.Linux).map_err(|e| self.failed("write id maps", e))?;
                    self.go().await?;
                }
                Tag::RunHooks => {
                    let state = State::new(self.container, "creating", self.pid, bundle, spec);
                    for stage in [Stage::Prestart, Stage::CreateRuntime] {
                        hooks::run_all(&self.launcher.reaper, spec, stage, &state).await?;
                    }
                    self.go().await?;
                }
                Tag::Failed | Tag::Request | Tag::Go => return Err(unexpected(self.container, self.exec, &frame)),
            }
        }
    }

    async fn go(&mut self) -> Result<()> {
        self.control.write_all(&wire::head(Tag::Go, 0)).await.map_err(|_| self.died())
    }

    /// The builder forked: its child, our child too, is the one to watch.
    fn follow(&mut self, payload: &[u8]) -> Result<()> {
        let pid = payload.try_into().map(i32::from_le_bytes).map_err(|_| self.died())?;
        self.exit = self.window.watch(pid);
        self.pidfd = sys::pidfd_open(pid).map_err(|e| self.failed("watch the process", e))?;
        self.pid = pid;
        Ok(())
    }

    fn pid_namespace(&self) -> Result<Arc<OwnedFd>> {
        let file = fs::File::open(format!("/proc/{}/ns/pid", self.pid));
        Ok(Arc::new(file.map_err(|e| self.failed("open the pid namespace", e))?.into()))
    }

    fn into_process(self, io: Option<Io>) -> Result<(Process, UnixStream)> {
        let io = match (io, self.master) {
            (Some(io), _) => io,
            (None, Some(master)) => terminal(master).map_err(|source| Error::System {
                container: self.container.into(),
                action: "use the terminal",
                source,
            })?,
            (None, None) => return Err(died(self.container, self.exec)),
        };
        Ok((Process::new(self.pid, self.pidfd, self.exit, io), self.control))
    }

    /// Kills the process and waits until it is gone, so that nothing it holds is
    /// in the way of cleaning up.
    async fn abort(&mut self) {
        use std::os::fd::AsFd;
        if let Err(error) = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            tracing::debug!(container.id = self.container, error = %error, "failed process gone already");
        }
        self.exit.wait().await;
    }

    fn died(&self) -> Error {
        died(self.container, self.exec)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::System { container: self.container.into(), action, source }
    }
}

fn died(container: &str, exec: &str) -> Error {
    Error::SetupDied { container: container.into(), exec: exec.into() }
}

fn unexpected(container: &str, exec: &str, frame: &Frame) -> Error {
    if frame.tag != Tag::Failed {
        return died(container, exec);
    }
    let (kind, reason) = wire::decode_failure(&frame.payload);
    Error::Refused { container: container.into(), exec: exec.into(), reason, kind }
}

/// Starts the builder from a thread that went ahead into the pid namespace:
/// whatever a thread starts after `unshare` or `setns` lands there, and the
/// thread itself ends with the change.
async fn spawn_in(namespace: PidNamespace, exe: PathBuf, socket: OwnedFd) -> io::Result<i32> {
    let (answer, result) = oneshot::channel();
    std::thread::Builder::new().name("launch".into()).spawn(move || {
        // Nobody listens any more when the request was dropped; the builder notices by its socket.
        let _ = answer.send(spawn_here(&namespace, &exe, socket));
    })?;
    result.await.unwrap_or_else(|_| Err(io::Error::other("launching thread panicked")))
}

fn spawn_here(namespace: &PidNamespace, exe: &Path, socket: OwnedFd) -> io::Result<i32> {
    match namespace {
        PidNamespace::New => unshare(CloneFlags::CLONE_NEWPID)?,
        PidNamespace::Join(namespace) => setns(namespace, CloneFlags::CLONE_NEWPID)?,
        PidNamespace::LeftToBuilder => {}
    }
    // Without anything to run between fork and exec the standard library uses vfork.
    let child = Command::new(exe).arg0("kata-agent").arg("init").env_clear().stdin(Stdio::from(socket)).spawn()?;
    Ok(child.id() as i32)
}

/// The next frame; `None` at the end.
async fn receive(control: &mut UnixStream) -> io::Result<Option<Frame>> {
    let (mut head, mut have, mut fds) = ([0; HEAD], 0, Vec::new());
    while have < HEAD {
        let socket = &*control;
        let part = &mut head[have..];
        let got = socket.async_io(Interest::READABLE, || wire::receive_with_fds(socket, part)).await;
        match got {
            Ok((0, _)) if have == 0 => return Ok(None),
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((n, more)) => {
                have += n;
                fds.extend(more);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let (tag, len) = wire::parse_head(head)?;
    let mut payload = vec![0; len];
    control.read_exact(&mut payload).await?;
    Ok(Some(Frame { tag, payload, fds }))
}

fn map_ids(pid: i32, linux: &oci::Linux) -> io::Result<()> {
    for (file, maps) in [("uid_map", &linux.UIDMappings), ("gid_map", &linux.GIDMappings)] {
        let lines = maps.iter().map(|map| format!("{} {} {}\n", map.ContainerID, map.HostID, map.Size));
        fs::write(format!("/proc/{pid}/{file}"), lines.collect::<String>())?;
    }
    Ok(())
}
