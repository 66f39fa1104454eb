//! The scheduler: gives every pod without a node one.
//!
//! Hard rules (filters): `unschedulable`, taints, node selector and required
//! affinity, host ports, resources with overhead and sidecars, extended resources,
//! pod count, volumes, pod (anti-)affinity, topology spread. Among the nodes left,
//! preferences and emptiness decide. Pods with scheduling gates are held. There
//! is no preemption: a pod of high priority is placed first but evicts nobody.
//!
//! ```text
//!   pods, nodes ──► View ┐
//!   pending pods ─► Line ┴─► decide ──► assume ──► pods/binding
//!                               └─ nothing fits ─► condition, event, park
//! ```
//! Decisions are made one after another on one view that already counts what is
//! being bound, so a burst cannot overbook a node.

mod decide;
mod line;
pub(crate) mod node_affinity;
mod pod_affinity;
mod resources;
mod spread;
mod view;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::{
    api::core::v1::{Binding, Node, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt, api::Patch};
use osc_fault::chain;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    cache::{Change, Key},
    context::{Context, patching, posting},
    error::{Attempt, Error},
    events::Recorder,
    pods,
    scheduler::{decide::Decision, line::Line, view::View},
};

/// Bindings under way at the same time.
const PARALLEL: usize = 16;
/// Limit of one binding.
const BIND_LIMIT: Duration = Duration::from_secs(30);

struct Scheduler {
    cx: Context,
    events: Recorder,
    state: Mutex<State>,
    woken: Notify,
}

struct State {
    view: View,
    line: Line,
}

/// What came out of one binding or one report.
struct Outcome {
    key: Key,
    uid: String,
    failed: Option<Error>,
}

/// Registers the scheduler; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let caches = &cx.caches;
    let view = View::new(caches.namespaces.clone(), caches.claims.clone(), caches.volumes.clone());
    let scheduler = Arc::new(Scheduler {
        cx: cx.clone(),
        events: cx.events.of("default-scheduler"),
        state: Mutex::new(State { view, line: Line::default() }),
        woken: Notify::new(),
    });
    let on = scheduler.clone();
    caches.pods.on_change(move |change| on.pod_changed(change));
    let on = scheduler.clone();
    caches.nodes.on_change(move |change| on.node_changed(change));
    let on = scheduler.clone();
    caches.claims.on_change(move |_| on.cluster_changed());
    let on = scheduler.clone();
    caches.volumes.on_change(move |_| on.cluster_changed());
    scheduler.run()
}

impl Scheduler {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_mine(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let name = spec.scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default-scheduler");
        pods::node(pod).is_empty() && name == self.cx.options.scheduler_name && pods::is_active(pod)
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.latest();
        let key = Key::of(pod.as_ref());
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut state = self.state();
        let freed = change.old.as_ref().is_some_and(|old| !pods::node(old).is_empty())
            && change.new.as_ref().is_none_or(|new| pods::is_finished(new));
        let relabelled = change.old.as_ref().is_some_and(|old| old.metadata.labels != pod.metadata.labels);
        let arrived = !pods::node(pod).is_empty() && change.old.as_ref().is_none_or(|old| pods::node(old).is_empty());
        state.view.pod_changed(&uid, change.new.clone());
        match &change.new {
            Some(new) if self.is_mine(new) && !state.view.is_assumed(&uid) => {
                state.line.add(new);
                if change.old.as_ref().is_some_and(|old| old.spec != new.spec || relabelled) {
                    state.line.pod_changed(&key);
                }
            }
            _ => state.line.remove(&key),
        }
        if freed || relabelled || arrived {
            state.line.cluster_changed();
        }
        drop(state);
        self.woken.notify_one();
    }

    fn node_changed(&self, change: &Change<Node>) {
        let name = change.latest().name_any();
        // Heartbeats change nothing a pod could gain by.
        let relevant = match (&change.old, &change.new) {
            (Some(old), Some(new)) => {
                let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
                old.spec != new.spec
                    || old.metadata.labels != new.metadata.labels
                    || allocatable(old) != allocatable(new)
            }
            _ => true,
        };
        let mut state = self.state();
        state.view.node_changed(&name, change.new.clone());
        if relevant {
            state.line.cluster_changed();
            drop(state);
            self.woken.notify_one();
        }
    }

    fn cluster_changed(&self) {
        self.state().line.cluster_changed();
        self.woken.notify_one();
    }

    async fn run(self: Arc<Self>) {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < PARALLEL {
                let Some((key, pod)) = self.next_pod() else { break };
                running.push(self.place(key, pod));
            }
            let wake = self.state().line.wake_at();
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.cx.stop.cancelled() => return,
                () = self.woken.notified(), if running.len() < PARALLEL => {}
                () = timer, if running.len() < PARALLEL => {}
                Some(outcome) = running.next() => self.finish(outcome),
            }
        }
    }

    fn next_pod(&self) -> Option<(Key, Arc<Pod>)> {
        let mut state = self.state();
        while let Some(key) = state.line.pop(Instant::now()) {
            match self.cx.caches.pods.get(&key) {
                Some(pod) if self.is_mine(&pod) => return Some((key, pod)),
                _ => state.line.remove(&key),
            }
        }
        None
    }

    /// Decides and writes the decision down. The decision itself falls before the
    /// first await, so pods are decided strictly in order.
    fn place(self: &Arc<Self>, key: Key, pod: Arc<Pod>) -> impl Future<Output = Outcome> + Send + use<> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let gated =
            pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        let decision = (!gated).then(|| {
            let mut state = self.state();
            let decision = decide::decide(&pod, &state.view);
            if let Decision::Bind(node) = &decision {
                state.view.assume(&uid, node, pod.clone());
            }
            decision
        });
        let this = self.clone();
        async move {
            let work = async {
                match &decision {
                    None => {
                        this.report(&pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
                            .await
                    }
                    Some(Decision::Bind(node)) => this.bind(&pod, node).await,
                    Some(Decision::Unschedulable(why)) => {
                        this.events.warning(pod.as_ref(), "FailedScheduling", why.clone());
                        this.report(&pod, "Unschedulable", why).await
                    }
                }
            };
            let result = tokio::time::timeout(BIND_LIMIT, work).await.unwrap_or_else(|_| {
                Err(Error::Timeout { controller: "scheduler", key: key.to_string(), limit: BIND_LIMIT })
            });
            let bound = matches!(decision, Some(Decision::Bind(_)));
            let mut state = this.state();
            match &result {
                Ok(()) if bound => state.line.remove(&key),
                _ => {
                    state.line.park(&key, Instant::now());
                    state.view.forget(&uid);
                }
            }
            drop(state);
            Outcome { key, uid, failed: result.err() }
        }
    }

    fn finish(&self, outcome: Outcome) {
        let Some(error) = outcome.failed else { return };
        tracing::debug!(
            pod.namespace = %outcome.key.namespace, pod.name = %outcome.key.name, pod.uid = %outcome.uid,
            error = %chain(&error), "pod not placed; it is tried again"
        );
        // A failed binding may have been due to a stale view, which heals by itself.
        self.state().line.pod_changed(&outcome.key);
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &namespace);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let bound = api.create_subresource::<_, Value>("binding", &name, &posting(), &binding).await;
        match bound.during("bind pod", &name) {
            Ok(_) => {
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                self.events.normal(pod, "Scheduled", message);
                Ok(())
            }
            Err(error) => {
                let message = format!("binding rejected: {}", error.api_message());
                self.events.warning(pod, "FailedScheduling", message);
                Err(error)
            }
        }
    }

    /// Writes the PodScheduled condition, if it says something new.
    async fn report(&self, pod: &Pod, reason: &str, message: &str) -> Result<(), Error> {
        let known = pods::condition(pod, "PodScheduled");
        if known.is_some_and(|known| {
            known.status == "False"
                && known.reason.as_deref() == Some(reason)
                && known.message.as_deref() == Some(message)
        }) {
            return Ok(());
        }
        let since = known.filter(|known| known.status == "False").and_then(|known| known.last_transition_time.clone());
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or(Time(Timestamp::now())),
        });
        let patch: BTreeMap<&str, Value> = BTreeMap::from([
            ("metadata", json!({"uid": pod.metadata.uid})),
            ("status", json!({"conditions": [condition]})),
        ]);
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &namespace);
        let patched = api.patch_status(&name, &patching(), &Patch::Strategic(patch)).await;
        patched.unless_gone("report scheduling of pod", &name).map(|_| ())
    }
}
