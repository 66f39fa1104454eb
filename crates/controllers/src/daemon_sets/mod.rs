//! DaemonSets: one pod on every eligible node.
//!
//! Pods are pinned to their node by affinity and placed by the scheduler, so
//! that resources and ports are respected. A failed pod is deleted and made anew.

mod decide;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{Api, ResourceExt};

use crate::{
    cache::Key,
    context::{Context, RESYNC, posting},
    daemon_sets::decide::{Action, Member, Site, eligible, node_of, pin, plan, pod_spec, status, update},
    error::{Attempt, Error},
    events::Recorder,
    ownership::{Claims, Owner, workload_selector},
    pods::{self, Availability, Expectations, PodControl, availability, batched, seconds},
    queue::{Queue, work},
    revisions::{self, HASH_LABEL},
    wake,
};

/// Sets worked on at the same time.
const PARALLEL: usize = 4;
/// A pod that failed sooner than this is left for a while: its successor would
/// most likely fail as fast.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

struct DaemonSets {
    cx: Context,
    queue: Queue<Key>,
    events: Recorder,
    control: PodControl,
    expectations: Expectations,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    let expectations = Expectations::watching(&cx.caches.pods);
    wake::on_own_changes_forgetting(&cx.caches.daemon_sets, &queue, &expectations);
    let (on, sets) = (queue.clone(), cx.caches.daemon_sets.clone());
    cx.caches.nodes.on_change(move |change| {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && old.metadata.labels == new.metadata.labels
            && taints(old) == taints(new)
        {
            return;
        }
        for set in sets.all() {
            on.add(Key::of(set.as_ref()));
        }
    });
    let (pods, sets) = (&cx.caches.pods, &cx.caches.daemon_sets);
    wake::on_changes_of_dependants(pods, sets, |set| set.spec.as_ref().map(|spec| &spec.selector), &queue);
    let events = cx.events.of("daemonset-controller");
    let control = PodControl::new(cx.client.clone(), events.clone());
    let this = Arc::new(DaemonSets { cx: cx.clone(), queue, events, control, expectations });
    let stop = cx.stop.clone();
    async move {
        work("daemonset", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

fn taints(node: &Node) -> Option<&Vec<k8s_openapi::api::core::v1::Taint>> {
    node.spec.as_ref().and_then(|spec| spec.taints.as_ref())
}

impl DaemonSets {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.cx.caches.daemon_sets.get(&key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let uid = set.uid().unwrap_or_default();
        let met = self.expectations.met(&uid, Instant::now());
        let selector = workload_selector(&spec.selector, &format!("daemonset {key}"))?;
        let owner = Owner { uid: &uid, deleting: false, selector: &selector };
        let candidates = self.cx.caches.revisions.of_namespace(&key.namespace);
        let history = Claims::of(&owner, candidates).settle(&self.cx.client, set.as_ref()).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let current = revisions::ensure(&self.cx.client, set.as_ref(), &history, &spec.template, collisions).await;
        let current = match current {
            Err(error) if error.namespace_terminating() => return Ok(None),
            other => other?,
        };
        let candidates = self.cx.caches.pods.of_namespace(&key.namespace);
        let owned = Claims::of(&owner, candidates).settle(&self.cx.client, set.as_ref()).await?;
        let hash = current.labels().get(HASH_LABEL).cloned().unwrap_or_default();
        let (sites, again) = self.sites(&set, &owned, &hash, Timestamp::now());
        let outcome = if met { self.carry_out(&set, &sites, &owned, &hash).await } else { Ok(()) };
        self.publish(&set, &sites).await?;
        self.clean_up(&set, &history, &current, &owned).await?;
        match outcome {
            Err(error) if error.namespace_terminating() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(again.unwrap_or(RESYNC))),
        }
    }

    /// Nodes with the set's pods; pods on nodes that are gone are left to pod collection.
    fn sites(&self, set: &DaemonSet, owned: &[Arc<Pod>], hash: &str, now: Timestamp) -> (Vec<Site>, Option<Duration>) {
        let spec = set.spec.clone().unwrap_or_default();
        let min_ready = seconds(spec.min_ready_seconds.unwrap_or(0));
        let mut members: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        let mut again = None::<Duration>;
        for pod in owned {
            let availability = availability(pod, min_ready, now);
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
            let pause = FAILED_PAUSE.saturating_sub(pods::elapsed(created, now));
            let fresh_failure = pods::is_finished(pod) && !pause.is_zero();
            let wait = match availability {
                Availability::In(left) => Some(left),
                _ => fresh_failure.then_some(pause),
            };
            again = again.into_iter().chain(wait).min();
            let member = Member {
                name: pod.name_any(),
                current: pod.labels().get(HASH_LABEL).map(String::as_str) == Some(hash),
                ready: pods::is_ready(pod),
                available: availability == Availability::Yes,
                deleting: pods::is_deleting(pod) || fresh_failure,
                failed: pods::is_finished(pod),
                created,
            };
            members.entry(node_of(pod).unwrap_or_default()).or_default().push(member);
        }
        let sites = self.cx.caches.nodes.all().into_iter().map(|node| {
            let name = node.name_any();
            let (run, stay) = eligible(&spec.template, &node);
            let pods = members.remove(&name).unwrap_or_default();
            Site { node: name, run, stay, pods }
        });
        (sites.collect(), again)
    }

    async fn carry_out(&self, set: &DaemonSet, sites: &[Site], owned: &[Arc<Pod>], hash: &str) -> Result<(), Error> {
        let running = sites.iter().filter(|site| site.run).count();
        let actions = plan(sites, update(set, running));
        let (_, result) = batched(actions.len(), |n| {
            let action = actions[n].clone();
            async move {
                match action {
                    Action::Create { node } => self.create(set, &node, hash).await,
                    Action::Delete { pod, failed } => {
                        let Some(pod) = owned.iter().find(|known| known.name_any() == pod) else { return Ok(()) };
                        self.delete(set, pod, failed).await
                    }
                }
            }
        })
        .await;
        result
    }

    async fn create(&self, set: &DaemonSet, node: &str, hash: &str) -> Result<(), Error> {
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let namespace = set.namespace().unwrap_or_default();
        let mut pod = pods::from_template(&template, &namespace, &set.name_any(), pods::owned_by(set));
        pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.to_owned());
        let mut spec = pod_spec(&template);
        pin(&mut spec, node);
        pod.spec = Some(spec);
        let uid = set.uid().unwrap_or_default();
        self.expectations.create(&uid, 1);
        let created = self.control.create(set, &pod).await;
        if created.is_err() {
            self.expectations.created(&uid);
        }
        created.map(|_| ())
    }

    async fn delete(&self, set: &DaemonSet, pod: &Pod, failed: bool) -> Result<(), Error> {
        if failed {
            let message = format!(
                "Found failed daemon pod {}/{} on node {}, will try to kill it",
                pod.namespace().unwrap_or_default(),
                pod.name_any(),
                pods::node(pod)
            );
            self.events.warning(set, "FailedDaemonPod", message);
        }
        let (uid, pod_uid) = (set.uid().unwrap_or_default(), pod.uid().unwrap_or_default());
        self.expectations.delete(&uid, &pod_uid);
        let deleted = self.control.delete(set, pod).await;
        if deleted.is_err() {
            self.expectations.deleted(&uid, &pod_uid);
        }
        deleted
    }

    async fn publish(&self, set: &DaemonSet, sites: &[Site]) -> Result<(), Error> {
        let wanted = status(set, sites);
        if set.status.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(wanted);
        let name = set.name_any();
        let api: Api<DaemonSet> = Api::namespaced(self.cx.client.clone(), &set.namespace().unwrap_or_default());
        let written = api.replace_status(&name, &posting(), &changed).await;
        written.unless_gone("update status of daemonset", &name).map(|_| ())
    }

    async fn clean_up(
        &self,
        set: &DaemonSet,
        history: &[Arc<ControllerRevision>],
        current: &ControllerRevision,
        owned: &[Arc<Pod>],
    ) -> Result<(), Error> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let hashes: BTreeSet<&String> = owned.iter().filter_map(|pod| pod.labels().get(HASH_LABEL)).collect();
        let in_use = |revision: &&Arc<ControllerRevision>| {
            revision.labels().get(HASH_LABEL).is_some_and(|hash| hashes.contains(hash))
        };
        let mut used: BTreeSet<String> = history.iter().filter(in_use).map(|revision| revision.name_any()).collect();
        used.insert(current.name_any());
        revisions::delete(&self.cx.client, revisions::expired(history, &used, limit)).await
    }
}
