//! Emptying nodes whose daemon asks for it, and letting pods in again.
//!
//! A drain ends when no pod is left that could be elsewhere. Disruption budgets are
//! honoured by the eviction API; they are asked again until they allow it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{EvictParams, ListParams, Patch},
    runtime::events::EventType,
};
use osc_fault::chain;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{
    BURST, Options,
    error::{ControllerError, ask, unless},
    metrics::Metrics,
    observe::Stores,
    write::{Writer, patching},
};
use crate::{names, pools::NodeView};

/// Longest attempt.
const ATTEMPT: Duration = Duration::from_secs(90);
/// After this the pace gets slower: whatever is in the way takes its time.
const PATIENT: Duration = Duration::from_secs(600);
/// After this people are told.
const LONG: Duration = Duration::from_secs(3600);

/// Serves drain requests for ever.
pub(super) async fn run(client: Client, mut stores: Stores, options: Options, metrics: Arc<Metrics>) {
    stores.synced().await;
    // As many as nodes may be unavailable at once: pools bound them.
    let mut running = FuturesUnordered::new();
    // What was begun, until the store shows that it is over.
    let mut begun: HashMap<String, String> = HashMap::new();
    loop {
        for node in stores.nodes.all() {
            match node.drain_request() {
                None => drop(begun.remove(&node.name)),
                Some(request) if begun.get(&node.name).is_some_and(|known| known == request) => {}
                Some(request) => {
                    let (name, request) = (node.name.clone(), request.to_owned());
                    begun.insert(name.clone(), request.clone());
                    let (client, options, metrics) = (client.clone(), options.clone(), Arc::clone(&metrics));
                    let writer = Writer::new(&client);
                    running.push(Drain { client, writer, options, metrics, name, request }.serve());
                }
            }
        }
        tokio::select! {
            () = stores.changed() => tokio::time::sleep(BURST).await,
            Some(()) = running.next() => {}
        }
    }
}

/// Pause before the next attempt of a drain that has taken `since` already.
fn pause(retry: Duration, since: Duration) -> Duration {
    if since < PATIENT { retry } else { retry * 5 }
}

/// Whether a pod has to go before its node counts as empty.
fn must_go(pod: &Pod) -> bool {
    let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    let daemon = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    !mirror && !daemon && !matches!(phase, "Succeeded" | "Failed")
}

struct Drain {
    client: Client,
    writer: Writer,
    options: Options,
    metrics: Arc<Metrics>,
    name: String,
    request: String,
}

impl Drain {
    /// Works until the request is done or withdrawn.
    async fn serve(self) {
        let (begun, mut told) = (Instant::now(), false);
        loop {
            let result = timeout(ATTEMPT, self.attempt()).await;
            let why = match result {
                Ok(Ok(())) => return self.metrics.drain(&self.name, false),
                Ok(Err(error)) => chain(&error),
                Err(_) => "pods are still there, see the events of disruption budgets and pods".into(),
            };
            tracing::warn!(node.name = self.name, request = self.request, why, "not done yet; it is tried again");
            if begun.elapsed() > LONG && !told {
                told = true;
                self.metrics.drain(&self.name, true);
                self.complain(&why).await;
            }
            sleep(pause(self.options.drain_retry, begun.elapsed())).await;
        }
    }

    async fn complain(&self, why: &str) {
        if let Ok(Some(node)) = self.node().await {
            let note = format!("Draining takes more than {LONG:?}: {why}");
            self.writer.event(&node.reference(), EventType::Warning, "DrainFailed", note).await;
        }
    }

    async fn node(&self) -> Result<Option<NodeView>, ControllerError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = ask("read", format!("node {}", self.name), nodes.get_opt(&self.name)).await?;
        Ok(found.as_ref().map(NodeView::of))
    }

    /// One attempt; ends when nothing is left to do.
    async fn attempt(&self) -> Result<(), ControllerError> {
        loop {
            let Some(node) = self.node().await? else { return Ok(()) };
            if node.drain_request() != Some(&self.request) {
                return Ok(());
            }
            let close = self.request.starts_with("drain-");
            if node.cordoned != close {
                // Also when somebody else let pods in meanwhile: then it starts over.
                self.cordon(close).await?;
                continue;
            }
            if !close || self.evict().await? == 0 {
                match self.applied(&node).await {
                    // Somebody changed the node after it was looked at.
                    Err(error) if error.is_conflict() => continue,
                    other => return other,
                }
            }
            sleep(self.options.drain_poll).await;
        }
    }

    async fn cordon(&self, close: bool) -> Result<(), ControllerError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": {"unschedulable": close}}));
        let verb = if close { "cordon" } else { "uncordon" };
        ask(verb, format!("node {}", self.name), nodes.patch(&self.name, &patching(), &patch)).await.map(drop)
    }

    /// Asks every pod to go; returns how many are still there.
    async fn evict(&self) -> Result<usize, ControllerError> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let here = ListParams::default().fields(&format!("spec.nodeName={}", self.name));
        let there = ask("list", "pods", pods.list(&here)).await?;
        let left: Vec<Pod> = there.items.into_iter().filter(must_go).collect();
        for pod in left.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            let evicted =
                ask("evict", format!("pod {namespace}/{name}"), pods.evict(&name, &EvictParams::default())).await;
            // 429: a budget says not now.
            match unless(404, evicted) {
                Err(error) if error.code() == Some(429) => {
                    tracing::debug!(pod.namespace = namespace, pod.name = name, "a disruption budget keeps the pod");
                }
                other => drop(other?),
            }
        }
        Ok(left.len())
    }

    /// Records success, but only for the node as it was seen: cordoned and empty.
    async fn applied(&self, node: &NodeView) -> Result<(), ControllerError> {
        let (nodes, params): (Api<Node>, _) = (Api::all(self.client.clone()), patching());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {names::APPLIED_DRAIN: self.request},
            "resourceVersion": node.version}}));
        let request = nodes.patch(&self.name, &params, &patch);
        ask("record the drain of", format!("node {}", self.name), request).await.map(drop)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn pods_that_could_not_be_elsewhere_may_stay() {
        let owner =
            |kind: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true}]);
        for (metadata, phase, want) in [
            (json!({}), "Running", true),
            (json!({}), "Pending", true),
            (json!({}), "Succeeded", false),
            (json!({}), "Failed", false),
            (json!({"ownerReferences": owner("ReplicaSet")}), "Running", true),
            (json!({"ownerReferences": owner("DaemonSet")}), "Running", false),
            (json!({"annotations": {"kubernetes.io/config.mirror": "x"}}), "Running", false),
            (json!({"deletionTimestamp": "2020-01-01T00:00:00Z"}), "Running", true),
        ] {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).expect("a pod");
            assert_eq!(must_go(&pod), want, "{metadata} {phase}");
        }
    }

    #[test]
    fn patience_grows() {
        let retry = Duration::from_secs(60);
        assert_eq!(pause(retry, Duration::from_secs(599)), retry);
        assert_eq!(pause(retry, Duration::from_secs(600)), retry * 5);
    }
}
