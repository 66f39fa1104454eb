use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{object, pod, timestamp};

const NOW: &str = "2026-01-01T01:00:00Z";

fn job(spec: Value) -> Job {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"restartPolicy": "Never", "containers": []}});
    object(json!({"metadata": {"name": "j", "uid": "u"}, "spec": spec,
        "status": {"startTime": "2026-01-01T00:59:00Z"}}))
}

fn member(name: &str, phase: &str) -> Arc<Pod> {
    Arc::new(pod(
        json!({"metadata": {"name": name, "uid": name, "finalizers": [TRACKING]}, "status": {"phase": phase}}),
    ))
}

fn indexed(name: &str, phase: &str, index: u32) -> Arc<Pod> {
    let mut pod = member(name, phase).as_ref().clone();
    pod.metadata.annotations = Some([(INDEX.to_owned(), index.to_string())].into());
    Arc::new(pod)
}

fn decide(job: &Job, pods: &[Arc<Pod>]) -> Plan {
    plan(job, pods, &BTreeSet::new(), timestamp(NOW))
}

fn conditions(plan: &Plan) -> Vec<&str> {
    plan.status.conditions.iter().flatten().filter(|c| c.status == "True").map(|c| c.type_.as_str()).collect()
}

#[test]
fn pods_are_made_up_to_parallelism_and_completions() {
    for (spec, pods, want) in [
        (json!({"completions": 1, "parallelism": 1}), vec![], 1),
        (json!({"completions": 5, "parallelism": 2}), vec![], 2),
        (json!({"completions": 5, "parallelism": 2}), vec![member("a", "Running")], 1),
        (json!({"completions": 2, "parallelism": 9}), vec![member("a", "Running")], 1),
        (json!({"completions": 2, "parallelism": 9}), vec![member("a", "Succeeded")], 1),
        (json!({"parallelism": 3}), vec![], 3),
        (json!({"parallelism": 3}), vec![member("a", "Succeeded"), member("b", "Running")], 0),
        (json!({"completions": 3, "parallelism": 0}), vec![], 0),
        (json!({"completions": 3, "parallelism": 3, "suspend": true}), vec![], 0),
    ] {
        assert_eq!(decide(&job(spec.clone()), &pods).create.len(), want, "{spec}");
    }
}

#[test]
fn surplus_pods_are_deleted() {
    let plan =
        decide(&job(json!({"completions": 5, "parallelism": 1})), &[member("a", "Running"), member("b", "Pending")]);
    assert_eq!((plan.delete, plan.create.len()), (vec!["b".to_owned()], 0));
}

/// Applies a plan the way the loop does: status first, then finalizers.
fn settle(job: &mut Job, pods: &mut Vec<Arc<Pod>>) -> Plan {
    let plan = decide(job, pods);
    job.status = Some(plan.status.clone());
    pods.retain(|pod| !plan.delete.contains(pod.metadata.name.as_ref().unwrap()));
    for pod in pods.iter_mut().filter(|pod| plan.release.contains(pod.metadata.name.as_ref().unwrap())) {
        Arc::make_mut(pod).metadata.finalizers = None;
    }
    plan
}

#[test]
fn a_success_is_counted_once_then_the_job_completes() {
    let mut job = job(json!({"completions": 1, "parallelism": 1}));
    let mut pods = vec![member("a", "Succeeded")];
    let first = settle(&mut job, &mut pods);
    assert_eq!((first.status.succeeded, first.release.len()), (None, 1), "noted, not counted");
    assert_eq!(conditions(&first), ["SuccessCriteriaMet"]);
    let second = settle(&mut job, &mut pods);
    assert_eq!(second.status.succeeded, Some(1));
    assert_eq!(conditions(&second), ["SuccessCriteriaMet", "Complete"]);
    assert!(second.status.completion_time.is_some());
    let third = settle(&mut job, &mut pods);
    assert_eq!(third.status.succeeded, Some(1), "not again");
}

#[test]
fn a_cache_that_still_shows_the_finalizer_does_not_count_twice() {
    let mut job = job(json!({"completions": 2, "parallelism": 1}));
    let pods = [member("a", "Succeeded")];
    job.status = Some(decide(&job, &pods).status);
    let released = BTreeSet::from(["a".to_owned()]);
    job.status = Some(plan(&job, &pods, &released, timestamp(NOW)).status);
    assert_eq!(job.status.as_ref().unwrap().succeeded, Some(1));
    let again = plan(&job, &pods, &released, timestamp(NOW));
    assert_eq!(again.status.succeeded, Some(1));
    assert_eq!(again.status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
}

#[test]
fn too_many_failures_end_the_job_after_its_pods() {
    let mut job = job(json!({"completions": 3, "parallelism": 2, "backoffLimit": 1}));
    let mut pods = vec![member("a", "Failed"), member("b", "Failed"), member("c", "Running")];
    let first = settle(&mut job, &mut pods);
    assert_eq!(conditions(&first), ["FailureTarget"]);
    assert_eq!((first.delete, first.create.len()), (vec!["c".to_owned()], 0));
    let last = settle(&mut job, &mut pods);
    assert_eq!(conditions(&last), ["FailureTarget", "Failed"]);
    assert_eq!(last.status.failed, Some(2));
    let failed = last.status.conditions.unwrap().into_iter().find(|c| c.type_ == "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
}

#[test]
fn failed_pods_are_replaced_after_a_growing_delay() {
    let failed = |at: &str| {
        let mut pod = member("a", "Failed").as_ref().clone();
        pod.status = Some(object(json!({"phase": "Failed", "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]})));
        Arc::new(pod)
    };
    let job = job(json!({"completions": 1, "parallelism": 1}));
    let soon = decide(&job, &[failed("2026-01-01T00:59:56Z")]);
    assert_eq!((soon.create.len(), soon.again), (0, Some(Duration::from_secs(6))));
    assert_eq!(decide(&job, &[failed("2026-01-01T00:59:50Z")]).create.len(), 1);
}

#[test]
fn deadlines_end_a_job() {
    let spec = |seconds| json!({"completions": 1, "parallelism": 1, "activeDeadlineSeconds": seconds});
    let running = [member("a", "Running")];
    let plan = decide(&job(spec(61)), &running);
    assert_eq!((plan.again, plan.delete.len()), (Some(Duration::from_secs(1)), 0));
    let plan = decide(&job(spec(60)), &running);
    assert_eq!((conditions(&plan), plan.delete.len()), (vec!["FailureTarget"], 1));
}

#[test]
fn suspending_stops_the_pods_and_the_clock() {
    let mut job = job(json!({"completions": 1, "parallelism": 1, "suspend": true, "activeDeadlineSeconds": 1}));
    let plan = decide(&job, &[member("a", "Running")]);
    assert_eq!((conditions(&plan), plan.delete.len()), (vec!["Suspended"], 1));
    assert!(plan.status.start_time.is_none());
    job.status = Some(plan.status);
    job.spec.as_mut().unwrap().suspend = Some(false);
    let plan = decide(&job, &[]);
    assert_eq!((conditions(&plan).len(), plan.create.len()), (0, 1));
    assert_eq!(plan.status.start_time.map(|time| time.0), Some(timestamp(NOW)));
}

#[test]
fn indexes_are_handed_out_once_each() {
    let mut job = job(json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"}));
    assert_eq!(decide(&job, &[]).create, [Some(0), Some(1)]);
    let mut pods = vec![indexed("a", "Succeeded", 0), indexed("b", "Running", 1)];
    let plan = settle(&mut job, &mut pods);
    assert_eq!((plan.status.completed_indexes.as_deref(), plan.status.succeeded), (Some("0"), Some(1)));
    assert_eq!(plan.create, [Some(2)]);
    pods = vec![indexed("a", "Succeeded", 0), indexed("b", "Succeeded", 1), indexed("c", "Succeeded", 2)];
    settle(&mut job, &mut pods);
    let end = settle(&mut job, &mut pods);
    assert_eq!(end.status.completed_indexes.as_deref(), Some("0-2"));
    assert_eq!(conditions(&end), ["SuccessCriteriaMet", "Complete"]);
}

#[test]
fn in_place_restarts_count_as_retries() {
    let mut job = job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 2}));
    job.spec.as_mut().unwrap().template.spec.as_mut().unwrap().restart_policy = Some("OnFailure".into());
    let restarted = |count: i32| {
        let mut pod = member("a", "Running").as_ref().clone();
        pod.status = Some(object(json!({"phase": "Running", "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": count}]})));
        Arc::new(pod)
    };
    assert_eq!(conditions(&decide(&job, &[restarted(2)])).len(), 0);
    assert_eq!(conditions(&decide(&job, &[restarted(3)])), ["FailureTarget"]);
}

fn doubled(indexes: &[Option<u32>]) -> bool {
    let mut seen = BTreeSet::new();
    indexes.iter().flatten().any(|index| !seen.insert(*index))
}

proptest! {
    /// Whatever pods do, a Job ends, counts every pod once, and never runs more
    /// than allowed.
    #[test]
    fn jobs_end_and_count_right(
        completions in 1i32..6,
        parallelism in 1i32..4,
        limit in 0i32..4,
        indexed_mode in any::<bool>(),
        luck in proptest::collection::vec(any::<bool>(), 1..12),
    ) {
        let mut job = job(json!({
            "completions": completions, "parallelism": parallelism, "backoffLimit": limit,
            "completionMode": if indexed_mode { "Indexed" } else { "NonIndexed" }}));
        let mut pods: Vec<Arc<Pod>> = Vec::new();
        let (mut made, mut good, mut bad) = (0usize, 0, 0);
        for round in 0..200 {
            let plan = settle(&mut job, &mut pods);
            prop_assert!(!doubled(&plan.create));
            if finished_at(&job).is_some() {
                break;
            }
            for index in plan.create {
                let name = format!("p{made}");
                made += 1;
                pods.push(index.map_or_else(|| member(&name, "Running"), |index| indexed(&name, "Running", index)));
            }
            let active = pods.iter().filter(|pod| pods::is_active(pod)).count();
            prop_assert!(active <= parallelism as usize);
            if let Some(pod) = pods.iter_mut().find(|pod| pods::is_active(pod)) {
                let lucky = luck[round % luck.len()];
                good += i32::from(lucky);
                bad += i32::from(!lucky);
                let phase = if lucky { "Succeeded" } else { "Failed" };
                Arc::make_mut(pod).status = Some(object(json!({ "phase": phase })));
            }
        }
        let status = job.status.clone().unwrap();
        prop_assert!(finished_at(&job).is_some(), "no end: {status:?}");
        prop_assert_eq!(status.succeeded.unwrap_or(0), good);
        prop_assert_eq!(status.failed.unwrap_or(0), bad);
        let complete = condition(&status, "Complete").is_some();
        prop_assert_eq!(complete, good == completions);
        prop_assert_eq!(!complete, bad > limit);
    }
}

#[test]
fn ignored_failures_are_replaced_and_not_counted() {
    let ignore = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]});
    let job = job(json!({"completions": 1, "backoffLimit": 0, "podFailurePolicy": ignore}));
    let mut disrupted = member("a", "Failed").as_ref().clone();
    disrupted.status.get_or_insert_default().conditions =
        Some(vec![object(json!({"type": "DisruptionTarget", "status": "True"}))]);
    let plan = decide(&job, &[Arc::new(disrupted)]);
    assert_eq!((plan.release.as_slice(), plan.create.len()), (["a".to_owned()].as_slice(), 1));
    assert_eq!(plan.status.uncounted_terminated_pods.as_ref().unwrap().failed, None);
    assert_eq!(conditions(&decide(&job, &[member("b", "Failed")])), ["FailureTarget"], "others count");
}

#[test]
fn an_exit_code_can_end_the_job() {
    let fatal = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}]});
    let job = job(json!({"completions": 9, "parallelism": 2, "podFailurePolicy": fatal}));
    let mut pod = member("a", "Failed").as_ref().clone();
    pod.status.get_or_insert_default().container_statuses = Some(vec![object(json!({
        "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 3}}}))]);
    let plan = decide(&job, &[Arc::new(pod), member("b", "Running")]);
    let told = condition(&plan.status, "FailureTarget").unwrap();
    assert_eq!(told.reason.as_deref(), Some("PodFailurePolicy"));
    assert_eq!((plan.delete, plan.create.len()), (vec!["b".to_owned()], 0));
}

fn attempt(name: &str, phase: &str, index: u32, failures: i32) -> Arc<Pod> {
    let mut pod = indexed(name, phase, index).as_ref().clone();
    pod.metadata.annotations.get_or_insert_default().insert(FAILURES.into(), failures.to_string());
    Arc::new(pod)
}

#[test]
fn indexes_fail_for_themselves() {
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    let given = job(spec.clone());
    let first = decide(&given, &[attempt("a", "Failed", 0, 0), attempt("b", "Running", 1, 0)]);
    assert_eq!((first.create.as_slice(), first.failures_of(Some(0))), ([Some(0), Some(2)].as_slice(), Some(1)));
    assert_eq!(first.status.failed_indexes, None);
    let second = decide(&given, &[attempt("a", "Failed", 0, 1), attempt("b", "Running", 1, 0)]);
    assert_eq!(second.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(second.create, [Some(2)], "the others go on");
    let all = [attempt("a", "Failed", 0, 1), attempt("b", "Succeeded", 1, 0), attempt("c", "Succeeded", 2, 0)];
    let last = decide(&given, &all);
    assert_eq!(condition(&last.status, "FailureTarget").unwrap().reason.as_deref(), Some("FailedIndexes"));
    let mut strict = spec;
    strict["maxFailedIndexes"] = json!(0);
    let ended = decide(&job(strict), &[attempt("a", "Failed", 0, 1), attempt("b", "Running", 1, 0)]);
    let reason = condition(&ended.status, "FailureTarget").unwrap().reason.clone();
    assert_eq!(
        (reason.as_deref(), ended.delete.as_slice()),
        (Some("MaxFailedIndexesExceeded"), ["b".to_owned()].as_slice())
    );
}

#[test]
fn enough_indexes_can_be_enough() {
    let policy = json!({"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]});
    let job = job(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": policy}));
    let plan = decide(&job, &[indexed("a", "Succeeded", 1), indexed("b", "Running", 0)]);
    let told = condition(&plan.status, "SuccessCriteriaMet").unwrap();
    assert_eq!(
        (told.reason.as_deref(), told.message.as_deref()),
        (Some("SuccessPolicy"), Some("Matched rules at index 0"))
    );
    assert_eq!(plan.delete, ["b"]);
}
