//! Listening, and leaving in good order.

use std::{io, sync::Arc, time::Duration};

use osc_agent_protocol::{Kind, agent_ttrpc, health_ttrpc, kind};
use tokio_util::sync::CancellationToken;
use ttrpc::r#async::{Server, transport::Listener};

use super::{Service, health::Pulse};

/// Longest wait for requests that are being worked on when the agent leaves.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// The agent cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address:?}: give vsock://-1:PORT or unix://PATH, and check that the guest has a vsock device"
    )]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server does not start.
    #[error("cannot serve on {address:?}")]
    Start {
        /// The address.
        address: String,
        /// Why.
        source: ttrpc::Error,
    },
}

impl ServeError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Bind { source, .. } => Kind::of_io(source),
            Self::Start { source, .. } => kind::of_ttrpc(source),
        }
    }
}

/// Serves on `address` until `stop` is cancelled, then lets requests that are
/// being worked on finish.
///
/// # Errors
/// [`ServeError`] when nobody could reach the agent at `address`.
pub async fn serve(service: Service, address: &str, stop: CancellationToken) -> Result<(), ServeError> {
    let listener = bind(address).map_err(|source| ServeError::Bind { address: address.into(), source })?;
    let service = Arc::new(service);
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(agent_ttrpc::create_agent_service(service.clone()))
        .register_service(health_ttrpc::create_health(Arc::new(Pulse)));
    server.start().await.map_err(|source| ServeError::Start { address: address.into(), source })?;
    tracing::info!(address, version = env!("CARGO_PKG_VERSION"), "agent serves");
    stop.cancelled().await;
    service.tasks().close();
    // The request that stopped us is among them: its answer goes out first.
    if tokio::time::timeout(LAST_REQUESTS, service.tasks().wait()).await.is_err() {
        tracing::warn!("requests are still being worked on");
    }
    server.stop_listen().await;
    server.disconnect().await;
    Ok(())
}

fn bind(address: &str) -> io::Result<Listener> {
    if let Some(path) = address.strip_prefix("unix://") {
        // Left behind by an agent that was killed.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Listener::bind(address)
}
