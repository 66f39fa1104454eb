//! Node life cycle: silence, taints, eviction.
//!
//! ```text
//!  lease or status renewed ─► fine
//!  silent for 50 s ─► conditions Unknown ─► taints unreachable ─► pods not ready
//!                                             └─ tolerationSeconds over ─► pods deleted
//! ```

mod judge;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, Preconditions},
};
use serde_json::json;

use crate::{
    cache::Key,
    context::{Context, patching},
    error::{Attempt, Error},
    events::Recorder,
    nodes::judge::{Eviction, Pulse, condition, eviction, silent_conditions, taints},
    pods,
    queue::{Queue, work},
    taints::NO_EXECUTE,
    wake,
};

/// Nodes worked on at the same time.
const PARALLEL: usize = 4;

struct Nodes {
    cx: Context,
    queue: Queue<Key>,
    events: Recorder,
    pulses: Mutex<HashMap<String, Pulse>>,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    wake::on_own_changes(&cx.caches.nodes, &queue);
    let on = queue.clone();
    cx.caches.leases.on_change(move |change| on.add(Key::cluster(change.latest().name_any())));
    let (on, nodes) = (queue.clone(), cx.caches.nodes.clone());
    cx.caches.pods.on_change(move |change| {
        // A pod that arrives on a tainted node may have to leave again.
        let Some(pod) = &change.new else { return };
        let before = change.old.as_ref().map(|old| (pods::node(old), old.spec.as_ref().map(|spec| &spec.tolerations)));
        let now = (pods::node(pod), pod.spec.as_ref().map(|spec| &spec.tolerations));
        let key = Key::cluster(pods::node(pod));
        if before != Some(now) && nodes.get(&key).is_some_and(|node| drives_away(&node)) {
            on.add(key);
        }
    });
    let events = cx.events.of("node-controller");
    let this = Arc::new(Nodes { cx: cx.clone(), queue, events, pulses: Mutex::default() });
    let stop = cx.stop.clone();
    async move {
        work("node", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

fn node_taints(node: &Node) -> &[k8s_openapi::api::core::v1::Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn drives_away(node: &Node) -> bool {
    node_taints(node).iter().any(|taint| taint.effect == NO_EXECUTE)
}

impl Nodes {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(node) = self.cx.caches.nodes.get(&key) else {
            self.pulses.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
            return Ok(None);
        };
        let grace = self.cx.options.node_grace;
        let silence = self.silence(&node);
        let mut next = grace.saturating_sub(silence).max(Duration::from_millis(100));
        if silence >= grace {
            next = grace;
            let unknown = silent_conditions(&node, Timestamp::now());
            if !unknown.is_empty() {
                self.declare_silent(&node, unknown).await?;
                // The taints follow when the changed node comes back by its watch.
                return Ok(Some(Duration::from_secs(1)));
            }
            self.mark_pods(&node).await?;
        }
        if let Some(taints) = taints(&node, Timestamp::now()) {
            self.taint(&node, taints).await?;
            return Ok(Some(Duration::from_secs(1).min(next)));
        }
        if drives_away(&node)
            && let Some(eviction) = self.evict(&node).await?
        {
            next = next.min(eviction);
        }
        Ok(Some(next))
    }

    /// Time since the last sign of life.
    fn silence(&self, node: &Node) -> Duration {
        let name = node.name_any();
        let lease = self.cx.caches.leases.get(&Key::new("kube-node-lease", &*name));
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0.to_string()));
        let heartbeat =
            condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let sign = format!("{renewed:?} {heartbeat:?}");
        let now = Instant::now();
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.entry(name).or_insert_with(|| Pulse::first(sign.clone(), now)).beat(sign, now)
    }

    async fn declare_silent(
        &self,
        node: &Node,
        conditions: Vec<k8s_openapi::api::core::v1::NodeCondition>,
    ) -> Result<(), Error> {
        let name = node.name_any();
        let message = format!("Node {name} status is now: NodeNotReady");
        self.events.normal(node, "NodeNotReady", message);
        tracing::warn!(node.name = %name, "node is silent");
        let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"conditions": conditions}});
        let api: Api<Node> = Api::all(self.cx.client.clone());
        let patched = api.patch_status(&name, &patching(), &Patch::Strategic(patch)).await;
        patched.unless_gone("declare silent node", &name).map(|_| ())
    }

    async fn taint(&self, node: &Node, taints: Vec<k8s_openapi::api::core::v1::Taint>) -> Result<(), Error> {
        let name = node.name_any();
        // Taints are one list for everybody: the version keeps others' changes safe.
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let api: Api<Node> = Api::all(self.cx.client.clone());
        let patched = api.patch(&name, &patching(), &Patch::Merge(patch)).await;
        patched.unless_gone("taint node", &name).map(|_| ())
    }

    fn pods_on(&self, node: &Node) -> Vec<Arc<Pod>> {
        let name = node.name_any();
        self.cx.caches.pods.all().into_iter().filter(|pod| pods::node(pod) == name && !pods::is_finished(pod)).collect()
    }

    /// Pods of a silent node are not ready: nobody should send them requests.
    async fn mark_pods(&self, node: &Node) -> Result<(), Error> {
        for pod in self.pods_on(node).iter().filter(|pod| pods::is_ready(pod)) {
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"conditions": [{
                    "type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now())}]},
            });
            self.events.warning(pod.as_ref(), "NodeNotReady", "Node is not ready".into());
            self.patch_pod_status(pod, patch, "mark pod not ready").await?;
        }
        Ok(())
    }

    /// Deletes pods that may stay no longer; returns when the next one has to go.
    async fn evict(&self, node: &Node) -> Result<Option<Duration>, Error> {
        let now = Timestamp::now();
        let mut next = None::<Duration>;
        for pod in self.pods_on(node).iter().filter(|pod| !pods::is_deleting(pod)) {
            match eviction(node_taints(node), pod, now) {
                Eviction::Never => {}
                Eviction::At(at) if at > now => {
                    let left = pods::elapsed(now, at);
                    next = Some(next.map_or(left, |sooner| sooner.min(left)));
                }
                Eviction::At(_) => self.delete(pod).await?,
            }
        }
        Ok(next)
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": Time(Timestamp::now())}]},
        });
        self.patch_pod_status(pod, patch, "announce eviction of pod").await?;
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.events.normal(pod, "TaintManagerEviction", message);
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &namespace);
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().preconditions(preconditions);
        api.delete(&name, &params).await.unless_gone("evict pod", &name).map(|_| ())
    }

    async fn patch_pod_status(&self, pod: &Pod, patch: serde_json::Value, verb: &'static str) -> Result<(), Error> {
        let name = pod.name_any();
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &pod.namespace().unwrap_or_default());
        let patched = api.patch_status(&name, &patching(), &Patch::Strategic(patch)).await;
        patched.unless_gone(verb, &name).map(|_| ())
    }
}
