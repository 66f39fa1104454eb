//! Marks a node on which sandboxes can run.
//!
//! Contract with the operator: label
//! `feature.node.kubernetes.io/runtime.kata=true`, as node feature discovery sets it. What
//! decides is a command on the node, `osc check --json`: it ends with 0 exactly when a
//! sandbox can run there. A command that cannot be asked changes nothing.

use std::{process::Stdio, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use osc_fault::chain;
use osc_objects::names::kata;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::error::{Attempt, Error};

/// A verdict may need a guest to be booted.
const ASK_LIMIT: Duration = Duration::from_secs(180);

/// What a prober needs to know.
#[derive(Clone, Debug)]
pub struct Prober {
    /// Name of the node it runs on.
    pub node: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Pause between two questions.
    pub every: Duration,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no command to ask: name one, for example osc check --json")]
    Nothing,
    #[error("{command} cannot be started: is it on this node?")]
    Start { command: String, source: std::io::Error },
    #[error("{command} did not end within {limit:?}: run it by hand to see why")]
    Silent { command: String, limit: Duration },
    #[error("{command} ended with neither 0 nor 1: run it by hand to see why")]
    Unclear { command: String },
    #[error(transparent)]
    Api(#[from] Error),
}

impl Prober {
    /// Asks and marks until stopped. A mark stays when the prober ends: the node stays able.
    pub async fn run(&self, client: Client, stop: CancellationToken) {
        loop {
            if let Err(error) = self.once(&client).await {
                tracing::warn!(node.name = self.node, error = chain(&error), "node not probed");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.every) => {}
            }
        }
    }

    async fn once(&self, client: &Client) -> Result<(), ProbeError> {
        let able = self.ask().await?;
        let value = if able { json!("true") } else { Value::Null };
        let patch = json!({"metadata": {"labels": {kata::ELIGIBLE_LABEL: value}}});
        let nodes: Api<Node> = Api::all(client.clone());
        // The same again is no write for the API.
        nodes
            .patch_metadata(&self.node, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .during("label node", &self.node)?;
        Ok(())
    }

    async fn ask(&self) -> Result<bool, ProbeError> {
        let (program, arguments) = self.command.split_first().ok_or(ProbeError::Nothing)?;
        let command = || program.clone();
        let mut asked = Command::new(program);
        asked.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(ASK_LIMIT, asked.status()).await;
        let ended = ended.map_err(|_| ProbeError::Silent { command: command(), limit: ASK_LIMIT })?;
        match ended.map_err(|source| ProbeError::Start { command: command(), source })?.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(ProbeError::Unclear { command: command() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_clear_answer_counts() {
        for (command, wanted) in [
            (vec!["true"], Some(true)),
            (vec!["false"], Some(false)),
            (vec!["sh", "-c", "exit 7"], None),
            (vec!["/nowhere/at-all"], None),
            (vec![], None),
        ] {
            let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
            let prober = Prober { node: "n".into(), command: command.clone(), every: Duration::from_secs(1) };
            assert_eq!(prober.ask().await.ok(), wanted, "{command:?}");
        }
    }
}
