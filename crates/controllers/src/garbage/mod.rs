//! The garbage collector: deletes what lost its owners.
//!
//! ```text
//!  delete owner, policy
//!   Background:  owner goes at once ──► dependants without owner are deleted
//!   Foreground:  owner gets finalizer `foregroundDeletion` ──► dependants are deleted
//!                ──► no blocking dependant left ──► finalizer dropped, owner goes
//!   Orphan:      owner gets finalizer `orphan` ──► it is taken out of the
//!                dependants' owners ──► finalizer dropped, owner goes
//! ```
//! It watches the metadata of every kind discovery names, custom ones included.
//! An owner that is not among what is watched is looked up before anything is
//! deleted: a slow watch must never cost an object.

mod graph;
mod watches;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, Preconditions, PropagationPolicy},
};
use osc_fault::Kind as Fault;
use serde_json::{Value, json};

use crate::{
    context::{Context, patching},
    error::{Attempt, Error},
    garbage::{
        graph::{Action, FOREGROUND, Graph, Node, ORPHAN, Standing, Verdict, judge},
        watches::Watches,
    },
    kinds::Kind,
    queue::{Queue, work},
};

/// Objects worked on at the same time.
const PARALLEL: usize = 16;
/// How long deleting waits at the start for kinds that cannot be listed.
const START_LIMIT: Duration = Duration::from_secs(30);
/// When an owner of a kind nobody serves is looked for again.
const UNKNOWN_KIND_RETRY: Duration = Duration::from_secs(30);

/// Graph and queue of the collector.
pub(crate) struct Collector {
    cx: Context,
    graph: Mutex<Graph>,
    queue: Queue<String>,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let this = Arc::new(Collector { cx: cx.clone(), graph: Mutex::default(), queue: Queue::new() });
    async move { this.run().await }
}

impl Collector {
    async fn run(self: Arc<Self>) {
        let stop = self.cx.stop.clone();
        let mut watches = Watches::new(self.cx.client.clone(), stop.clone());
        let mut kinds = self.cx.kinds.subscribe();
        let first = async {
            let _ = kinds.wait_for(|kinds| !kinds.is_empty()).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = first => {}
        }
        let latest = kinds.borrow_and_update().clone();
        watches.follow(&self, &latest);
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tokio::time::timeout(START_LIMIT, watches.synced()) => {}
        }
        let follow = async {
            while kinds.changed().await.is_ok() {
                let latest = kinds.borrow_and_update().clone();
                watches.follow(&self, &latest);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = work("garbage", self.queue.clone(), PARALLEL, stop.clone(), |uid| self.process(uid)) => {}
            () = follow => {}
        }
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object was seen by a watch.
    fn seen(&self, kind: &Arc<Kind>, meta: &ObjectMeta) {
        let uid = meta.uid.clone().unwrap_or_default();
        let wake = self.graph().put(&uid, Node::of(kind.clone(), meta));
        self.wake(wake);
    }

    /// An object was deleted.
    fn deleted(&self, uid: &str) {
        let wake = self.graph().remove(uid);
        self.wake(wake);
    }

    /// An object's kind is no longer watched.
    fn unwatched(&self, uid: &str) {
        let wake = self.graph().forget(uid);
        self.wake(wake);
    }

    fn wake(&self, uids: impl IntoIterator<Item = String>) {
        for uid in uids {
            self.queue.add(uid);
        }
    }

    async fn process(&self, uid: String) -> Result<Option<Duration>, Error> {
        let (action, node) = {
            let graph = self.graph();
            (graph.decide(&uid), graph.get(&uid).cloned())
        };
        match (action, node) {
            (Action::Nothing, _) => Ok(None),
            (Action::WakeDependants(dependants), _) => {
                self.wake(dependants);
                Ok(None)
            }
            (Action::AwaitDependants(dependants), _) => {
                self.wake(dependants);
                Ok(None)
            }
            (Action::ReleaseForeground, Some(node)) => {
                self.drop_finalizer(&uid, &node, FOREGROUND).await.map(|()| None)
            }
            (Action::OrphanDependants(dependants), Some(node)) => {
                for dependant in &dependants {
                    let found = self.graph().get(dependant).cloned();
                    if let Some(found) = found {
                        self.drop_references(dependant, &found, std::slice::from_ref(&uid)).await?;
                    }
                }
                self.drop_finalizer(&uid, &node, ORPHAN).await.map(|()| None)
            }
            (Action::JudgeOwners, Some(node)) => self.judge(&uid, &node).await,
            (_, None) => Ok(None),
        }
    }

    async fn judge(&self, uid: &str, node: &Node) -> Result<Option<Duration>, Error> {
        let known = |owners: &[OwnerReference]| -> Vec<(OwnerReference, Standing)> {
            let graph = self.graph();
            owners.iter().map(|owner| (owner.clone(), graph.standing(owner, &node.namespace))).collect()
        };
        if known(&node.owners).iter().all(|(_, standing)| *standing == Standing::Solid) {
            return Ok(None);
        }
        // Owners may have changed since the watch told of them.
        let Some(live) = self.live(uid, node).await? else { return Ok(None) };
        if live.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let mut owners = known(live.owner_references.as_deref().unwrap_or_default());
        let mut again = None;
        for (owner, standing) in owners.iter_mut().filter(|(_, standing)| *standing == Standing::Unknown) {
            *standing = self.look_up(owner, &node.namespace).await?;
            if *standing == Standing::Unknown {
                again = Some(UNKNOWN_KIND_RETRY);
            }
        }
        let has_dependants = !self.graph().dependants_of(uid).is_empty();
        match judge(&owners, has_dependants) {
            Verdict::Keep => {}
            Verdict::DropReferences(uids) => self.drop_references(uid, node, &uids).await?,
            Verdict::DeleteForeground => self.delete(uid, node, &live, PropagationPolicy::Foreground).await?,
            Verdict::Delete => {
                let finalizer = |name: &str| live.finalizers.iter().flatten().any(|finalizer| finalizer == name);
                let policy = if finalizer(ORPHAN) {
                    PropagationPolicy::Orphan
                } else if finalizer(FOREGROUND) {
                    PropagationPolicy::Foreground
                } else {
                    PropagationPolicy::Background
                };
                self.delete(uid, node, &live, policy).await?;
            }
        }
        Ok(again)
    }

    /// Asks the API about an owner that is not watched.
    async fn look_up(&self, owner: &OwnerReference, namespace: &str) -> Result<Standing, Error> {
        let Some(kind) = self.cx.kinds.find(&owner.api_version, &owner.kind) else { return Ok(Standing::Unknown) };
        if kind.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned from inside a namespace: the
            // reference is invalid, and nothing is deleted for it.
            return Ok(Standing::Solid);
        }
        let api = self.api(&kind, namespace);
        let found = api.get_metadata_opt(&owner.name).await.during("look up owner", &owner.name)?;
        Ok(match found {
            Some(found) if found.metadata.uid.as_deref() == Some(&owner.uid) => {
                let waiting = found.metadata.deletion_timestamp.is_some()
                    && found.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
                if waiting { Standing::Waiting } else { Standing::Solid }
            }
            _ => Standing::Absent,
        })
    }

    /// Metadata as the API has it now, if it is still the same object.
    async fn live(&self, uid: &str, node: &Node) -> Result<Option<ObjectMeta>, Error> {
        let found = self.api(&node.kind, &node.namespace).get_metadata_opt(&node.name).await;
        let found = found.during("read", &node.name)?;
        Ok(found.map(|found| found.metadata).filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    async fn delete(&self, uid: &str, node: &Node, live: &ObjectMeta, policy: PropagationPolicy) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            // The version guards against an owner that adopts the object this moment.
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: live.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let deleted = self.api(&node.kind, &node.namespace).delete(&node.name, &params).await;
        deleted.unless_gone("collect", &node.name)?;
        tracing::debug!(kind = %node.kind.id(), namespace = %node.namespace, name = %node.name, "collected");
        Ok(())
    }

    async fn drop_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(live) = self.live(uid, node).await? else { return Ok(()) };
        let finalizers = live.finalizers.clone().unwrap_or_default();
        let rest: Vec<_> = finalizers.iter().filter(|known| *known != finalizer).collect();
        if rest.len() == finalizers.len() {
            return Ok(());
        }
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        self.patch(node, &live, json!({ "finalizers": rest })).await
    }

    async fn drop_references(&self, uid: &str, node: &Node, owners: &[String]) -> Result<(), Error> {
        let Some(live) = self.live(uid, node).await? else { return Ok(()) };
        let references = live.owner_references.clone().unwrap_or_default();
        let rest: Vec<_> = references.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        if rest.len() == references.len() {
            return Ok(());
        }
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        self.patch(node, &live, json!({ "ownerReferences": rest })).await
    }

    async fn patch(&self, node: &Node, live: &ObjectMeta, mut metadata: Value) -> Result<(), Error> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = self.api(&node.kind, &node.namespace).patch_metadata(&node.name, &patching(), &patch).await;
        match patched.unless_gone("patch metadata of", &node.name) {
            // A CRD without its objects answers so: the object is as good as gone.
            Err(error) if error.kind() == Fault::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn api(&self, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
        if kind.namespaced {
            Api::namespaced_with(self.cx.client.clone(), namespace, &kind.resource)
        } else {
            Api::all_with(self.cx.client.clone(), &kind.resource)
        }
    }
}
