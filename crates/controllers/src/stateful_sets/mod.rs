//! StatefulSets: numbered pods with stable names and claims, changed in order.

mod decide;
mod identity;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec},
    },
    jiff::Timestamp,
};
use kube::{Api, ResourceExt, api::Patch};
use osc_fault::Kind;
use serde_json::json;

use crate::{
    cache::Key,
    context::{Context, RESYNC, patching, posting},
    error::{Attempt, Error},
    events::Recorder,
    ownership::{Claims, Owner, workload_selector},
    pods::{self, Availability, PodControl, availability, seconds},
    queue::{Queue, work},
    revisions::{self, HASH_LABEL},
    stateful_sets::decide::{Action, Member, Wanted, plan, status},
    wake,
};

/// Sets worked on at the same time.
const PARALLEL: usize = 4;

struct StatefulSets {
    cx: Context,
    queue: Queue<Key>,
    events: Recorder,
    control: PodControl,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    wake::on_own_changes(&cx.caches.stateful_sets, &queue);
    let (pods, sets) = (&cx.caches.pods, &cx.caches.stateful_sets);
    wake::on_changes_of_dependants(pods, sets, |set| set.spec.as_ref().map(|spec| &spec.selector), &queue);
    let events = cx.events.of("statefulset-controller");
    let control = PodControl::new(cx.client.clone(), events.clone());
    let this = Arc::new(StatefulSets { cx: cx.clone(), queue, events, control });
    let stop = cx.stop.clone();
    async move {
        work("statefulset", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

impl StatefulSets {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.cx.caches.stateful_sets.get(&key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let uid = set.uid().unwrap_or_default();
        let selector = workload_selector(&spec.selector, &format!("statefulset {key}"))?;
        let owner = Owner { uid: &uid, deleting: false, selector: &selector };
        let candidates = self.cx.caches.revisions.of_namespace(&key.namespace);
        let history = Claims::of(&owner, candidates).settle(&self.cx.client, set.as_ref()).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let update = revisions::ensure(&self.cx.client, set.as_ref(), &history, &spec.template, collisions).await;
        let update = match update {
            Err(error) if error.namespace_terminating() => return Ok(None),
            other => other?,
        };
        let current = current_revision(&set, &history, &update);
        let candidates = self.cx.caches.pods.of_namespace(&key.namespace);
        let candidates = candidates.into_iter().filter(|pod| identity::ordinal(&set, pod).is_some()).collect();
        let owned = Claims::of(&owner, candidates).settle(&self.cx.client, set.as_ref()).await?;
        let (members, again) = members(&set, &owned);
        let wanted = Wanted::of(&set, &current.name_any(), &update.name_any());
        let outcome = self.carry_out(&set, plan(&wanted, &members), &owned, [&current, &update]).await;
        self.publish(&set, status(&set, &wanted, &members)).await?;
        self.clean_up(&set, &history, [&current, &update], &owned).await?;
        match outcome {
            Err(error) if error.namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(again.unwrap_or(RESYNC))),
        }
    }

    async fn carry_out(
        &self,
        set: &StatefulSet,
        actions: Vec<Action>,
        owned: &[Arc<Pod>],
        revisions: [&Arc<ControllerRevision>; 2],
    ) -> Result<(), Error> {
        let find = |ordinal: i32| owned.iter().find(|pod| identity::ordinal(set, pod) == Some(ordinal));
        for action in actions {
            match action {
                Action::Create { ordinal, revision } => {
                    let found = revisions.into_iter().find(|known| known.name_any() == revision);
                    let template = found.and_then(|revision| revisions::template_of(revision));
                    let template = template.unwrap_or_else(|| template_now(set));
                    self.create(set, ordinal, &template, &revision).await?;
                }
                Action::Replace { ordinal } => {
                    let Some(pod) = find(ordinal) else { continue };
                    if pods::is_finished(pod) {
                        let message =
                            format!("StatefulSet {} is recreating terminated Pod {}", set.name_any(), pod.name_any());
                        self.events.warning(set, "RecreatingTerminatedPod", message);
                    }
                    self.delete(set, pod).await?;
                }
                Action::Condemn { ordinal } => {
                    let Some(pod) = find(ordinal) else { continue };
                    if identity::claims_go_with_pod(set) {
                        self.tie_claims(set, pod).await?;
                    }
                    self.delete(set, pod).await?;
                }
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        set: &StatefulSet,
        ordinal: i32,
        template: &PodTemplateSpec,
        revision: &str,
    ) -> Result<(), Error> {
        let pod = identity::pod(set, ordinal, template, revision);
        let (set_name, name) = (set.name_any(), pod.name_any());
        for claim in identity::claims(set, ordinal) {
            self.create_claim(set, &claim, &name).await?;
        }
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &set.namespace().unwrap_or_default());
        match api.create(&posting(), &pod).await.during("create pod", &name) {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {set_name} successful");
                self.events.normal(set, "SuccessfulCreate", message);
                Ok(())
            }
            // The cache has not shown it yet, or somebody else has the name.
            Err(error) if error.kind() == Kind::Busy => {
                let there = api.get_metadata_opt(&name).await.during("read pod", &name)?;
                let ours = there.is_some_and(|pod| pods::controlled_by(&pod.metadata, &set.uid().unwrap_or_default()));
                if ours { Ok(()) } else { Err(error) }
            }
            Err(error) => {
                if !error.namespace_terminating() {
                    let why = error.api_message();
                    let message = format!("create Pod {name} in StatefulSet {set_name} failed error: {why}");
                    self.events.warning(set, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn create_claim(&self, set: &StatefulSet, claim: &PersistentVolumeClaim, pod: &str) -> Result<(), Error> {
        let (namespace, name) = (set.namespace().unwrap_or_default(), claim.name_any());
        if self.cx.caches.claims.get(&Key::new(&*namespace, &*name)).is_some() {
            return Ok(());
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.cx.client.clone(), &namespace);
        match api.create(&posting(), claim).await.during("create claim", &name) {
            Ok(_) => {
                let message = format!("create Claim {name} Pod {pod} in StatefulSet {} success", set.name_any());
                self.events.normal(set, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if error.kind() == Kind::Busy => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the claims of a pod go with it.
    async fn tie_claims(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.cx.client.clone(), &set.namespace().unwrap_or_default());
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid()}]);
        let patch = Patch::Merge(json!({"metadata": {"ownerReferences": owner}}));
        for name in identity::claim_names(set, &pod.name_any()) {
            let patched = api.patch_metadata(&name, &patching(), &patch).await;
            patched.unless_gone("tie claim to its pod", &name)?;
        }
        Ok(())
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        if pods::is_deleting(pod) { Ok(()) } else { self.control.delete(set, pod).await }
    }

    async fn publish(
        &self,
        set: &StatefulSet,
        wanted: k8s_openapi::api::apps::v1::StatefulSetStatus,
    ) -> Result<(), Error> {
        if set.status.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(wanted);
        let name = set.name_any();
        let api: Api<StatefulSet> = Api::namespaced(self.cx.client.clone(), &set.namespace().unwrap_or_default());
        let written = api.replace_status(&name, &posting(), &changed).await;
        written.unless_gone("update status of statefulset", &name).map(|_| ())
    }

    async fn clean_up(
        &self,
        set: &StatefulSet,
        history: &[Arc<ControllerRevision>],
        live: [&Arc<ControllerRevision>; 2],
        owned: &[Arc<Pod>],
    ) -> Result<(), Error> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let mut used: BTreeSet<String> = owned.iter().filter_map(|pod| pod.labels().get(HASH_LABEL).cloned()).collect();
        used.extend(live.into_iter().map(|revision| revision.name_any()));
        revisions::delete(&self.cx.client, revisions::expired(history, &used, limit)).await
    }
}

fn template_now(set: &StatefulSet) -> PodTemplateSpec {
    set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
}

/// The revision the status calls current, as long as it exists.
fn current_revision(
    set: &StatefulSet,
    history: &[Arc<ControllerRevision>],
    update: &Arc<ControllerRevision>,
) -> Arc<ControllerRevision> {
    let name = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let found = history.iter().find(|revision| Some(revision.name_any().as_str()) == name);
    found.unwrap_or(update).clone()
}

fn members(set: &StatefulSet, owned: &[Arc<Pod>]) -> (BTreeMap<i32, Member>, Option<Duration>) {
    let min_ready = seconds(set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0));
    let now = Timestamp::now();
    let (mut members, mut again) = (BTreeMap::new(), None::<Duration>);
    for pod in owned {
        let Some(ordinal) = identity::ordinal(set, pod) else { continue };
        let availability = availability(pod, min_ready, now);
        if let Availability::In(left) = availability {
            again = again.into_iter().chain([left]).min();
        }
        let running = pods::phase(pod) == "Running";
        let member = Member {
            revision: pod.labels().get(HASH_LABEL).cloned().unwrap_or_default(),
            ready: running && pods::is_ready(pod),
            available: running && availability == Availability::Yes,
            deleting: pods::is_deleting(pod),
            finished: pods::is_finished(pod),
        };
        members.insert(ordinal, member);
    }
    (members, again)
}
