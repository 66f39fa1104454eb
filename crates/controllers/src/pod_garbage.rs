//! Pods nobody else cleans up: on vanished nodes, dying unscheduled, or finished
//! in too large numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, Preconditions},
};
use osc_fault::chain;
use serde_json::json;

use crate::{
    context::{Context, patching},
    error::{Attempt, Error},
    pods,
};

/// Time between rounds.
const PERIOD: Duration = Duration::from_secs(20);
/// A node must be missing for this long: it may just be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Runs the controller.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let cx = cx.clone();
    async move {
        let mut missing = BTreeMap::new();
        loop {
            tokio::select! {
                () = cx.stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let nodes: BTreeSet<String> = cx.caches.nodes.all().iter().map(|node| node.name_any()).collect();
            let all = cx.caches.pods.all();
            let gone = gone_nodes(&mut missing, &nodes, &all, Instant::now());
            for (pod, cause) in garbage(&all, &gone, cx.options.finished_pods) {
                if let Err(error) = collect(&cx, &pod, cause).await {
                    tracing::warn!(pod.name = %pod.name_any(), error = %chain(&error), "pod not collected; it is tried again");
                }
            }
        }
    }
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    NodeGone,
    NeverScheduled,
    TooManyFinished,
}

/// Nodes that pods name and that have been missing long enough.
fn gone_nodes(
    missing: &mut BTreeMap<String, Instant>,
    nodes: &BTreeSet<String>,
    all: &[Arc<Pod>],
    now: Instant,
) -> BTreeSet<String> {
    let named: BTreeSet<&str> = all.iter().map(|pod| pods::node(pod)).filter(|name| !name.is_empty()).collect();
    missing.retain(|name, _| named.contains(name.as_str()) && !nodes.contains(name));
    for name in named.iter().filter(|name| !nodes.contains(**name)) {
        missing.entry((*name).to_owned()).or_insert(now);
    }
    let overdue = missing.iter().filter(|(_, since)| now.duration_since(**since) >= QUARANTINE);
    overdue.map(|(name, _)| name.clone()).collect()
}

fn garbage(all: &[Arc<Pod>], gone: &BTreeSet<String>, limit: usize) -> Vec<(Arc<Pod>, Cause)> {
    let mut found = Vec::new();
    let mut finished = Vec::new();
    for pod in all {
        if gone.contains(pods::node(pod)) {
            found.push((pod.clone(), Cause::NodeGone));
        } else if pods::is_deleting(pod) && pods::node(pod).is_empty() {
            found.push((pod.clone(), Cause::NeverScheduled));
        } else if pods::is_finished(pod) && !pods::is_deleting(pod) {
            finished.push(pod.clone());
        }
    }
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    let surplus = finished.len().saturating_sub(limit);
    found.extend(finished.into_iter().take(surplus).map(|pod| (pod, Cause::TooManyFinished)));
    found
}

async fn collect(cx: &Context, pod: &Pod, cause: Cause) -> Result<(), Error> {
    let name = pod.name_any();
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), &pod.namespace().unwrap_or_default());
    if cause == Cause::NodeGone && !pods::is_finished(pod) {
        // Nobody will report its end any more; its owner must not wait for it.
        let patch = json!({
            "metadata": {"uid": pod.uid()},
            "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": Time(Timestamp::now())}]},
        });
        let patched = api.patch_status(&name, &patching(), &Patch::Strategic(patch)).await;
        patched.unless_gone("fail pod of a vanished node", &name)?;
    }
    let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
    let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
    api.delete(&name, &params).await.unless_gone("collect pod", &name).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn garbage_is_told_from_the_rest() {
        let make = |name: &str, node: &str, phase: &str, deleting: bool| {
            let when = deleting.then_some("2026-01-01T00:00:00Z");
            Arc::new(pod(json!({
                "metadata": {"name": name, "deletionTimestamp": when, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())},
                "spec": {"nodeName": node}, "status": {"phase": phase}})))
        };
        let all = [
            make("fine", "here", "Running", false),
            make("lost", "gone", "Running", false),
            make("dying", "here", "Running", true),
            make("never", "", "Pending", true),
            make("pending", "", "Pending", false),
            make("a", "here", "Succeeded", false),
            make("bb", "here", "Failed", false),
            make("ccc", "here", "Succeeded", false),
        ];
        let got: Vec<_> = garbage(&all, &BTreeSet::from(["gone".to_owned()]), 2)
            .into_iter()
            .map(|(pod, cause)| (pod.name_any(), cause))
            .collect();
        let want = [("lost", Cause::NodeGone), ("never", Cause::NeverScheduled), ("a", Cause::TooManyFinished)];
        assert_eq!(got, want.map(|(name, cause)| (name.to_owned(), cause)));
    }

    #[test]
    fn a_node_must_be_missing_for_a_while() {
        let all = [Arc::new(pod(json!({"spec": {"nodeName": "n"}})))];
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        assert!(gone_nodes(&mut missing, &BTreeSet::new(), &all, start).is_empty());
        assert_eq!(gone_nodes(&mut missing, &BTreeSet::new(), &all, start + QUARANTINE).len(), 1);
        let back = BTreeSet::from(["n".to_owned()]);
        assert!(gone_nodes(&mut missing, &back, &all, start + QUARANTINE).is_empty());
        assert!(gone_nodes(&mut missing, &BTreeSet::new(), &all, start + QUARANTINE).is_empty(), "counted anew");
    }
}
