//! Logs and signals of a program.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Logs JSON lines to standard error; `RUST_LOG` filters. To be called once.
pub fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Makes `root` the root directory of this process. What the programs of a node find by
/// its path, they find by the same path afterwards.
///
/// # Errors
/// When it is no directory, or the right is missing.
pub fn enter(root: &std::path::Path) -> std::io::Result<()> {
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")
}

/// Cancelled at the first `SIGTERM` or `SIGINT`.
///
/// # Errors
/// When signals cannot be received.
pub fn stopped() -> std::io::Result<CancellationToken> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopped.cancel();
    });
    Ok(stop)
}
