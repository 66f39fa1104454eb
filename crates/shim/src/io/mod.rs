//! Standard streams: between the pipes, files and logger programs an engine names
//! and the agent in the guest.
//!
//! Bytes only ever wait in the kernel's pipes: whoever is slow slows the other
//! side down, and an idle stream holds no buffer.

mod copy;
mod logger;
mod target;

use std::{sync::Arc, time::Duration};

use osc_agent_protocol::{Kind, kind::chain};
use osc_runtime::{
    deadline::Deadline,
    sandbox::{Output, ProcessId, Sandbox},
};
use tokio::{net::unix::pipe, process::Child};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use copy::{AtEnd, Sink};
use target::Target;

/// Where the streams of a process lead, as the engine wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Pipe the process reads, or empty.
    pub stdin: String,
    /// Pipe, file or logger it writes to, or empty.
    pub stdout: String,
    /// The same for its errors; unused with a terminal.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// Streams that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// A URI of an unknown scheme.
    #[error("stream {0:?} cannot be used: it must be a path, file:// or binary://")]
    Scheme(String),
    /// The pipe, file or program is not usable.
    #[error("cannot open stream {uri:?}")]
    Open {
        /// As the engine wrote it.
        uri: String,
        /// Why.
        source: std::io::Error,
    },
    /// The logger did not say it was ready.
    #[error("the logger {uri:?} was not ready within {waited:?}: it must close descriptor 5 when it is")]
    Logger {
        /// As the engine wrote it.
        uri: String,
        /// How long it was given.
        waited: Duration,
    },
}

impl IoError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Scheme(_) => Kind::Invalid,
            Self::Open { source, .. } => Kind::of_io(source),
            Self::Logger { .. } => Kind::Timeout,
        }
    }
}

/// Opened ends, before anything flows.
#[derive(Debug)]
pub struct Ends {
    stdin: Option<pipe::Receiver>,
    stdout: Sink,
    stderr: Sink,
    logger: Option<Child>,
    terminal: bool,
}

impl Ends {
    /// Opens everything `stdio` names for container `id` of `namespace`.
    ///
    /// # Errors
    /// [`IoError`].
    pub async fn open(stdio: &Stdio, id: &str, namespace: &str) -> Result<Self, IoError> {
        let stdin = match stdio.stdin.as_str() {
            "" => None,
            path => Some(target::open_input(path)?),
        };
        let stdout = Target::parse(&stdio.stdout)?;
        if let Target::Logger { program, arguments } = stdout {
            let (logger, stdout, stderr) = logger::start(&stdio.stdout, &program, &arguments, id, namespace).await?;
            return Ok(Self { stdin, stdout, stderr, logger: Some(logger), terminal: stdio.terminal });
        }
        let stderr = if stdio.terminal { Target::Nowhere } else { Target::parse(&stdio.stderr)? };
        Ok(Self { stdin, stdout: stdout.open()?, stderr: stderr.open()?, logger: None, terminal: stdio.terminal })
    }

    /// Begins copying.
    pub fn connect(self, sandbox: &Sandbox, process: &ProcessId) -> Streams {
        let streams = Streams::default();
        let process = Arc::new(process.clone());
        // The input of a terminal has no end: closing it would hang it up.
        let at_end = if self.terminal { AtEnd::KeepOpen } else { AtEnd::Close };
        if self.stdin.is_some() || at_end == AtEnd::Close {
            let feed = copy::feed(sandbox.clone(), process.clone(), self.stdin, streams.close.clone(), at_end);
            streams.tasks.spawn(streams.over.clone().run_until_cancelled_owned(feed));
        }
        let outputs = [(Output::Stdout, self.stdout), (Output::Stderr, self.stderr)];
        for (output, sink) in outputs.into_iter().take(if self.terminal { 1 } else { 2 }) {
            let drain = copy::drain(sandbox.clone(), process.clone(), output, sink);
            streams.tasks.spawn(streams.abandon.clone().run_until_cancelled_owned(drain));
        }
        streams.tasks.close();
        if let Some(mut logger) = self.logger {
            // It ends when the streams do.
            tokio::spawn(async move {
                if let Err(error) = logger.wait().await {
                    tracing::warn!(error = chain(&error), "logger lost");
                }
            });
        }
        streams
    }
}

/// Streams that flow.
#[derive(Debug, Default)]
pub struct Streams {
    tasks: TaskTracker,
    close: CancellationToken,
    over: CancellationToken,
    abandon: CancellationToken,
}

impl Streams {
    /// Closes standard input once what is in its pipe has been passed on.
    pub fn close_stdin(&self) {
        self.close.cancel();
    }

    /// The process is gone: nobody reads input any more.
    pub fn process_ended(&self) {
        self.over.cancel();
    }

    /// Waits until all output has been passed on, no longer than `by`.
    pub async fn finish(&self, by: Deadline) {
        self.over.cancel();
        if by.run(self.tasks.wait()).await.is_err() {
            tracing::warn!(elapsed_ms = by.total().as_millis() as u64, "output left behind: nobody reads it");
            self.abandon.cancel();
        }
    }
}
