//! In the operator: verdicts of probers become labels of nodes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use osc_fault::{Kind, chain};
use osc_objects::names::kata;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PROBER;
use crate::error::{Attempt, Error};

/// On nodes whose label is a prober's: what others labelled is left alone.
const PROBED: &str = "kataconfiguration.openshift.io/probed";
/// Until a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// A node loses its mark when its prober says no for this long: a prober that has just
/// started is not ready for a moment, and losing the mark can empty a node.
const SETTLED: Duration = Duration::from_secs(60);
/// How often labels are written although no verdict changed: somebody may have taken one away.
const REPEAT: Duration = Duration::from_secs(600);

/// Marks nodes as long as it is polled. A mark stays when a prober ends: the node stays able.
pub(crate) async fn mark_always(client: Client, namespace: String) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let nodes: Api<Node> = Api::all(client);
    let config = watcher::Config::default().labels(&format!("name={PROBER}"));
    let mut events = std::pin::pin!(watcher(pods, config).default_backoff());
    let mut verdicts: BTreeMap<String, Verdict> = BTreeMap::new();
    let mut marked: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        let waits = verdicts.iter().any(|(node, verdict)| marked.get(node) != Some(&verdict.able));
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                    if let Some((node, able)) = said(&pod) {
                        Verdict::hear(verdicts.entry(node), able, Instant::now());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::debug!(error = %error, "watch interrupted"),
                None => return,
            },
            () = tokio::time::sleep(if waits { RETRY } else { REPEAT }) => if !waits { marked.clear() },
        }
        for (node, verdict) in &verdicts {
            if marked.get(node) == Some(&verdict.able) || !verdict.counts(Instant::now()) {
                continue;
            }
            match mark(&nodes, node, verdict.able).await {
                Ok(()) => drop(marked.insert(node.clone(), verdict.able)),
                Err(error) => tracing::warn!(node.name = node, error = chain(&error), "node not marked"),
            }
        }
    }
}

/// What a prober says, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    able: bool,
    since: Instant,
}

impl Verdict {
    fn hear(last: Entry<'_, String, Self>, able: bool, now: Instant) {
        let last = last.or_insert(Self { able, since: now });
        if last.able != able {
            *last = Self { able, since: now };
        }
    }

    fn counts(&self, now: Instant) -> bool {
        self.able || now.duration_since(self.since) >= SETTLED
    }
}

/// The node of a prober, and whether sandboxes can run there. One that has not asked yet or
/// ends says nothing.
fn said(pod: &Pod) -> Option<(String, bool)> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let prober = containers.iter().find(|container| container.name == PROBER)?;
    let runs = prober.state.as_ref().is_some_and(|state| state.running.is_some());
    let asked = runs && prober.started == Some(true) && pod.metadata.deletion_timestamp.is_none();
    asked.then_some((node, prober.ready))
}

async fn mark(nodes: &Api<Node>, node: &str, able: bool) -> Result<(), Error> {
    let done = if able { set(nodes, node, json!("true")).await } else { unmark(nodes, node).await };
    match done {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// Takes away what a prober gave.
async fn unmark(nodes: &Api<Node>, node: &str) -> Result<(), Error> {
    let found = nodes.get_metadata(node).await.reading(node)?;
    if found.annotations().contains_key(PROBED) { set(nodes, node, Value::Null).await } else { Ok(()) }
}

async fn set(nodes: &Api<Node>, node: &str, value: Value) -> Result<(), Error> {
    let patch = json!({"metadata": {"labels": {kata::ELIGIBLE_LABEL: value}, "annotations": {PROBED: value}}});
    let done = nodes.patch_metadata(node, &PatchParams::default(), &Patch::Merge(patch)).await;
    done.map(drop).during("label node", node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_has_to_last_and_a_yes_counts_at_once() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut verdicts = BTreeMap::new();
        let mut hear = |able, at| {
            Verdict::hear(verdicts.entry("n".to_owned()), able, after(at));
            verdicts["n"]
        };
        assert!(!hear(false, 0).counts(after(59)));
        assert!(hear(false, 30).counts(after(60)), "hearing it again does not start anew");
        assert!(hear(true, 61).counts(after(61)));
        assert!(!hear(false, 62).counts(after(121)) && hear(false, 122).counts(after(122)));
    }

    #[test]
    fn only_a_prober_that_asked_and_stays_has_a_verdict() {
        let running = json!({"running": {}});
        for (state, started, ready, deleted, wanted) in [
            (&running, Some(true), true, false, Some(true)),
            (&running, Some(true), false, false, Some(false)),
            (&running, Some(false), false, false, None),
            (&running, None, true, false, None),
            (&running, Some(true), false, true, None),
            (&json!({"waiting": {}}), Some(true), false, false, None),
        ] {
            let mut pod = json!({
                "metadata": {"name": "p"},
                "spec": {"nodeName": "n", "containers": []},
                "status": {"containerStatuses": [{"name": PROBER, "state": state, "started": started, "ready": ready,
                    "image": "i", "imageID": "", "restartCount": 0}]},
            });
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let wanted = wanted.map(|able| ("n".to_owned(), able));
            assert_eq!(said(&pod), wanted, "{state} {started:?} {ready} {deleted}");
        }
    }
}
