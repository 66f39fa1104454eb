//! Putting the agent together and running it.

use std::{io, path::Path, sync::Arc};

use osc_agent_protocol::{Kind, kind::chain, names};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    console,
    container::{self, Launcher, reaper::Reaper},
    device::{Devices, Uevents},
    log::Log,
    relay,
    rpc::{ServeError, Service, serve},
    sandbox::Sandbox,
};

/// The agent's own program, which also builds containers.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its children cannot be watched.
    #[error("cannot watch over child processes")]
    Reaper(#[source] io::Error),
    /// Containers could not be started.
    #[error("cannot prepare for containers")]
    Launcher(#[source] container::Error),
    /// Nobody could reach it.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl RunError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Reaper(source) => Kind::of_io(source),
            Self::Launcher(source) => source.kind(),
            Self::Serve(source) => source.kind(),
        }
    }
}

/// Serves until the sandbox is destroyed or the agent is told to end. `init` says
/// whether it is the guest's first process.
///
/// # Errors
/// [`RunError`] when it cannot serve at all.
pub async fn run(config: Config, log: &Log, init: bool) -> Result<(), RunError> {
    let stop = CancellationToken::new();
    let reaper = Reaper::start().map_err(RunError::Reaper)?;
    let uevents = Uevents::default();
    let devices = Devices::new(uevents.clone(), config.hotplug_timeout).loading_drivers(reaper.clone());
    let devices = Arc::new(devices);
    let pipe_size = u32::try_from(config.container_pipe_size).ok().filter(|bytes| *bytes > 0);
    let launcher = Launcher::new(OWN_PROGRAM, Path::new(names::GUEST_RUN_DIR), reaper.clone())
        .map_err(RunError::Launcher)?
        .pipe_size(pipe_size);
    let sandbox = Arc::new(Sandbox::new(launcher, devices, stop.clone()));

    // None of these is needed to answer the first request.
    in_background("device announcements", async move { uevents.listen().await });
    in_background("relay", relay::serve(names::RELAY_PORT));
    if config.log_port != 0 {
        let log = log.clone();
        in_background("log port", async move { log.serve(config.log_port).await });
    }
    if config.debug_console {
        let reaper = reaper.clone();
        in_background("debug console", async move { console::serve(reaper, config.debug_console_port).await });
    }
    if init {
        let sandbox = Arc::clone(&sandbox);
        in_background("loopback", async move { sandbox.network.loopback_up().await });
    }
    tokio::spawn(end_on_signal(Arc::clone(&sandbox)));
    serve(Service::new(sandbox, init), &config.server_addr, stop).await?;
    Ok(())
}

/// Runs a part of the agent the rest can do without; its failure is only logged.
fn in_background<E: std::error::Error + 'static>(
    part: &'static str,
    work: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    tokio::spawn(async move {
        if let Err(error) = work.await {
            tracing::warn!(part, error = chain(&error), "part of the agent does not work");
        }
    });
}

/// Takes the sandbox down when the agent is told to end.
async fn end_on_signal(sandbox: Arc<Sandbox>) {
    let handlers = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = handlers else {
        tracing::warn!("signals cannot be handled");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    sandbox.destroy().await;
}
