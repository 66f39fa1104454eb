//! virtiofsd, the process that serves a shared tree to QEMU (vhost-user-fs).

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use osc_agent_protocol::Kind;
use tokio::{
    io::{AsyncReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::VirtioFs,
    deadline::Deadline,
    id::SandboxId,
    lines::{Splitter, Tail},
    socket,
};

/// What virtiofsd says when it takes connections.
const READY: &str = "Waiting for vhost-user socket connection";

/// How to start virtiofsd.
#[derive(Clone, Debug)]
pub struct DaemonSpec<'d> {
    /// The sandbox, for logs.
    pub sandbox: &'d SandboxId,
    /// Binary, cache mode and further arguments.
    pub config: &'d VirtioFs,
    /// The directory to serve.
    pub shared_dir: PathBuf,
    /// Where QEMU connects; a stale socket there is replaced.
    pub socket: PathBuf,
    /// Log what virtiofsd does, not only what goes wrong.
    pub debug: bool,
}

/// A virtiofsd that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The binary is not there.
    #[error("virtiofsd {} does not exist: install it or correct virtio_fs_daemon", path.display())]
    Missing {
        /// The configured path.
        path: PathBuf,
    },
    /// It could not be started.
    #[error("cannot start virtiofsd {}", path.display())]
    Spawn {
        /// The configured path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its socket could not be made.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("virtiofsd of sandbox {sandbox} ended with {status}: {}", said(output))]
    Ended {
        /// The sandbox.
        sandbox: SandboxId,
        /// How.
        status: ExitStatus,
        /// Its last lines.
        output: Vec<String>,
    },
    /// It was not ready in time.
    #[error("virtiofsd of sandbox {sandbox} not ready: {}", said(output))]
    NotReady {
        /// The sandbox.
        sandbox: SandboxId,
        /// Its last lines.
        output: Vec<String>,
        /// How long that took.
        source: crate::deadline::Elapsed,
    },
}

impl DaemonError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::NotFound,
            Self::Spawn { source, .. } | Self::Listen { source, .. } => Kind::of_io(source),
            Self::Ended { .. } => Kind::Unavailable,
            Self::NotReady { .. } => Kind::Timeout,
        }
    }
}

fn said(output: &[String]) -> String {
    if output.is_empty() { "it said nothing".to_owned() } else { format!("it said: {}", output.join(" | ")) }
}

/// A running virtiofsd. A task owns the process: it is reaped, and its second process is
/// killed, whatever happens. Dropping this kills it too, without waiting.
#[derive(Debug)]
pub struct Virtiofsd {
    sandbox: SandboxId,
    pid: u32,
    socket: PathBuf,
    output: Tail,
    exit: watch::Receiver<Option<ExitStatus>>,
    kill: CancellationToken,
}

impl Virtiofsd {
    /// Starts virtiofsd with its socket listening already: QEMU may connect at once, and
    /// waits in the queue until virtiofsd is ready. Needs a Tokio runtime.
    ///
    /// # Errors
    /// A binary that is missing or cannot be started, or a socket that cannot be made.
    pub fn start(spec: &DaemonSpec<'_>) -> Result<Self, DaemonError> {
        let path = &spec.config.daemon;
        let listener =
            socket::listen(&spec.socket).map_err(|source| DaemonError::Listen { path: spec.socket.clone(), source })?;
        let mut command = Command::new(path);
        command
            .args(arguments(spec))
            .env_clear()
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // It forks once more; the group is how both are found.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| {
            // The socket would outlive the attempt.
            let _ = std::fs::remove_file(&spec.socket);
            match source.kind() {
                io::ErrorKind::NotFound => DaemonError::Missing { path: path.clone() },
                _ => DaemonError::Spawn { path: path.clone(), source },
            }
        })?;
        let pid = child.id().expect("a child that was not waited for has an id");
        let output = Tail::default();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(follow(stderr, spec.sandbox.clone(), output.clone()));
        }
        let (report, exit) = watch::channel(None);
        let kill = CancellationToken::new();
        tokio::spawn(own(child, pid, kill.clone(), report));
        Ok(Self { sandbox: spec.sandbox.clone(), pid, socket: spec.socket.clone(), output, exit, kill })
    }

    /// The process id; also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until virtiofsd takes connections. Cancel-safe.
    ///
    /// # Errors
    /// It ended, or the time was up.
    pub async fn ready(&self, by: Deadline) -> Result<(), DaemonError> {
        let mut exit = self.exit.clone();
        let outcome = by
            .run(async {
                tokio::select! {
                    biased;
                    () = self.output.wait_for(READY) => None,
                    status = exit.wait_for(Option::is_some) => status.ok().and_then(|status| *status),
                }
            })
            .await;
        let (sandbox, output) = (self.sandbox.clone(), self.output.lines());
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(DaemonError::Ended { sandbox, status, output }),
            Err(source) => Err(DaemonError::NotReady { sandbox, output, source }),
        }
    }

    /// Becomes the exit status when the process has ended.
    pub fn exited(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.exit.clone()
    }

    /// Its last lines, for messages about its end.
    pub fn output(&self) -> Vec<String> {
        self.output.lines()
    }

    /// Kills virtiofsd, waits until it is reaped and removes its socket. Idempotent;
    /// returns how it ended, nothing if the time was up first.
    pub async fn stop(&self, by: Deadline) -> Option<ExitStatus> {
        self.kill.cancel();
        let mut exit = self.exit.clone();
        let status = by.run(exit.wait_for(Option::is_some)).await.ok()?.ok().and_then(|status| *status);
        // Missing is as good as removed.
        let _ = std::fs::remove_file(&self.socket);
        status
    }
}

impl Drop for Virtiofsd {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// Waits for the process, or kills it when told to; always ends its second process.
async fn own(mut child: Child, pid: u32, kill: CancellationToken, report: watch::Sender<Option<ExitStatus>>) {
    let ended = tokio::select! {
        status = child.wait() => Some(status), // cancel-safe
        () = kill.cancelled() => None,
    };
    // The second process is only asked to go when the first one dies. Killing the group is
    // safe: while it has a member, nobody else gets its id.
    kill_group(pid);
    let status = match ended {
        Some(status) => status,
        None => child.wait().await,
    };
    // Waiting fails only for a process that is not ours; it is gone all the same.
    let status = status.unwrap_or_else(|_| ExitStatus::from_raw(Signal::SIGKILL as i32));
    report.send_replace(Some(status));
}

fn kill_group(pid: u32) {
    // Nobody left in the group is what we want.
    let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
}

/// The listening socket is standard input: passing it under any other number would have
/// to happen between fork and exec.
fn arguments(spec: &DaemonSpec<'_>) -> Vec<String> {
    let mut arguments = vec![
        "--fd=0".to_owned(),
        format!("--shared-dir={}", spec.shared_dir.display()),
        format!("--cache={}", spec.config.cache.as_str()),
        // Readiness is announced at this level.
        format!("--log-level={}", if spec.debug { "debug" } else { "info" }),
        // Overlay roots have no file handles: asking for them costs a warning per root.
        "--inode-file-handles=never".to_owned(),
    ];
    // Its own wish of a million is refused on most hosts, with another warning.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        arguments.push(format!("--rlimit-nofile={hard}"));
    }
    arguments.extend(spec.config.extra_args.iter().cloned());
    arguments
}

/// Logs what virtiofsd writes until it closes its end.
async fn follow(stderr: ChildStderr, sandbox: SandboxId, tail: Tail) {
    let mut each = |line: &str| {
        tail.push(line);
        log(&sandbox, line);
    };
    let mut stderr = BufReader::with_capacity(512, stderr);
    let mut splitter = Splitter::default();
    let mut buffer = [0; 512];
    while let Ok(count) = stderr.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        splitter.push(&buffer[..count], &mut each);
    }
    splitter.finish(each);
}

/// Lines look like `[2026-11-20T19:41:00Z ERROR virtiofsd] text`.
fn log(sandbox: &SandboxId, line: &str) {
    let head = line.split(']').next().unwrap_or_default();
    if head.contains("ERROR") {
        tracing::error!(identifier = "virtiofsd", sandbox.id = %sandbox, line, "virtiofsd");
    } else if head.contains("WARN") {
        tracing::warn!(identifier = "virtiofsd", sandbox.id = %sandbox, line, "virtiofsd");
    } else {
        tracing::debug!(identifier = "virtiofsd", sandbox.id = %sandbox, line, "virtiofsd");
    }
}
