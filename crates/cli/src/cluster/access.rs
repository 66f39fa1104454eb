//! What the API server asks of a node, answered by that node's agent.

use async_trait::async_trait;
use futures::StreamExt;
use osc_agent_protocol::{Kind, kind::chain};
use osc_control_plane::streams::{ByteStream, ExecOptions, LogOptions, NodeAccess, NodeError};
use osc_node::{
    agent::{Access, AccessError, Wanted},
    logs::Selection,
};
use serde_json::Value;

/// The agent of one node.
pub struct Agent(pub Access);

#[async_trait]
impl NodeAccess for Agent {
    async fn logs(&self, pod: &Value, options: LogOptions) -> Result<ByteStream, NodeError> {
        let selection = selection(&options)?;
        let log = self.0.logs(uid(pod), &options.container, options.previous, selection).await.map_err(refused)?;
        Ok(Box::pin(log.map(|bytes| bytes.map_err(Into::into))))
    }

    async fn exec(&self, pod: &Value, options: ExecOptions) -> Result<String, NodeError> {
        let wanted = wanted(&options);
        self.0.exec(uid(pod), &options.container, options.command, wanted).await.map_err(refused)
    }

    async fn attach(&self, pod: &Value, options: ExecOptions) -> Result<String, NodeError> {
        self.0.attach(uid(pod), &options.container, wanted(&options)).await.map_err(refused)
    }

    async fn port_forward(&self, pod: &Value, ports: Vec<u16>) -> Result<String, NodeError> {
        self.0.port_forward(uid(pod), ports).await.map_err(refused)
    }
}

fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

fn wanted(options: &ExecOptions) -> Wanted {
    let ExecOptions { stdin, stdout, stderr, tty, .. } = *options;
    Wanted { stdin, stdout, stderr, tty }
}

fn selection(options: &LogOptions) -> Result<Selection, NodeError> {
    let invalid = |error: jiff::Error| NodeError::NotReady(error.to_string());
    let since = match (&options.since_time, options.since_seconds) {
        (Some(time), _) => Some(time.parse().map_err(invalid)?),
        (None, Some(seconds)) => {
            let span = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            // Longer ago than any clock goes back is since ever.
            jiff::Timestamp::now().checked_sub(span).ok()
        }
        (None, None) => None,
    };
    let LogOptions { follow, timestamps, tail_lines: tail, limit_bytes: limit, .. } = *options;
    Ok(Selection { follow, since, timestamps, tail, limit })
}

fn refused(error: AccessError) -> NodeError {
    let text = chain(&error);
    match error.kind() {
        Kind::NotFound => NodeError::NotFound(text),
        Kind::Busy | Kind::Invalid => NodeError::NotReady(text),
        _ => NodeError::Unavailable(text),
    }
}
