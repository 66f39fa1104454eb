//! The agent's face to the host: `grpc.AgentService` and `grpc.Health` over ttrpc.
//!
//! A request that changes something runs to its end even when the host's
//! connection breaks meanwhile, because half a container is worse than one nobody
//! asked for. Requests that wait or stream end with their connection.

mod agent;
mod error;
mod health;
mod server;

use std::{future::Future, sync::Arc, time::Instant};

use osc_agent_protocol::kind::chain;
use tokio_util::task::TaskTracker;

use crate::{metrics::Metrics, sandbox::Sandbox};

pub use error::RequestError;
pub use server::{ServeError, serve};

/// Serves requests about one sandbox.
pub struct Service {
    sandbox: Arc<Sandbox>,
    metrics: Arc<Metrics>,
    /// Whether the agent is the guest's first process.
    init: bool,
    tasks: TaskTracker,
}

impl Service {
    /// A service for `sandbox`.
    pub fn new(sandbox: Arc<Sandbox>, init: bool) -> Self {
        Self { sandbox, metrics: Arc::default(), init, tasks: TaskTracker::new() }
    }

    /// Requests that are being worked on whatever happens to their connection.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs a request that changes something to its end.
    async fn change<T, E, F>(&self, method: &'static str, work: impl FnOnce(Arc<Sandbox>) -> F) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        E: Into<RequestError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.sandbox));
        // The log line belongs to the work, not to whoever still waits for it.
        let logged = async move { answer(method, work).await };
        self.tasks.spawn(logged).await.unwrap_or_else(|_| Err(RequestError::Died.status()))
    }
}

/// Runs a request and turns its failure into a log line and a status.
async fn answer<T, E: Into<RequestError>>(
    method: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> ttrpc::Result<T> {
    let begun = Instant::now();
    let result = work.await.map_err(Into::into);
    let elapsed_ms = begun.elapsed().as_millis() as u64;
    match result {
        Ok(value) => {
            tracing::debug!(rpc.method = method, elapsed_ms, "request served");
            Ok(value)
        }
        Err(error) => {
            let error: RequestError = error;
            tracing::error!(
                rpc.method = method,
                elapsed_ms,
                error = chain(&error),
                error.kind = ?error.kind(),
                "request failed"
            );
            Err(error.status())
        }
    }
}
