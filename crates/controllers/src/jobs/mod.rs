//! Jobs: pods that run to their end, a given number of times.

mod decide;
mod indexes;
mod pods;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use serde_json::json;

use crate::{
    cache::{Cache, Key},
    context::{Context, RESYNC, posting},
    error::{Attempt, Error},
    events::Recorder,
    jobs::decide::{Plan, TRACKING, condition, finished_at, plan},
    ownership::{Claims, Owner, parse},
    pods::{Expectations, PodControl, batched, controlled_by, controller_of, elapsed, seconds},
    queue::{Queue, work},
};

/// Jobs worked on at the same time.
const PARALLEL: usize = 8;

/// Why Jobs fail, as their events say.
const FAILURE_REASONS: [&str; 5] =
    ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"];

struct Jobs {
    cx: Context,
    queue: Queue<Key>,
    orphans: Queue<Key>,
    events: Recorder,
    control: PodControl,
    expectations: Expectations,
    /// Uids of pods per job whose finalizer we dropped and the cache still shows.
    released: Mutex<BTreeMap<Key, BTreeSet<String>>>,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let (queue, orphans) = (Queue::new(), Queue::new());
    let expectations = Expectations::watching(&cx.caches.pods);
    let (on, lost, all) = (queue.clone(), orphans.clone(), cx.caches.pods.clone());
    let forgetful = expectations.clone();
    cx.caches.jobs.on_change(move |change| {
        let job = change.latest();
        on.add(Key::of(job.as_ref()));
        if change.new.is_none() {
            forgetful.forget(&job.uid().unwrap_or_default());
            wake_orphans(&lost, &all, job);
        }
    });
    let (on, lost, jobs) = (queue.clone(), orphans.clone(), cx.caches.jobs.clone());
    cx.caches.pods.on_change(move |change| {
        for pod in change.sides() {
            let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job");
            let key = owner.map(|owner| Key::new(pod.namespace().unwrap_or_default(), owner.name.clone()));
            if let Some(key) = &key {
                on.add(key.clone());
            }
            if is_tracked(pod) && key.is_none_or(|key| jobs.get(&key).is_none()) {
                lost.add(Key::of(pod.as_ref()));
            }
        }
    });
    let events = cx.events.of("job-controller");
    let control = PodControl::new(cx.client.clone(), events.clone());
    let released = Mutex::default();
    let this = Arc::new(Jobs { cx: cx.clone(), queue, orphans, events, control, expectations, released });
    let stop = cx.stop.clone();
    async move {
        tokio::join!(
            work("job", this.queue.clone(), PARALLEL, stop.clone(), |key| this.reconcile(key)),
            work("job-orphans", this.orphans.clone(), PARALLEL, stop, |key| this.let_go(key)),
        );
    }
}

fn wake_orphans(queue: &Queue<Key>, pods: &Cache<Pod>, job: &Job) {
    let uid = job.uid().unwrap_or_default();
    for pod in pods.of_namespace(&job.namespace().unwrap_or_default()) {
        if is_tracked(&pod) && controlled_by(&pod.metadata, &uid) {
            queue.add(Key::of(pod.as_ref()));
        }
    }
}

fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == TRACKING)
}

impl Jobs {
    fn released(&self) -> MutexGuard<'_, BTreeMap<Key, BTreeSet<String>>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(job) = self.cx.caches.jobs.get(&key) else {
            self.released().remove(&key);
            return Ok(None);
        };
        let Some(spec) = &job.spec else { return Ok(None) };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(None);
        }
        if let Some(left) = self.expire(&job).await? {
            return Ok(Some(left));
        }
        let uid = job.uid().unwrap_or_default();
        let met = self.expectations.met(&uid, Instant::now());
        let owned = self.owned(&key, &job).await?;
        let released = self.still_released(&key, &owned);
        let plan = plan(&job, &owned, &released, Timestamp::now());
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        self.publish(&job, &plan).await?;
        self.release(&key, &owned, &plan.release).await?;
        let outcome = if met { self.carry_out(&key, &job, &plan, &owned).await } else { Ok(()) };
        match outcome {
            Err(error) if error.namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(plan.again.unwrap_or(RESYNC))),
        }
    }

    /// Deletes a Job whose time after the end is over; returns what is left of it.
    async fn expire(&self, job: &Job) -> Result<Option<Duration>, Error> {
        let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
        let (Some(ttl), Some(end)) = (ttl, finished_at(job)) else { return Ok(None) };
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let left = seconds(ttl).saturating_sub(elapsed(end, Timestamp::now()));
        if !left.is_zero() {
            // Pods may still have to be let go.
            self.queue.add_after(Key::of(job), left);
            return Ok(None);
        }
        let name = job.name_any();
        let api: Api<Job> = Api::namespaced(self.cx.client.clone(), &job.namespace().unwrap_or_default());
        let preconditions = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
        let params = DeleteParams::foreground().preconditions(preconditions);
        api.delete(&name, &params).await.unless_gone("delete expired job", &name)?;
        Ok(Some(RESYNC))
    }

    async fn owned(&self, key: &Key, job: &Job) -> Result<Vec<Arc<Pod>>, Error> {
        let uid = job.uid().unwrap_or_default();
        let pods = self.cx.caches.pods.of_namespace(&key.namespace);
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let Some(selector) = selector.map(|selector| parse(selector, &format!("job {key}"))).transpose()? else {
            return Ok(pods.into_iter().filter(|pod| controlled_by(&pod.metadata, &uid)).collect());
        };
        let deleting = job.metadata.deletion_timestamp.is_some() || selector.selects_all();
        let owner = Owner { uid: &uid, deleting, selector: &selector };
        Claims::of(&owner, pods).settle(&self.cx.client, job).await
    }

    /// Uids we released that the cache still shows with the finalizer.
    fn still_released(&self, key: &Key, owned: &[Arc<Pod>]) -> BTreeSet<String> {
        let shown: BTreeSet<String> = owned.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.uid()).collect();
        let mut all = self.released();
        let Some(released) = all.get_mut(key) else { return BTreeSet::new() };
        released.retain(|uid| shown.contains(uid));
        let left = released.clone();
        if left.is_empty() {
            all.remove(key);
        }
        left
    }

    async fn publish(&self, job: &Job, plan: &Plan) -> Result<(), Error> {
        if job.status.as_ref() == Some(&plan.status) {
            return Ok(());
        }
        let name = job.name_any();
        let mut changed = job.clone();
        changed.status = Some(plan.status.clone());
        let api: Api<Job> = Api::namespaced(self.cx.client.clone(), &job.namespace().unwrap_or_default());
        // The cached version goes along: on a conflict nothing was counted.
        let written = api.replace_status(&name, &posting(), &changed).await;
        written.unless_gone("update status of job", &name)?;
        self.announce(job, plan);
        Ok(())
    }

    fn announce(&self, job: &Job, plan: &Plan) {
        let before = job.status.clone().unwrap_or_default();
        let news = |type_: &str| condition(&plan.status, type_).filter(|_| condition(&before, type_).is_none());
        if news("Complete").is_some() {
            self.events.normal(job, "Completed", "Job completed".into());
        }
        if let Some(failed) = news("Failed") {
            let known = FAILURE_REASONS.into_iter().find(|known| failed.reason.as_deref() == Some(known));
            let reason = known.unwrap_or("Failed");
            self.events.warning(job, reason, failed.message.clone().unwrap_or_default());
        }
        if news("Suspended").is_some() {
            self.events.normal(job, "Suspended", "Job suspended".into());
        }
        if condition(&before, "Suspended").is_some() && condition(&plan.status, "Suspended").is_none() {
            self.events.normal(job, "Resumed", "Job resumed".into());
        }
    }

    /// Drops the finalizer of counted pods.
    async fn release(&self, key: &Key, owned: &[Arc<Pod>], names: &[String]) -> Result<(), Error> {
        let pods: Vec<_> = owned.iter().filter(|pod| names.contains(&pod.name_any())).collect();
        let (_, result) = batched(pods.len(), |n| self.release_one(key, pods[n])).await;
        result
    }

    async fn release_one(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        if !is_tracked(pod) {
            return Ok(());
        }
        let uid = pod.uid().unwrap_or_default();
        let patch = json!({"metadata": {
            "uid": uid, "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }});
        self.control.patch(pod, patch).await?;
        self.released().entry(key.clone()).or_default().insert(uid);
        Ok(())
    }

    async fn carry_out(&self, key: &Key, job: &Job, plan: &Plan, owned: &[Arc<Pod>]) -> Result<(), Error> {
        let uid = job.uid().unwrap_or_default();
        let victims: Vec<_> = owned.iter().filter(|pod| plan.delete.contains(&pod.name_any())).collect();
        let (_, deleted) = batched(victims.len(), |n| {
            let (pod, uid) = (victims[n], &uid);
            async move {
                // Without its finalizer a pod we delete ourselves does not count as failed.
                self.release_one(key, pod).await?;
                let pod_uid = pod.uid().unwrap_or_default();
                self.expectations.delete(uid, &pod_uid);
                let deleted = self.control.delete(job, pod).await;
                if deleted.is_err() {
                    self.expectations.deleted(uid, &pod_uid);
                }
                deleted
            }
        })
        .await;
        deleted?;
        let (_, created) = batched(plan.create.len(), |n| {
            self.expectations.create(&uid, 1);
            let (pod, uid) = (pods::pod(job, plan.create[n], plan.failures_of(plan.create[n])), &uid);
            async move {
                let created = self.control.create(job, &pod).await;
                if created.is_err() {
                    self.expectations.created(uid);
                }
                created.map(|_| ())
            }
        })
        .await;
        created
    }

    /// Frees a pod whose Job is gone from waiting to be counted.
    async fn let_go(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.cx.caches.pods.get(&key).filter(|pod| is_tracked(pod)) else { return Ok(None) };
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job");
        if let Some(owner) = owner {
            let name = owner.name.clone();
            let api: Api<Job> = Api::namespaced(self.cx.client.clone(), &key.namespace);
            // Our cache of jobs may simply be behind.
            let live = api.get_metadata_opt(&name).await.during("look up job", &name)?;
            if live.is_some_and(|live| live.metadata.uid.as_deref() == Some(&owner.uid)) {
                return Ok(None);
            }
        }
        let patch = json!({"metadata": {
            "uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }});
        self.control.patch(&pod, patch).await.map(|()| None)
    }
}
