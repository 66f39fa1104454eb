//! The daemon's view of its own node in the API: annotations and events.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use osc_fault::chain;
use osc_objects::{MachineConfig, MachineConfiguration, NodeDisruptionPolicy, names::machine};
use serde_json::{Value, json};

use super::next::Notes;
use crate::{names, pools::State};

/// Longest answer of the API.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest reason that is reported, in characters.
const MAX_REASON: usize = 2000;

/// A request the API did not grant.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It was refused or could not be sent.
    #[error("cannot {verb} {object}: check the connection and the rights of this node")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// There was no answer.
    #[error("cannot {verb} {object}: no answer within {ANSWER:?}")]
    Silent {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
    },
    /// The configuration the node was told to run does not exist.
    #[error("MachineConfig {0} does not exist: restore it, or let the pool render another")]
    NoConfig(String),
}

/// Access to one node.
pub(super) struct NodeObject {
    name: String,
    nodes: Api<Node>,
    configs: Api<MachineConfig>,
    settings: Api<MachineConfiguration>,
    recorder: Recorder,
}

/// Reads the annotations the daemon works by.
pub(super) fn notes(node: &Node) -> Notes {
    let note = |name: &str| node.annotations().get(name).cloned().unwrap_or_default();
    Notes {
        current: note(names::CURRENT),
        desired: note(names::DESIRED),
        state: State::parse(&note(names::STATE)),
        reason: note(names::REASON),
        post_action: note(names::POST_ACTION),
        desired_drain: note(names::DESIRED_DRAIN),
        applied_drain: note(names::APPLIED_DRAIN),
        single: note(names::TOPOLOGY) == "SingleReplica",
    }
}

impl NodeObject {
    pub(super) fn new(client: &Client, name: &str) -> Self {
        let reporter = Reporter { controller: names::DAEMON.into(), instance: Some(name.into()) };
        Self {
            name: name.into(),
            nodes: Api::all(client.clone()),
            configs: Api::all(client.clone()),
            settings: Api::all(client.clone()),
            recorder: Recorder::new(client.clone(), reporter),
        }
    }

    async fn ask<T>(
        &self,
        verb: &'static str,
        object: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(ANSWER, request).await {
            Ok(answer) => {
                answer.map_err(|source| ApiError::Refused { verb, object: object.into(), source: Box::new(source) })
            }
            Err(_) => Err(ApiError::Silent { verb, object: object.into() }),
        }
    }

    /// Sets annotations; returns the node as it is then.
    pub(super) async fn annotate(&self, annotations: &[(&str, &str)]) -> Result<Node, ApiError> {
        let map: serde_json::Map<String, Value> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let patch = Patch::Merge(json!({"metadata": {"annotations": map}}));
        let params = PatchParams { field_manager: Some(names::DAEMON.into()), ..PatchParams::default() };
        let object = format!("node {}", self.name);
        self.ask("annotate", &object, self.nodes.patch(&self.name, &params, &patch)).await
    }

    /// The `spec` of a configuration.
    pub(super) async fn config(&self, name: &str) -> Result<Value, ApiError> {
        if name == names::BASELINE {
            return Ok(Value::Null);
        }
        let found = self.ask("read", &format!("MachineConfig {name}"), self.configs.get_opt(name)).await?;
        let config = found.ok_or_else(|| ApiError::NoConfig(name.into()))?;
        Ok(serde_json::to_value(config.spec).unwrap_or_default()) // it came as JSON
    }

    /// What changes ask for in this cluster. Clusters need not have such settings.
    pub(super) async fn policy(&self) -> Result<NodeDisruptionPolicy, ApiError> {
        let object = format!("MachineConfiguration {}", machine::CONFIGURATION);
        match self.ask("read", &object, self.settings.get(machine::CONFIGURATION)).await {
            Ok(found) => Ok(found.spec.node_disruption_policy),
            Err(ApiError::Refused { source, .. }) if is_missing(&source) => Ok(NodeDisruptionPolicy::default()),
            Err(error) => Err(error),
        }
    }

    /// Tells people. An event that gets lost is no reason to stop.
    pub(super) async fn event(&self, node: &Node, kind: EventType, reason: &str, note: &str) {
        let event = Event {
            type_: kind,
            reason: reason.into(),
            note: Some(shorten(note, 1000)),
            action: "Update".into(),
            secondary: None,
        };
        let about = node.object_ref(&());
        let sent = tokio::time::timeout(ANSWER, self.recorder.publish(&event, &about)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(node.name = self.name, reason, "an event was lost");
        }
    }
}

/// Whether the object or its kind does not exist.
fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// A reason as long as is reported.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    shorten(&chain(error), MAX_REASON)
}

fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }
}
