//! ReplicaSets: as many pods of one template as asked for.

mod decide;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{Api, Resource, ResourceExt};

use crate::{
    cache::Key,
    context::{Context, RESYNC, posting},
    error::{Attempt, Error},
    ownership::{Claims, Owner, workload_selector},
    pods::{self, Expectations, PodControl, batched},
    queue::{Queue, work},
    replica_sets::decide::{Plan, plan, status},
    wake,
};

/// ReplicaSets worked on at the same time.
const PARALLEL: usize = 8;

struct ReplicaSets {
    cx: Context,
    queue: Queue<Key>,
    control: PodControl,
    expectations: Expectations,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    // Expectations first: a pod that wakes us must already count as seen.
    let expectations = Expectations::watching(&cx.caches.pods);
    wake::on_own_changes_forgetting(&cx.caches.replica_sets, &queue, &expectations);
    let (pods, sets) = (&cx.caches.pods, &cx.caches.replica_sets);
    wake::on_changes_of_dependants(pods, sets, |set| set.spec.as_ref().map(|spec| &spec.selector), &queue);
    let control = PodControl::new(cx.client.clone(), cx.events.of("replicaset-controller"));
    let this = Arc::new(ReplicaSets { cx: cx.clone(), queue, control, expectations });
    let stop = cx.stop.clone();
    async move {
        work("replicaset", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

impl ReplicaSets {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.cx.caches.replica_sets.get(&key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        let uid = set.uid().unwrap_or_default();
        let deleting = set.metadata.deletion_timestamp.is_some();
        // Asked before the caches are read, so that what is met is also seen.
        let met = self.expectations.met(&uid, Instant::now());
        let selector = workload_selector(&spec.selector, &format!("replicaset {key}"))?;
        let owner = Owner { uid: &uid, deleting, selector: &selector };
        let candidates = self.cx.caches.pods.of_namespace(&key.namespace);
        let candidates = candidates.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let owned = Claims::of(&owner, candidates).settle(&self.cx.client, set.as_ref()).await?;
        let now = Timestamp::now();
        let outcome = if met && !deleting { self.carry_out(&set, plan(&set, &owned, now)).await } else { Ok(()) };
        let again = self.publish(&set, &owned, outcome.as_ref().err(), now).await?;
        match outcome {
            Err(error) if error.namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(again.unwrap_or(RESYNC))),
        }
    }

    async fn carry_out(&self, set: &ReplicaSet, plan: Plan) -> Result<(), Error> {
        let uid = set.uid().unwrap_or_default();
        let namespace = set.namespace().unwrap_or_default();
        match plan {
            Plan::Nothing => Ok(()),
            Plan::Create(count) => {
                let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
                let pod = pods::from_template(&template, &namespace, &set.name_any(), pods::owned_by(set));
                let (good, result) = batched(count, |_| {
                    self.expectations.create(&uid, 1);
                    let (uid, pod) = (&uid, &pod);
                    async move {
                        let created = self.control.create(set, pod).await;
                        if created.is_err() {
                            self.expectations.created(uid);
                        }
                        created.map(|_| ())
                    }
                })
                .await;
                tracing::debug!(wanted = count, created = good, replicaset = %set.name_any(), "pods created");
                result
            }
            Plan::Delete(victims) => {
                let (_, result) = batched(victims.len(), |n| {
                    let pod = victims[n].clone();
                    let pod_uid = pod.uid().unwrap_or_default();
                    self.expectations.delete(&uid, &pod_uid);
                    let uid = &uid;
                    async move {
                        let deleted = self.control.delete(set, &pod).await;
                        if deleted.is_err() {
                            self.expectations.deleted(uid, &pod_uid);
                        }
                        deleted
                    }
                })
                .await;
                result
            }
        }
    }

    /// Writes the status if it changed; returns when a pod becomes available by waiting.
    async fn publish(
        &self,
        set: &ReplicaSet,
        owned: &[Arc<Pod>],
        failure: Option<&Error>,
        now: Timestamp,
    ) -> Result<Option<Duration>, Error> {
        let failure = failure.filter(|error| !error.namespace_terminating()).map(Error::api_message);
        let (wanted, again) = status(set, owned, failure.as_deref(), now);
        if set.status.as_ref() == Some(&wanted) {
            return Ok(again);
        }
        let mut changed = set.clone();
        changed.meta_mut().managed_fields = None;
        changed.status = Some(wanted);
        let api: Api<ReplicaSet> = Api::namespaced(self.cx.client.clone(), &set.namespace().unwrap_or_default());
        let name = set.name_any();
        let written = api.replace_status(&name, &posting(), &changed).await;
        written.unless_gone("update status of replicaset", &name).map(|_| again)
    }
}
