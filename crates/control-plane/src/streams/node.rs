//! What the API server asks of node agents.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use osc_api::status::Status;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::options::{ExecOptions, LogOptions};

/// Bytes as they come; dropping it ends the work behind it.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// Streams open at once over all nodes.
const MOST_STREAMS: usize = 1024;

/// Why a node cannot give what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// There is no such pod or container on the node, or no such run of it.
    #[error("{0}")]
    NotFound(String),
    /// It is not in a state in which this can be asked.
    #[error("{0}")]
    NotReady(String),
    /// The node or its runtime does not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl NodeError {
    pub(super) fn status(self) -> Status {
        match self {
            Self::NotFound(message) => Status::new(404, "NotFound", message),
            Self::NotReady(message) => Status::bad_request(message),
            Self::Unavailable(message) => Status::internal(message),
        }
    }
}

/// The side of a node agent that the API server calls. Pods are given as whole
/// objects; the uid tells runs of the same name apart.
///
/// The addresses returned are `http` URLs of the runtime's streaming server,
/// reachable from this process and good for one use.
#[async_trait]
pub trait NodeAccess: Send + Sync {
    /// Output of a container, from the past and, with `follow`, until it ends.
    async fn logs(&self, pod: &Value, options: LogOptions) -> Result<ByteStream, NodeError>;
    /// Runs a command in a container.
    async fn exec(&self, pod: &Value, options: ExecOptions) -> Result<String, NodeError>;
    /// Joins the main process of a container.
    async fn attach(&self, pod: &Value, options: ExecOptions) -> Result<String, NodeError>;
    /// Reaches ports of the pod.
    async fn port_forward(&self, pod: &Value, ports: Vec<u16>) -> Result<String, NodeError>;
}

/// The node agents known, by node name.
#[derive(Clone)]
pub struct Nodes {
    agents: Arc<RwLock<HashMap<String, Arc<dyn NodeAccess>>>>,
    pub(super) streams: Arc<Semaphore>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { agents: Arc::default(), streams: Arc::new(Semaphore::new(MOST_STREAMS)) }
    }
}

impl Nodes {
    /// Asks `agent` about pods on `node` from now on.
    pub fn register(&self, node: &str, agent: Arc<dyn NodeAccess>) {
        self.agents.write().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), agent);
    }

    /// Forgets the agent of `node`.
    pub fn remove(&self, node: &str) {
        self.agents.write().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// The agent of the node a pod is on.
    pub(super) fn of(&self, pod: &Value) -> Result<Arc<dyn NodeAccess>, Status> {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let agent = self.agents.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        agent.ok_or_else(|| Status::unavailable(format!("node {node:?} is not connected")))
    }
}
