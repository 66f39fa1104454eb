//! Looks after one pod of the API, from the moment it is bound to this node until
//! it is gone.
//!
//! ```text
//! bound ──► admitted ──► supervised ──► over ──┐
//!              │             │                 ├──► terminated ──► deleted
//!              └─ refused ───┴── deletion asked┘
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use osc_agent_protocol::kind::chain;
use tokio::{sync::watch, time::Instant};

use super::{
    Shared,
    status::{self, End, Facts},
    writer,
};
use crate::pod::{
    Event, Goal, Hold, Manifest, ManifestError, Membership, Note, Phase, PodError, Record, Report, Supervisor,
    model::Pod,
};

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// No answer of the API takes longer.
const ANSWER: Duration = Duration::from_secs(10);

/// A pod as the API has it.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    /// The object as it is, or was last.
    pub(super) object: core::Pod,
    /// Whether it is gone, or belongs to another node.
    pub(super) gone: bool,
}

/// Looks after one pod.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) latest: watch::Receiver<Latest>,
}

/// A pod that was taken in.
struct Taken {
    record: Record,
    hold: Hold,
    supervisor: Supervisor,
    report: watch::Receiver<Report>,
    pod: watch::Sender<Arc<Pod>>,
}

impl Worker {
    /// Runs until the pod is gone. Cancel-safe: the pod stays as it is, and
    /// another worker goes on.
    pub(super) async fn run(mut self) {
        let uid = self.object().metadata.uid.unwrap_or_default();
        let over = is_over(&self.object());
        let taken = tokio::select! {
            taken = self.take(over) => taken,
            () = deletion(self.latest.clone()) => None,
        };
        match taken {
            Some(taken) => {
                self.shared.wakers.insert(&uid, taken.supervisor.changed());
                self.look_after(taken, over).await;
                self.shared.wakers.remove(&uid);
            }
            None => {
                deletion(self.latest.clone()).await;
                self.clean_up(&uid).await;
            }
        }
        self.delete_object().await;
        self.shared.links.sweep();
    }

    fn object(&self) -> core::Pod {
        self.latest.borrow().object.clone()
    }

    fn note(&self, note: Note) {
        self.shared.recorder.pod(&self.object(), note);
    }

    /// Takes the pod in; `None` if it cannot be run here.
    async fn take(&self, over: bool) -> Option<Taken> {
        let manifest = match read(&self.object()) {
            Ok(manifest) => manifest,
            Err(error) => {
                if !over {
                    self.refuse(&chain(&error)).await;
                }
                return None;
            }
        };
        loop {
            match self.take_as(&manifest).await {
                Ok(taken) => return Some(taken),
                Err(note) => {
                    self.note(note);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// A pod that will never run here.
    async fn refuse(&self, reason: &str) {
        self.note(Note::pod(true, "InvalidPod", reason));
        let refused = |object: &core::Pod| core::PodStatus {
            phase: Some("Failed".into()),
            reason: Some("InvalidPod".into()),
            message: Some(reason.to_owned()),
            ..object.status.clone().unwrap_or_default()
        };
        self.write(refused).await;
    }

    async fn take_as(&self, manifest: &Manifest) -> Result<Taken, Note> {
        let shared = &self.shared;
        let handler = shared.handlers.of(manifest.pod.handler.as_deref()).await?;
        let failed = |error: PodError| Note::pod(true, "FailedCreatePodSandBox", chain(&error));
        let (record, hold) = shared.pods.adopt(manifest, &handler).await.map_err(failed)?;
        let (pod, latest) = watch::channel(Arc::new(manifest.pod.clone()));
        let (sender, report) = watch::channel(Report::default());
        let (recorder, object) = (shared.recorder.clone(), self.latest.clone());
        let membership = Membership {
            cluster: shared.cluster.clone(),
            journal: Arc::new(move |note| recorder.pod(&object.borrow().object, note)),
            latest,
            report: sender,
            before: health_before(&self.object()),
        };
        let supervisor = shared.pods.member(&record, membership).map_err(failed)?;
        Ok(Taken { record, hold, supervisor, report, pod })
    }

    /// Runs the pod until it is over or to be deleted, and then ends it.
    async fn look_after(&mut self, mut taken: Taken, over: bool) {
        let pod = taken.supervisor.pod().clone();
        let end = if over { None } else { self.supervise(&mut taken).await };
        match &end {
            Some(end) => tokio::select! {
                () = self.wind_up(&mut taken, &pod, end) => {}
                // Perhaps with less grace.
                () = deletion(self.latest.clone()) => {}
            },
            None if over => self.retire(&taken, &pod).await,
            None => {}
        }
        deletion(self.latest.clone()).await;
        self.terminate(&mut taken).await;
        let Taken { record, hold, .. } = taken;
        self.remove(record, hold).await;
    }

    /// Ends what still runs, tells how the pod ended, and takes its sandbox down.
    /// Nobody is to see a final phase beside a container that runs.
    async fn wind_up(&self, taken: &mut Taken, pod: &Pod, end: &End) {
        while let Err(error) = taken.supervisor.stop(pod.grace).await {
            tracing::warn!(pod.name = %pod.full_name(), error = chain(&error), "pod does not stop, trying again");
            tokio::time::sleep(RETRY).await;
        }
        let report = taken.report.borrow().clone();
        self.tell(pod, &report, Some(end)).await;
        self.retire(taken, pod).await;
    }

    /// How the pod ended, unless it is to be deleted before that.
    async fn supervise(&self, taken: &mut Taken) -> Option<End> {
        let links = self.shared.links.clone();
        let (record, mut log) = (taken.record.clone(), None);
        let mut tell = move |event: Event| match event {
            Event::Starting { log: place, .. } => log = Some(place),
            Event::Started { container, id } => links.link(&record, &container, &id, log.take().as_deref()),
            Event::Ended { .. } => {}
        };
        let pod = taken.supervisor.pod().clone();
        let work = async {
            loop {
                match taken.supervisor.run(Goal::Done, &mut tell).await {
                    Ok(Some(phase)) => return phase,
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(pod.name = %pod.full_name(), error = chain(&error), "pod is not looked after, trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        };
        let phase = tokio::select! {
            phase = work => phase,
            () = self.keep_told(&taken.pod, &taken.report, &pod) => return None,
            () = deletion(self.latest.clone()) => return None,
            message = self.shared.pods.overfull(&taken.record, &pod) => {
                self.note(Note::pod(true, "Evicted", message.clone()));
                return Some(End { phase: Phase::Failed, reason: Some(("Evicted", message)) });
            }
        };
        // What it decided by: reports come only with what others can see change.
        let age = taken.supervisor.seen().age;
        let late = pod.active_deadline.is_some_and(|limit| age >= limit);
        let message = "Pod was active on the node longer than the specified deadline";
        let reason = (late && phase == Phase::Failed).then(|| ("DeadlineExceeded", message.to_owned()));
        Some(End { phase, reason })
    }

    /// Tells the API what is seen, and the supervisor what the API says. Returns
    /// once the pod is gone.
    async fn keep_told(&self, pod: &watch::Sender<Arc<Pod>>, report: &watch::Receiver<Report>, first: &Pod) {
        let (mut report, mut latest) = (report.clone(), self.latest.clone());
        let mut model = first.clone();
        // The first report comes with the first look; nothing is known before.
        let _ = report.changed().await; // the sender is the supervisor's
        loop {
            let object = latest.borrow_and_update().object.clone();
            let seen = report.borrow_and_update().clone();
            let failed = !self.tell_of(&object, &model, &seen, None).await;
            tokio::select! {
                changed = report.changed() => if changed.is_err() { return },
                changed = latest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let object = latest.borrow().object.clone();
                    if let Ok(manifest) = read(&object) {
                        model = manifest.pod.clone();
                        pod.send_replace(Arc::new(manifest.pod));
                        self.shared.wakers.wake(&model.uid);
                    }
                }
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    }

    /// Tells the API, however often it takes.
    async fn tell(&self, pod: &Pod, report: &Report, end: Option<&End>) {
        while !self.tell_of(&self.object(), pod, report, end).await {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Tells the API; whether it listened.
    async fn tell_of(&self, object: &core::Pod, pod: &Pod, report: &Report, end: Option<&End>) -> bool {
        let (node, now) = (self.shared.cluster.node.address, Timestamp::now());
        let compute = |object: &core::Pod| status::compute(Facts { object, pod, report, end, node, now });
        self.write_upon(object, compute).await
    }

    async fn write(&self, compute: impl Fn(&core::Pod) -> core::PodStatus) {
        while !self.write_upon(&self.object(), &compute).await {
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn write_upon(&self, object: &core::Pod, compute: impl Fn(&core::Pod) -> core::PodStatus) -> bool {
        match writer::write(self.shared.cluster.client(), object, compute).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(pod.name = object.metadata.name, error, "status of the pod is not told, trying again");
                false
            }
        }
    }

    /// Ends what is left of a pod that is over, but keeps its logs.
    async fn retire(&self, taken: &Taken, pod: &Pod) {
        while let Err(error) = self.shared.pods.retire(&taken.record, pod).await {
            tracing::warn!(pod.name = %pod.full_name(), error = chain(&error), "pod does not end, trying again");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Stops the containers within the grace that is left, which may become less.
    async fn terminate(&mut self, taken: &mut Taken) {
        let pod = taken.supervisor.pod().clone();
        loop {
            let until = self.grace_ends(&pod);
            let mut latest = self.latest.clone();
            latest.mark_unchanged();
            let shortened = async {
                while latest.changed().await.is_ok() {
                    if self.grace_ends(&pod) < until {
                        return;
                    }
                }
                std::future::pending().await
            };
            let left = until.saturating_duration_since(Instant::now());
            let stopped = tokio::select! {
                stopped = taken.supervisor.stop(left) => stopped,
                () = self.keep_told(&taken.pod, &taken.report, &pod) => continue,
                () = shortened => continue,
            };
            match stopped {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(pod.name = %pod.full_name(), error = chain(&error), "pod does not stop, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        self.retire(taken, &pod).await;
        let report = taken.report.borrow().clone();
        if !self.latest.borrow().gone {
            let end = status::end_of_deleted(&pod, &report);
            self.tell(&pod, &report, Some(&end)).await;
        }
    }

    /// When a pod that is to be deleted has to be gone.
    fn grace_ends(&self, pod: &Pod) -> Instant {
        let latest = self.latest.borrow();
        let now = Instant::now();
        match &latest.object.metadata.deletion_timestamp {
            _ if latest.gone => now,
            Some(deadline) => now + Duration::try_from(deadline.0.duration_since(Timestamp::now())).unwrap_or_default(),
            None => now + pod.grace,
        }
    }

    /// Removes everything the pod has on this node.
    async fn remove(&self, record: Record, mut hold: Hold) {
        loop {
            match self.shared.pods.delete(&record, hold).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(pod.name = %record.full_name(), error = chain(&error), "pod is not removed, trying again")
                }
            }
            hold = loop {
                tokio::time::sleep(RETRY).await;
                match self.shared.pods.store().try_hold(&record.uid) {
                    Ok(Some(hold)) => break hold,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(error = chain(&error), "pod cannot be held"),
                }
            };
        }
    }

    /// Removes what an earlier worker has left of a pod that this one never took.
    async fn clean_up(&self, uid: &str) {
        if let Ok(record) = self.shared.pods.store().get(uid)
            && let Ok(Some(hold)) = self.shared.pods.store().try_hold(uid)
        {
            self.remove(record, hold).await;
        }
    }

    /// The last thing: the object goes.
    async fn delete_object(&self) {
        let object = self.object();
        let name = object.metadata.name.clone().unwrap_or_default();
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let api: Api<core::Pod> = Api::namespaced(self.shared.cluster.client().clone(), &namespace);
        let preconditions = Preconditions { uid: object.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams::default().grace_period(0).preconditions(preconditions);
        while !self.latest.borrow().gone {
            match tokio::time::timeout(ANSWER, api.delete(&name, &parameters)).await {
                Ok(Ok(_)) => return,
                // Another pod has the name by now, or nobody has.
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return,
                Ok(Err(error)) => {
                    tracing::warn!(pod.name = name, error = chain(&error), "pod is not deleted, trying again")
                }
                Err(_) => tracing::warn!(pod.name = name, "pod is not deleted in time, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Understands an object.
fn read(object: &core::Pod) -> Result<Manifest, ManifestError> {
    Manifest::of_cluster(serde_json::to_value(object).unwrap_or_default())
}

/// Whether the pod has ended for good.
fn is_over(object: &core::Pod) -> bool {
    let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Returns when the pod is to be deleted, or gone.
async fn deletion(mut latest: watch::Receiver<Latest>) {
    let asked = |latest: &Latest| latest.gone || latest.object.metadata.deletion_timestamp.is_some();
    if latest.wait_for(asked).await.is_err() {
        // Whoever watches the API is gone: nothing is asked any more.
        std::future::pending::<()>().await;
    }
}

/// Which containers, by id, had been started and were ready when this was told.
fn health_before(object: &core::Pod) -> HashMap<String, (bool, bool)> {
    let status = object.status.clone().unwrap_or_default();
    let statuses = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
    let health = |status: core::ContainerStatus| {
        let id = status.container_id?.strip_prefix("containerd://")?.to_owned();
        Some((id, (status.started.unwrap_or(false), status.ready)))
    };
    statuses.filter_map(health).collect()
}
