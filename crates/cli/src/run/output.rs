//! Output and input of a pod that runs in the foreground.

use std::{
    collections::HashMap,
    io::ErrorKind,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use osc_agent_protocol::kind::chain;
use osc_node::{
    cri::{Client, messages::AttachRequest},
    logs::{Follower, Sink, copy},
    pod::{Event, Supervisor},
    stream::{self, Ends},
};
use tokio::{
    io::{Stderr, Stdout, stderr, stdout},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::{io::InspectWriter, sync::CancellationToken};

use super::foreground::Stop;
use crate::{Failure, progress::Progress, terminal};

/// How long an attached stream may outlive its container.
const DETACH: Duration = Duration::from_secs(5);

/// Connects the containers of one pod with our standard streams: output by their
/// logs, which lose nothing, terminals and input by attaching.
pub struct Streams {
    client: Client,
    terminals: HashMap<String, Terminal>,
    prefixed: bool,
    changed: Arc<Notify>,
    stop: Stop,
    ended: HashMap<String, CancellationToken>,
    tasks: JoinSet<()>,
    progress: Option<Progress>,
}

/// What a container wants besides a log.
#[derive(Clone)]
struct Terminal {
    tty: bool,
    stdin: bool,
    log: Option<PathBuf>,
}

impl Streams {
    /// The streams of the pod of `supervisor`. When there are `many`, of pods or of
    /// containers, lines begin with the container's name.
    pub fn new(client: Client, supervisor: &Supervisor, many: bool, stop: Stop, progress: Option<Progress>) -> Self {
        let pod = supervisor.pod();
        let wanted = pod.containers.iter().filter(|container| container.tty || container.stdin);
        let terminals = wanted
            .take(1) // there is one keyboard
            .map(|c| (c.name.clone(), Terminal { tty: c.tty, stdin: c.stdin, log: None }))
            .collect();
        Self {
            client,
            terminals,
            prefixed: many || pod.all().count() > 1,
            changed: supervisor.changed(),
            stop,
            ended: HashMap::new(),
            tasks: JoinSet::new(),
            progress,
        }
    }

    /// Follows what the supervisor tells.
    pub fn tell(&mut self, event: Event) {
        match event {
            Event::Starting { container, log } => self.starting(container, log),
            Event::Started { container, id } => self.started(&container, id),
            Event::Ended { container, .. } => {
                if let Some(ended) = self.ended.get(&container) {
                    ended.cancel();
                }
            }
        }
    }

    fn starting(&mut self, container: String, log: PathBuf) {
        self.progress = None; // the screen is the pod's from now on
        let ended = CancellationToken::new();
        self.ended.insert(container.clone(), ended.clone());
        if let Some(terminal) = self.terminals.get_mut(&container).filter(|terminal| terminal.tty) {
            terminal.log = Some(log);
            return;
        }
        let follower = match Follower::new(log) {
            Ok(follower) => follower,
            Err(error) => return tracing::warn!(container.name = container, error = %error, "log cannot be followed"),
        };
        let mut sink = self.sink(&container);
        let (changed, stop) = (self.changed.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            match follower.run(&mut sink, &ended, || changed.notify_one()).await {
                // Whoever reads has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => stop.ask(Signal::SIGPIPE),
                Err(error) => tracing::warn!(container.name = container, error = %error, "output is incomplete"),
                Ok(()) => {}
            }
        });
    }

    fn sink(&self, container: &str) -> Sink<Stdout, Stderr> {
        let prefix = if self.prefixed { format!("[{container}] ") } else { String::new() };
        Sink::new(stdout(), stderr(), prefix)
    }

    fn started(&mut self, container: &str, id: String) {
        let Some(terminal) = self.terminals.get(container).cloned() else { return };
        let client = self.client.clone();
        let changed = self.changed.clone();
        let ended = self.ended.get(container).cloned().unwrap_or_default();
        self.tasks.spawn(async move {
            let shown = AtomicBool::new(false);
            let over = async {
                ended.cancelled().await;
                tokio::time::sleep(DETACH).await;
            };
            let attached = tokio::select! {
                attached = attach(&client, id, &terminal, &shown) => attached,
                // Without a terminal this is only input, which nobody reads any more.
                () = ended.cancelled(), if !terminal.tty => Ok(()),
                () = over => Ok(()),
            };
            changed.notify_one();
            match &terminal.log {
                // It ended before we were attached: what it wrote is in its log.
                Some(log) if !shown.load(Relaxed) && ends_soon(&ended).await => {
                    // The terminal may be raw, where only this goes to the first column.
                    let mut sink = Sink::new(stdout(), stderr(), "\r");
                    let _ = copy(log, &mut sink).await; // without a log it wrote nothing
                }
                _ => attached.unwrap_or_else(|error| tracing::warn!(error = %error, "not attached to the container")),
            }
        });
    }

    /// Waits for the last output, however slowly it is read.
    pub async fn finish(mut self) {
        self.ended.values().for_each(CancellationToken::cancel);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whether the container is known to have ended a moment later.
async fn ends_soon(ended: &CancellationToken) -> bool {
    tokio::time::timeout(DETACH, ended.cancelled()).await.is_ok()
}

/// Carries input, and with a terminal output, until the container closes them;
/// `shown` becomes true with the first output.
async fn attach(client: &Client, id: String, terminal: &Terminal, shown: &AtomicBool) -> Result<(), Failure> {
    let request = AttachRequest {
        container_id: id,
        stdin: terminal.stdin,
        tty: terminal.tty,
        stdout: terminal.tty,
        stderr: false,
    };
    let url = client.attach(request).await?;
    let ends: Ends<_, Stderr> = Ends {
        stdin: terminal.stdin.then(terminal::input),
        stdout: terminal.tty.then(|| InspectWriter::new(stdout(), |_: &[u8]| shown.store(true, Relaxed))),
        stderr: None,
        resize: if terminal.tty { Some(terminal::sizes()?) } else { None },
    };
    if let Err(error) = stream::run(&url, ends).await {
        // The engine cuts the connection when the container ends.
        tracing::debug!(error = chain(&error), "attached stream ended");
    }
    Ok(())
}
