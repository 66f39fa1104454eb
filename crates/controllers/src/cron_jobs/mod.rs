//! CronJobs: a Job at each time of a schedule.

mod decide;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use osc_fault::Kind;

use crate::{
    cache::Key,
    context::{Context, RESYNC, posting},
    cron_jobs::decide::{Due, Schedule, Seen, due},
    error::{Attempt, Error},
    events::{Recorder, reference},
    pods::{controlled_by, controller_of, elapsed, owned_by, seconds},
    queue::{Queue, work},
    wake,
};

/// CronJobs worked on at the same time.
const PARALLEL: usize = 4;
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

struct CronJobs {
    cx: Context,
    queue: Queue<Key>,
    events: Recorder,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    wake::on_own_changes(&cx.caches.cron_jobs, &queue);
    let on = queue.clone();
    cx.caches.jobs.on_change(move |change| {
        let job = change.latest();
        if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob") {
            on.add(Key::new(job.namespace().unwrap_or_default(), owner.name.clone()));
        }
    });
    let events = cx.events.of("cronjob-controller");
    let this = Arc::new(CronJobs { cx: cx.clone(), queue, events });
    let stop = cx.stop.clone();
    async move {
        work("cronjob", this.queue.clone(), PARALLEL, stop, |key| this.reconcile(key)).await;
    }
}

fn outcome(job: &Job) -> Option<(&str, Timestamp)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions.iter().find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))?;
    Some((end.type_.as_str(), end.last_transition_time.as_ref().map(|time| time.0).unwrap_or_default()))
}

impl CronJobs {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(cron) = self.cx.caches.cron_jobs.get(&key) else { return Ok(None) };
        let Some(spec) = cron.spec.clone() else { return Ok(None) };
        if cron.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let uid = cron.uid().unwrap_or_default();
        let mut jobs = self.cx.caches.jobs.of_namespace(&key.namespace);
        jobs.retain(|job| controlled_by(&job.metadata, &uid));
        let (finished, mut active): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| outcome(job).is_some());
        active.retain(|job| job.metadata.deletion_timestamp.is_none());
        self.clean_up(&cron, &finished).await?;
        let mut status = self.status(&cron, &active, &finished);
        if spec.suspend == Some(true) {
            self.publish(&cron, status).await?;
            return Ok(Some(RESYNC));
        }
        let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                self.events.warning(cron.as_ref(), "InvalidSchedule", error.to_string());
                self.publish(&cron, status).await?;
                return Ok(None);
            }
        };
        let now = Timestamp::now();
        let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let seen = Seen {
            since: status.last_schedule_time.as_ref().map_or(created, |time| time.0),
            deadline: spec.starting_deadline_seconds.map(seconds),
            concurrency: spec
                .concurrency_policy
                .as_deref()
                .unwrap_or_default()
                .parse()
                .unwrap_or(decide::Concurrency::Allow),
            active: active.len(),
        };
        let done = self.run(&cron, &active, due(&schedule, &seen, now), &mut status).await;
        self.publish(&cron, status).await?;
        match done {
            Err(error) if error.namespace_terminating() => return Ok(None),
            other => other?,
        }
        // One moment late rather than early: the time must have come when we look.
        let next = schedule.next(now).map(|next| elapsed(now, next) + Duration::from_millis(50));
        Ok(Some(next.unwrap_or(RESYNC)))
    }

    async fn run(
        &self,
        cron: &CronJob,
        active: &[Arc<Job>],
        due: Due,
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        match due {
            Due::Nothing => Ok(()),
            Due::Missed { at } => {
                let message = format!("Missed scheduled time to start a job: {at}");
                self.events.warning(cron, "MissSchedule", message);
                Ok(())
            }
            Due::Blocked { .. } => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.events.normal(cron, "JobAlreadyActive", message.into());
                Ok(())
            }
            Due::Run { at, replace } => {
                if replace {
                    for job in active {
                        self.delete(cron, job).await?;
                    }
                    status.active = None;
                }
                self.start(cron, at, status).await
            }
        }
    }

    async fn start(&self, cron: &CronJob, at: Timestamp, status: &mut CronJobStatus) -> Result<(), Error> {
        let job = new_job(cron, at);
        let name = job.name_any();
        let api = self.jobs(cron);
        let made = match api.create(&posting(), &job).await.during("create job", &name) {
            Ok(made) => {
                self.events.normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                made
            }
            // The name stands for the time: this run was started before a restart.
            Err(error) if error.kind() == Kind::Busy => {
                let there = api.get(&name).await.during("read job", &name)?;
                if !controlled_by(&there.metadata, &cron.uid().unwrap_or_default()) {
                    return Err(error);
                }
                there
            }
            Err(error) => {
                if !error.namespace_terminating() {
                    let message = format!("Error creating job: {}", error.api_message());
                    self.events.warning(cron, "FailedCreate", message);
                }
                return Err(error);
            }
        };
        let active = status.active.get_or_insert_default();
        if !active.iter().any(|known| known.uid == made.uid()) {
            active.push(reference(&made));
        }
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }

    fn status(&self, cron: &CronJob, active: &[Arc<Job>], finished: &[Arc<Job>]) -> CronJobStatus {
        let old = cron.status.clone().unwrap_or_default();
        let known = |job: &Job| old.active.iter().flatten().any(|reference| reference.uid == job.uid());
        for job in finished.iter().filter(|job| known(job)) {
            let end = outcome(job).map_or("Complete", |(end, _)| end);
            let message = format!("Saw completed job: {}, condition: {end}", job.name_any());
            self.events.normal(cron, "SawCompletedJob", message);
        }
        let succeeded = finished.iter().filter_map(|job| outcome(job)).filter(|(end, _)| *end == "Complete");
        let last_success = succeeded.map(|(_, at)| Time(at)).max().max(old.last_successful_time);
        let stable = |job: &Arc<Job>| {
            // The version changes all the time and says nothing here.
            ObjectReference { resource_version: None, ..reference(job.as_ref()) }
        };
        let active: Vec<_> = active.iter().map(stable).collect();
        CronJobStatus {
            active: Some(active).filter(|active| !active.is_empty()),
            last_schedule_time: old.last_schedule_time,
            last_successful_time: last_success,
        }
    }

    async fn publish(&self, cron: &CronJob, wanted: CronJobStatus) -> Result<(), Error> {
        let wanted = CronJobStatus {
            active: wanted.active.map(|active| {
                active.into_iter().map(|known| ObjectReference { resource_version: None, ..known }).collect()
            }),
            ..wanted
        };
        if cron.status.clone().unwrap_or_default() == wanted {
            return Ok(());
        }
        let mut changed = cron.clone();
        changed.status = Some(wanted);
        let name = cron.name_any();
        let api: Api<CronJob> = Api::namespaced(self.cx.client.clone(), &cron.namespace().unwrap_or_default());
        let written = api.replace_status(&name, &posting(), &changed).await;
        written.unless_gone("update status of cronjob", &name).map(|_| ())
    }

    /// Keeps only the last few finished jobs of each kind.
    async fn clean_up(&self, cron: &CronJob, finished: &[Arc<Job>]) -> Result<(), Error> {
        let spec = cron.spec.clone().unwrap_or_default();
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (kind, limit) in limits {
            let mut jobs: Vec<_> =
                finished.iter().filter(|job| outcome(job).is_some_and(|(end, _)| end == kind)).collect();
            jobs.sort_by_key(|job| job.status.as_ref().and_then(|status| status.start_time.clone()));
            let surplus = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in jobs.into_iter().take(surplus).filter(|job| job.metadata.deletion_timestamp.is_none()) {
                self.delete(cron, job).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let name = job.name_any();
        let preconditions = Preconditions { uid: job.uid(), resource_version: None };
        let params = DeleteParams::background().preconditions(preconditions);
        if self.jobs(cron).delete(&name, &params).await.unless_gone("delete job", &name)?.is_some() {
            self.events.normal(cron, "SuccessfulDelete", format!("Deleted job {name}"));
        }
        Ok(())
    }

    fn jobs(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.cx.client.clone(), &cron.namespace().unwrap_or_default())
    }
}

/// The Job of one time; its name says which.
fn new_job(cron: &CronJob, at: Timestamp) -> Job {
    let template = cron.spec.clone().unwrap_or_default().job_template;
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.into(), at.to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), at.as_second() / 60)),
            namespace: cron.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owned_by(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
