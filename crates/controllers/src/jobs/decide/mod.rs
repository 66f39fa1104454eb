//! What a Job needs next: a pure function of the Job, its pods and the time.
//!
//! ```text
//!   ┌────────► running ──── enough succeeded ──► SuccessCriteriaMet ─ pods ended ─► Complete
//!   │ suspend     │
//!   └─ Suspended ◄┘ too many failures, deadline ─► FailureTarget ─── pods ended ──► Failed
//! ```
//!
//! A pod is counted once, although controller and API may die between any two
//! steps: it carries a finalizer; when it ends its uid is noted in
//! `uncountedTerminatedPods`, then the finalizer is dropped, then the uid moves
//! into the count.

mod policy;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use crate::{
    jobs::indexes::Indexes,
    pods::{self, elapsed, nonzero, seconds},
};
use policy::{Answer, Failures};

pub(super) use policy::FAILURES;

/// Finalizer of pods that are not counted yet.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation with the index of a pod.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Delay before a failed pod is replaced, doubling with each failure.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(600);
/// Pods made in one go.
const BURST: usize = 500;

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) status: JobStatus,
    /// Pods to make, with their index if the Job is indexed.
    pub(super) create: Vec<Option<u32>>,
    /// How often indexes failed, where the Job counts that.
    pub(super) failures: BTreeMap<u32, i32>,
    /// Pods to delete, by name.
    pub(super) delete: Vec<String>,
    /// Pods whose finalizer is dropped once the status is stored, by name.
    pub(super) release: Vec<String>,
    /// When time alone changes something.
    pub(super) again: Option<Duration>,
}

impl Plan {
    /// How often the index of a new pod failed, where the Job counts that.
    pub(super) fn failures_of(&self, index: Option<u32>) -> Option<i32> {
        self.failures.get(&index?).copied()
    }
}

/// One pod of the Job.
struct Seen<'a> {
    pod: &'a Pod,
    name: String,
    uid: String,
    index: Option<u32>,
    tracked: bool,
    /// Failed, or deleted before it could succeed.
    failed: bool,
}

impl Seen<'_> {
    fn succeeded(&self) -> bool {
        pods::phase(self.pod) == "Succeeded"
    }
}

/// Numbers and sets taken from the spec.
struct Wanted {
    parallelism: usize,
    /// `None`: a work queue, any success is enough.
    completions: Option<i32>,
    indexed: bool,
    suspended: bool,
    /// Pods that are on their way out keep their place until they have ended.
    patient: bool,
}

impl Wanted {
    fn of(job: &Job) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        Self {
            parallelism: usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0),
            completions: spec.completions,
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            suspended: spec.suspend == Some(true),
            patient: policy::waits_for_the_end(job),
        }
    }
}

pub(super) fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    let conditions = status.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// When a Job ended; `None` while it runs.
pub(super) fn finished_at(job: &Job) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let end = condition(status, "Complete").or_else(|| condition(status, "Failed"))?;
    Some(end.last_transition_time.as_ref().map(|time| time.0).unwrap_or_default())
}

/// Decides. `released` are uids of pods whose finalizer we dropped although the
/// cache may not show it yet.
pub(super) fn plan(job: &Job, owned: &[impl AsRef<Pod>], released: &BTreeSet<String>, now: Timestamp) -> Plan {
    let wanted = Wanted::of(job);
    let seen: Vec<Seen<'_>> = owned.iter().map(|pod| look(job, pod.as_ref(), released)).collect();
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    if finished_at(job).is_some() {
        // Nothing more is counted; pods are only let go.
        plan.release = seen.iter().filter(|pod| pod.tracked).map(|pod| pod.name.clone()).collect();
        return plan;
    }
    if plan.status.start_time.is_none() && !wanted.suspended {
        plan.status.start_time = Some(Time(now));
    }
    count(&mut plan, job, &wanted, &seen);
    let failures = policy::failures(job, &plan.status, &seen);
    if let Some(failures) = &failures {
        plan.status.failed_indexes = Some(failures.lost.to_text()).filter(|text| !text.is_empty());
    }
    suspend(&mut plan, &wanted, &seen, now);
    let failures = failures.unwrap_or_default();
    let verdict = verdict(job, &plan.status, &wanted, &seen, &failures.lost, now);
    match verdict {
        Some((kind, reason, message)) => wind_up(&mut plan, &seen, kind, &reason, &message, now),
        None => {
            plan.again = deadline(job, &plan.status, now);
            if !wanted.suspended {
                fill(&mut plan, &wanted, &seen, failures, now);
            }
        }
    }
    let active = seen.iter().filter(|pod| pods::is_active(pod.pod) && !plan.delete.contains(&pod.name));
    let (mut running, mut ready) = (0, 0);
    for pod in active {
        running += 1;
        ready += i32::from(pods::is_ready(pod.pod));
    }
    let terminating = seen.iter().filter(|pod| pods::is_deleting(pod.pod) && !pods::is_finished(pod.pod)).count();
    plan.status.active = nonzero(running);
    plan.status.ready = Some(ready);
    plan.status.terminating = Some(i32::try_from(terminating).unwrap_or(i32::MAX));
    plan
}

fn look<'a>(job: &Job, pod: &'a Pod, released: &BTreeSet<String>) -> Seen<'a> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let tracking = pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING);
    let index = pod.metadata.annotations.as_ref().and_then(|all| all.get(INDEX)).and_then(|text| text.parse().ok());
    Seen {
        pod,
        name: pod.metadata.name.clone().unwrap_or_default(),
        tracked: tracking && !released.contains(&uid),
        failed: policy::failed(job, pod),
        uid,
        index,
    }
}

/// Moves pods along the three steps of counting.
fn count(plan: &mut Plan, job: &Job, wanted: &Wanted, seen: &[Seen<'_>]) {
    let uncounted = plan.status.uncounted_terminated_pods.take().unwrap_or_default();
    let tracked: BTreeSet<&str> = seen.iter().filter(|pod| pod.tracked).map(|pod| pod.uid.as_str()).collect();
    let split = |uids: Option<Vec<String>>| -> (Vec<String>, Vec<String>) {
        uids.unwrap_or_default().into_iter().partition(|uid| tracked.contains(uid.as_str()))
    };
    let (mut succeeded, counted_good) = split(uncounted.succeeded);
    let (mut failed, counted_bad) = split(uncounted.failed);
    let add = |count: Option<i32>, more: usize| {
        nonzero(count.unwrap_or(0).saturating_add(i32::try_from(more).unwrap_or(i32::MAX)))
    };
    plan.status.failed = add(plan.status.failed, counted_bad.len());
    let mut done = completed(&plan.status, wanted);
    for pod in seen.iter().filter(|pod| pod.tracked) {
        if pod.succeeded() {
            // Of several pods with one index only the index counts.
            let fresh = !wanted.indexed || pod.index.is_some_and(|index| done.0.insert(index));
            let known = succeeded.contains(&pod.uid);
            if !known && fresh && !wanted.indexed {
                succeeded.push(pod.uid.clone());
            }
            plan.release.push(pod.name.clone());
        } else if pod.failed {
            if !failed.contains(&pod.uid) && policy::answer(job, pod.pod) != Answer::Ignore {
                failed.push(pod.uid.clone());
            }
            plan.release.push(pod.name.clone());
        }
    }
    if wanted.indexed {
        plan.status.completed_indexes = Some(done.to_text()).filter(|text| !text.is_empty());
        plan.status.succeeded = nonzero(i32::try_from(done.0.len()).unwrap_or(i32::MAX));
    } else {
        plan.status.succeeded = add(plan.status.succeeded, counted_good.len());
    }
    let list = |uids: Vec<String>| Some(uids).filter(|uids| !uids.is_empty());
    plan.status.uncounted_terminated_pods =
        Some(UncountedTerminatedPods { succeeded: list(succeeded), failed: list(failed) });
}

fn completed(status: &JobStatus, wanted: &Wanted) -> Indexes {
    let completions = u32::try_from(wanted.completions.unwrap_or(0)).unwrap_or(0);
    Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions)
}

/// Successes and failures including those not moved into the counts yet.
fn totals(status: &JobStatus, wanted: &Wanted) -> (i32, i32) {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let len = |uids: &Option<Vec<String>>| i32::try_from(uids.as_ref().map_or(0, Vec::len)).unwrap_or(i32::MAX);
    let waiting = if wanted.indexed { 0 } else { len(&uncounted.succeeded) };
    (status.succeeded.unwrap_or(0) + waiting, status.failed.unwrap_or(0) + len(&uncounted.failed))
}

/// How a Job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Success,
    Failure,
}

/// How, with reason and message.
type Verdict = (End, String, String);

fn verdict(
    job: &Job,
    status: &JobStatus,
    wanted: &Wanted,
    seen: &[Seen<'_>],
    lost: &Indexes,
    now: Timestamp,
) -> Option<Verdict> {
    // Once said, it stays.
    for (end, target) in [(End::Failure, "FailureTarget"), (End::Success, "SuccessCriteriaMet")] {
        if let Some(known) = condition(status, target) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            return Some((end, text(&known.reason), text(&known.message)));
        }
    }
    let told = failure(job, status, wanted, seen, lost, now).map(|(reason, message)| (End::Failure, reason, message));
    let told =
        told.or_else(|| success(job, status, wanted, seen).map(|(reason, message)| (End::Success, reason, message)));
    told.map(|(end, reason, message)| (end, reason.to_owned(), message))
}

/// Why the Job has failed.
fn failure(
    job: &Job,
    status: &JobStatus,
    wanted: &Wanted,
    seen: &[Seen<'_>],
    lost: &Indexes,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    for pod in seen.iter().filter(|pod| pod.failed && pod.tracked) {
        if let Answer::FailJob(message) = policy::answer(job, pod.pod) {
            return Some(("PodFailurePolicy", message));
        }
    }
    let spec = job.spec.clone().unwrap_or_default();
    let (succeeded, failed) = totals(status, wanted);
    let restarts: i64 = seen.iter().filter(|pod| pods::is_active(pod.pod)).map(|pod| pods::restarts(pod.pod)).sum();
    let in_place = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
    let limit = i64::from(spec.backoff_limit.unwrap_or(6));
    // Containers restarted in place count as retries, as pods do.
    if i64::from(failed) > limit || (in_place && restarts > 0 && restarts + i64::from(failed) > limit) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
    }
    if let (Some(limit), Some(start)) = (spec.active_deadline_seconds, &status.start_time)
        && !wanted.suspended
        && elapsed(start.0, now) >= seconds(limit)
    {
        return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
    }
    let lost = i32::try_from(lost.0.len()).unwrap_or(i32::MAX);
    if spec.max_failed_indexes.is_some_and(|most| lost > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message.into()));
    }
    let all_ended = wanted.completions.is_some_and(|completions| succeeded.saturating_add(lost) >= completions);
    (lost > 0 && all_ended).then(|| ("FailedIndexes", "Job has failed indexes".into()))
}

/// Why the Job has succeeded.
fn success(job: &Job, status: &JobStatus, wanted: &Wanted, seen: &[Seen<'_>]) -> Option<(&'static str, String)> {
    if wanted.indexed
        && let Some(rule) = policy::success(job, &completed(status, wanted))
    {
        return Some(("SuccessPolicy", format!("Matched rules at index {rule}")));
    }
    let (succeeded, _) = totals(status, wanted);
    let active = seen.iter().any(|pod| pods::is_active(pod.pod));
    let enough = match wanted.completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && !active,
    };
    enough.then(|| ("CompletionsReached", "Reached expected number of succeeded pods".into()))
}

/// Time until the deadline.
fn deadline(job: &Job, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let limit = job.spec.as_ref()?.active_deadline_seconds?;
    let start = status.start_time.as_ref()?;
    Some(seconds(limit).saturating_sub(elapsed(start.0, now)))
}

/// Ends the Job: first it is told how, then its pods go, then it is finished.
fn wind_up(plan: &mut Plan, seen: &[Seen<'_>], end: End, reason: &str, message: &str, now: Timestamp) {
    let (target, last) = match end {
        End::Success => ("SuccessCriteriaMet", "Complete"),
        End::Failure => ("FailureTarget", "Failed"),
    };
    set_condition(&mut plan.status, target, "True", reason, message, now);
    let left: Vec<_> = seen.iter().filter(|pod| pods::is_active(pod.pod)).collect();
    plan.delete.extend(left.iter().map(|pod| pod.name.clone()));
    let running = seen.iter().any(|pod| !pods::is_finished(pod.pod));
    let uncounted = plan.status.uncounted_terminated_pods.clone().unwrap_or_default();
    let counted = uncounted.succeeded.is_none() && uncounted.failed.is_none();
    if running || !counted {
        return;
    }
    set_condition(&mut plan.status, last, "True", reason, message, now);
    if end == End::Success {
        plan.status.completion_time = Some(Time(now));
    }
}

fn suspend(plan: &mut Plan, wanted: &Wanted, seen: &[Seen<'_>], now: Timestamp) {
    let known = condition(&plan.status, "Suspended").is_some();
    if wanted.suspended {
        plan.delete.extend(seen.iter().filter(|pod| pods::is_active(pod.pod)).map(|pod| pod.name.clone()));
        if !known {
            set_condition(&mut plan.status, "Suspended", "True", "JobSuspended", "Job suspended", now);
        }
        plan.status.start_time = None;
    } else if known {
        set_condition(&mut plan.status, "Suspended", "False", "JobResumed", "Job resumed", now);
    }
}

fn set_condition(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|condition| condition.type_ == type_);
    if known.is_some_and(|at| conditions[at].status == value) {
        return;
    }
    let condition = JobCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// Makes the pods that are missing, or deletes those too many.
fn fill(plan: &mut Plan, wanted: &Wanted, seen: &[Seen<'_>], failures: Failures, now: Timestamp) {
    let active: Vec<_> = seen.iter().filter(|pod| pods::is_active(pod.pod)).collect();
    let (succeeded, failed) = totals(&plan.status, wanted);
    let lost = i32::try_from(failures.lost.0.len()).unwrap_or(i32::MAX);
    let room = match wanted.completions {
        Some(completions) => {
            usize::try_from(completions - succeeded.saturating_add(lost)).unwrap_or(0).min(wanted.parallelism)
        }
        // A work queue gets no new workers once one has found it empty.
        None if succeeded > 0 => active.len().min(wanted.parallelism),
        None => wanted.parallelism,
    };
    if active.len() > room {
        let mut surplus: Vec<_> = active.iter().map(|pod| PodRef(pod.pod)).collect();
        pods::sort_for_deletion(&mut surplus, now);
        let names = surplus.iter().take(active.len() - room).filter_map(|pod| pod.0.metadata.name.clone());
        plan.delete.extend(names);
        return;
    }
    let leaving = seen.iter().filter(|pod| pods::is_deleting(pod.pod) && !pods::is_finished(pod.pod) && !pod.failed);
    let held = if wanted.patient { leaving.count() } else { 0 };
    let missing = (room - active.len()).saturating_sub(held).min(BURST);
    if missing == 0 {
        return;
    }
    if let Some(delay) = retry_delay(seen, failed, now) {
        plan.again = plan.again.into_iter().chain([delay]).min();
        return;
    }
    plan.create = match wanted.indexed {
        true => free_indexes(plan, wanted, &active, &failures.lost, missing),
        false => vec![None; missing],
    };
    plan.failures = failures.times;
}

fn free_indexes(
    plan: &Plan,
    wanted: &Wanted,
    active: &[&Seen<'_>],
    lost: &Indexes,
    missing: usize,
) -> Vec<Option<u32>> {
    let mut taken = completed(&plan.status, wanted).0;
    taken.extend(&lost.0);
    taken.extend(active.iter().filter_map(|pod| pod.index));
    let all = 0..u32::try_from(wanted.completions.unwrap_or(0)).unwrap_or(0);
    all.filter(|index| !taken.contains(index)).take(missing).map(Some).collect()
}

/// Time to wait before a failed pod is replaced.
fn retry_delay(seen: &[Seen<'_>], failed: i32, now: Timestamp) -> Option<Duration> {
    if failed == 0 {
        return None;
    }
    let ended = |pod: &Seen<'_>| {
        let statuses = pod.pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses
            .iter()
            .filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
            .map(|time| time.0)
            .max()
    };
    let last = seen.iter().filter(|pod| pods::phase(pod.pod) == "Failed").filter_map(ended).max()?;
    let doublings = u32::try_from(failed - 1).unwrap_or(0).min(10);
    let delay = FIRST_DELAY.saturating_mul(1 << doublings).min(LONGEST_DELAY);
    Some(delay.saturating_sub(elapsed(last, now))).filter(|left| !left.is_zero())
}

struct PodRef<'a>(&'a Pod);

impl AsRef<Pod> for PodRef<'_> {
    fn as_ref(&self) -> &Pod {
        self.0
    }
}

#[cfg(test)]
mod tests;
