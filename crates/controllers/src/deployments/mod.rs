//! Deployments: one ReplicaSet per pod template, exchanged step by step.
//!
//! ```text
//!  template changed ─► ReplicaSet <name>-<hash> (revision n+1)
//!        RollingUpdate: grow new ◄─► shrink old, within surge and unavailable
//!        Recreate:      old to 0, wait until their pods ended, new to full
//!  old ReplicaSets stay at 0 for `rollout undo`, up to revisionHistoryLimit
//! ```

mod history;
pub(crate) mod rolling;
mod status;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, Preconditions},
};
use osc_fault::Kind;
use serde_json::json;

use crate::{
    cache::Key,
    context::{Context, RESYNC, patching, posting},
    deployments::{
        history::{History, REVISION, asked},
        rolling::{Rollout, Scale, fence_posts},
        status::Step,
    },
    error::{Attempt, Error},
    events::Recorder,
    ownership::{Claims, Owner, workload_selector},
    pods::{self, controller_of},
    queue::{Queue, work},
    template, wake,
};

/// Deployments worked on at the same time.
const PARALLEL: usize = 8;

struct Deployments {
    cx: Context,
    queue: Queue<Key>,
    events: Recorder,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    wake::on_own_changes(&cx.caches.deployments, &queue);
    let (sets, deployments) = (&cx.caches.replica_sets, &cx.caches.deployments);
    wake::on_changes_of_dependants(sets, deployments, |it| it.spec.as_ref().map(|spec| &spec.selector), &queue);
    // A recreation waits for pods to end, which changes no ReplicaSet any more.
    let (on, sets) = (queue.clone(), cx.caches.replica_sets.clone());
    cx.caches.pods.on_change(move |change| {
        if change.new.as_ref().is_some_and(|pod| !pods::is_finished(pod)) {
            return;
        }
        let pod = change.latest();
        let namespace = pod.namespace().unwrap_or_default();
        let set = controller_of(&pod.metadata).and_then(|owner| sets.get(&Key::new(&*namespace, owner.name.clone())));
        let owner = set.as_ref().and_then(|set| controller_of(&set.metadata));
        if let Some(owner) = owner.filter(|owner| owner.kind == "Deployment") {
            on.add(Key::new(namespace, owner.name.clone()));
        }
    });
    let events = cx.events.of("deployment-controller");
    let this = Arc::new(Deployments { cx: cx.clone(), queue, events });
    let stop = cx.stop.clone();
    async move {
        work("deployment", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

impl Deployments {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(deployment) = self.cx.caches.deployments.get(&key) else { return Ok(None) };
        let Some(spec) = &deployment.spec else { return Ok(None) };
        let uid = deployment.uid().unwrap_or_default();
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        let selector = workload_selector(&spec.selector, &format!("deployment {key}"))?;
        let owner = Owner { uid: &uid, deleting, selector: &selector };
        let candidates = self.cx.caches.replica_sets.of_namespace(&key.namespace);
        let sets = Claims::of(&owner, candidates).settle(&self.cx.client, deployment.as_ref()).await?;
        let history = History::of(&deployment, sets);
        let step = if deleting { Ok(Step::Rolled) } else { self.step(&deployment, &history).await };
        let told = match &step {
            Ok(step) => step.clone(),
            Err(error) if error.kind() == Kind::Busy || error.namespace_terminating() => Step::Rolled,
            Err(error) if history.new.is_none() => Step::CreateFailed(error.api_message()),
            Err(_) => Step::Rolled,
        };
        let again = self.publish(&deployment, &history, &told).await?;
        match step {
            Err(error) if error.namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(_) => Ok(Some(again.unwrap_or(RESYNC))),
        }
    }

    /// One step towards what is asked for.
    async fn step(&self, deployment: &Deployment, history: &History) -> Result<Step, Error> {
        let spec = deployment.spec.clone().unwrap_or_default();
        let rollout = rollout(deployment, history);
        if spec.paused == Some(true) {
            self.scale(deployment, history, &rollout, rollout.rescale()).await?;
            return Ok(Step::Paused);
        }
        let recreate = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        if let Some(new) = &history.new {
            self.annotate(deployment, history, new).await?;
        }
        if history.new.is_some() && rollout.rescaled() && !recreate {
            self.scale(deployment, history, &rollout, rollout.rescale()).await?;
            return Ok(Step::Rolled);
        }
        let old_pods_left = recreate && self.old_pods_left(deployment, history);
        if history.new.is_none() {
            if recreate {
                let down = rollout.recreate(old_pods_left);
                if !down.is_empty() || old_pods_left {
                    self.scale(deployment, history, &rollout, down).await?;
                    return Ok(Step::Rolled);
                }
            }
            return self.create(deployment, history, &rollout, recreate).await;
        }
        let steps = if recreate { rollout.recreate(old_pods_left) } else { rollout.roll() };
        self.scale(deployment, history, &rollout, steps).await?;
        self.clean_up(deployment, history).await?;
        Ok(Step::Rolled)
    }

    fn old_pods_left(&self, deployment: &Deployment, history: &History) -> bool {
        let old: Vec<String> = history.old.iter().filter_map(|set| set.uid()).collect();
        let pods = self.cx.caches.pods.of_namespace(&deployment.namespace().unwrap_or_default());
        pods.iter().any(|pod| {
            !pods::is_finished(pod) && controller_of(&pod.metadata).is_some_and(|owner| old.contains(&owner.uid))
        })
    }

    async fn create(
        &self,
        deployment: &Deployment,
        history: &History,
        rollout: &Rollout,
        recreate: bool,
    ) -> Result<Step, Error> {
        let fresh = Rollout { new: Some(history::view(&history::new_set(deployment, 0, 0, 0))), ..rollout.clone() };
        let first = if recreate { fresh.recreate(false) } else { fresh.roll() };
        let name = fresh.new.as_ref().map(|new| new.name.clone()).unwrap_or_default();
        let replicas = first.iter().find(|scale| scale.name == name).map_or(0, |scale| scale.to);
        let set = history::new_set(deployment, replicas, rollout.most(), history.revision());
        match self.sets(deployment).create(&posting(), &set).await.during("create replicaset", &name) {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Busy => {
                return self.resolve_collision(deployment, &set, error).await;
            }
            Err(error) => {
                if !error.namespace_terminating() {
                    let message = format!("Failed to create new replica set \"{name}\": {}", error.api_message());
                    self.events.warning(deployment, "ReplicaSetCreateError", message);
                }
                return Err(error);
            }
        }
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.events.normal(deployment, "ScalingReplicaSet", message);
        }
        Ok(Step::Created(name))
    }

    /// The name is taken: by our own earlier write that the cache has not shown
    /// yet, or by a different template, which then gets another hash.
    async fn resolve_collision(&self, deployment: &Deployment, set: &ReplicaSet, error: Error) -> Result<Step, Error> {
        let name = set.name_any();
        let there = self.sets(deployment).get_opt(&name).await.during("read replicaset", &name)?;
        let Some(there) = there else { return Err(error) };
        let templates = (&there.spec, &set.spec);
        let ours = pods::controlled_by(&there.metadata, &deployment.uid().unwrap_or_default());
        if let (Some(left), Some(right)) = templates
            && let (Some(left), Some(right)) = (&left.template, &right.template)
            && ours
            && template::same(left, right)
        {
            return Ok(Step::Rolled);
        }
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0) + 1;
        let patch = json!({"metadata": {"uid": deployment.metadata.uid}, "status": {"collisionCount": collisions}});
        let api: Api<Deployment> = self.api(deployment);
        let deployment_name = deployment.name_any();
        let patched = api.patch_status(&deployment_name, &patching(), &Patch::Merge(patch)).await;
        patched.during("count hash collision of deployment", &deployment_name)?;
        Err(error)
    }

    /// Brings revision, copied annotations and `minReadySeconds` of the current
    /// set, and the revision of the Deployment, up to date.
    async fn annotate(&self, deployment: &Deployment, history: &History, new: &ReplicaSet) -> Result<(), Error> {
        let have = new.metadata.annotations.clone().unwrap_or_default();
        let wanted = history::annotations(deployment, &have, history.revision());
        let min_ready = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let old_min_ready = new.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        if wanted != have || min_ready != old_min_ready {
            let patch = json!({
                "metadata": {"uid": new.metadata.uid, "annotations": wanted},
                "spec": {"minReadySeconds": min_ready},
            });
            let name = new.name_any();
            let patched = self.sets(deployment).patch(&name, &patching(), &Patch::Merge(patch)).await;
            patched.during("annotate replicaset", &name)?;
        }
        let number = wanted.get(REVISION).cloned().unwrap_or_default();
        if deployment.annotations().get(REVISION) != Some(&number) {
            let patch = json!({"metadata": {"uid": deployment.metadata.uid, "annotations": {REVISION: number}}});
            let name = deployment.name_any();
            let patched =
                self.api::<Deployment>(deployment).patch_metadata(&name, &patching(), &Patch::Merge(patch)).await;
            patched.during("annotate deployment", &name)?;
        }
        Ok(())
    }

    /// Writes sizes, and on every set with pods what they were derived from.
    async fn scale(
        &self,
        deployment: &Deployment,
        history: &History,
        rollout: &Rollout,
        steps: Vec<Scale>,
    ) -> Result<(), Error> {
        for set in history.all() {
            let name = set.name_any();
            let before = asked(set);
            let size = steps.iter().find(|step| step.name == name).map_or(before, |step| step.to);
            let mut annotations = set.annotations().clone();
            let noted = history::note_size(&mut annotations, rollout.desired, rollout.most());
            if size == before && !(noted && before > 0) {
                continue;
            }
            // The version makes a decision on an outdated sight fail instead of overshoot.
            let patch = json!({
                "metadata": {"uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version,
                             "annotations": annotations},
                "spec": {"replicas": size},
            });
            let patched = self.sets(deployment).patch(&name, &patching(), &Patch::Merge(patch)).await;
            patched.during("scale replicaset", &name)?;
            if size != before {
                let direction = if size > before { "up" } else { "down" };
                let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
                self.events.normal(deployment, "ScalingReplicaSet", message);
            }
        }
        Ok(())
    }

    async fn clean_up(&self, deployment: &Deployment, history: &History) -> Result<(), Error> {
        let spec = deployment.spec.as_ref();
        let limit = spec.and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let complete = deployment.status.as_ref().is_some_and(|status| status::is_complete(deployment, status));
        if !complete {
            return Ok(());
        }
        for set in history.expired(limit) {
            let name = set.name_any();
            let preconditions = Preconditions { uid: set.uid(), resource_version: set.resource_version() };
            let params = DeleteParams::background().preconditions(preconditions);
            self.sets(deployment).delete(&name, &params).await.unless_gone("delete old replicaset", &name)?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        deployment: &Deployment,
        history: &History,
        step: &Step,
    ) -> Result<Option<Duration>, Error> {
        let unavailable = rollout(deployment, history).unavailable;
        let (wanted, again) = status::next(deployment, history, unavailable, step, Timestamp::now());
        if deployment.status.as_ref() == Some(&wanted) {
            return Ok(again);
        }
        let mut changed = deployment.clone();
        changed.status = Some(wanted);
        let name = deployment.name_any();
        let written = self.api(deployment).replace_status(&name, &posting(), &changed).await;
        match written.unless_gone("update status of deployment", &name) {
            // Annotating the Deployment a moment ago made this copy outdated.
            Err(error) if error.kind() == Kind::Busy => Ok(Some(Duration::from_millis(50))),
            other => other.map(|_| again),
        }
    }

    fn sets(&self, deployment: &Deployment) -> Api<ReplicaSet> {
        self.api(deployment)
    }

    fn api<K>(&self, deployment: &Deployment) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.cx.client.clone(), &deployment.namespace().unwrap_or_default())
    }
}

fn rollout(deployment: &Deployment, history: &History) -> Rollout {
    let spec = deployment.spec.clone().unwrap_or_default();
    let desired = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.unwrap_or_default();
    let (surge, unavailable) = if strategy.type_.as_deref() == Some("Recreate") {
        (0, 0)
    } else {
        let rolling = strategy.rolling_update.unwrap_or_default();
        fence_posts(rolling.max_surge.as_ref(), rolling.max_unavailable.as_ref(), desired)
    };
    let new = history.new.as_ref().map(|set| history::view(set));
    let old = history.old.iter().map(|set| history::view(set)).collect();
    Rollout { desired, surge, unavailable, new, old }
}
