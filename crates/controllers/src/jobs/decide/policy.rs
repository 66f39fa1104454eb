//! What a Job says about single failures and successes: `podFailurePolicy`, `backoffLimitPerIndex`, `successPolicy`.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::{Job, JobStatus, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
    core::v1::{ContainerStatus, Pod},
};

use super::Seen;
use crate::{jobs::indexes::Indexes, pods};

/// Annotation: how often the index of a pod had failed before it was made.
pub(in crate::jobs) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// One more failure.
    Count,
    /// Nothing: it is replaced.
    Ignore,
    /// Its index is not tried again.
    FailIndex,
    /// The Job has failed, for this reason.
    FailJob(String),
}

/// The first rule that a failed pod matches decides; without one it counts.
pub(super) fn answer(job: &Job, pod: &Pod) -> Answer {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let matched = rules.iter().enumerate().find_map(|(at, rule)| Some((rule, matches(rule, at, pod)?)));
    match matched {
        None => Answer::Count,
        Some((rule, why)) => match rule.action.as_str() {
            "Ignore" => Answer::Ignore,
            "FailIndex" => Answer::FailIndex,
            "FailJob" => Answer::FailJob(why),
            _ => Answer::Count,
        },
    }
}

/// Why a rule matches a pod, in words.
fn matches(rule: &PodFailurePolicyRule, at: usize, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = format!("{}/{}", of(&pod.metadata.namespace), of(&pod.metadata.name));
    let action = &rule.action;
    if let Some(wanted) = &rule.on_exit_codes {
        let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        let (container, code) = containers.filter_map(exit_code).find(|(name, code)| wants(wanted, name, *code))?;
        return Some(format!(
            "Container {container} for pod {name} failed with exit code {code} matching {action} rule at index {at}"
        ));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let met = rule.on_pod_conditions.iter().flatten().find(|pattern| {
        let value = if pattern.status.is_empty() { "True" } else { &pattern.status };
        conditions.iter().any(|condition| condition.type_ == pattern.type_ && condition.status == value)
    })?;
    Some(format!("Pod {name} has condition {} matching {action} rule at index {at}", met.type_))
}

/// Name and exit code of a container that failed.
fn exit_code(status: &ContainerStatus) -> Option<(&str, i32)> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    (ended.exit_code != 0).then_some((status.name.as_str(), ended.exit_code))
}

fn wants(wanted: &PodFailurePolicyOnExitCodesRequirement, container: &str, code: i32) -> bool {
    let listed = wanted.values.contains(&code);
    let asked = if wanted.operator == "NotIn" { !listed } else { listed };
    asked && wanted.container_name.as_deref().is_none_or(|name| name == container)
}

/// How often each index failed, and which of them have failed for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) times: BTreeMap<u32, i32>,
    pub(super) lost: Indexes,
}

/// Reads from the pods there are how often their indexes failed; nothing where the Job has no limit per index.
pub(super) fn failures(job: &Job, status: &JobStatus, seen: &[Seen<'_>]) -> Option<Failures> {
    let spec = job.spec.as_ref()?;
    let limit = spec.backoff_limit_per_index?;
    let completions = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
    let lost = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
    let mut failures = Failures { times: BTreeMap::new(), lost };
    for pod in seen {
        let Some(index) = pod.index.filter(|index| *index < completions) else { continue };
        let annotation = pod.pod.metadata.annotations.as_ref().and_then(|all| all.get(FAILURES));
        let before = annotation.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
        let answer = if pod.failed { answer(job, pod.pod) } else { Answer::Ignore };
        let times = before.saturating_add(i32::from(answer != Answer::Ignore));
        let known = failures.times.entry(index).or_default();
        *known = times.max(*known);
        if times > limit || answer == Answer::FailIndex {
            failures.lost.0.insert(index);
        }
    }
    // An index that succeeded after all is not lost.
    let done = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
    failures.lost.0.retain(|index| !done.0.contains(index));
    Some(failures)
}

/// The number of the first rule for success that is met.
pub(super) fn success(job: &Job, done: &Indexes) -> Option<usize> {
    let spec = job.spec.as_ref()?;
    let completions = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
    spec.success_policy.as_ref()?.rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text, completions).0);
        let reached = wanted.as_ref().map_or(done.0.len(), |wanted| wanted.intersection(&done.0).count());
        let least = match rule.succeeded_count {
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
            None => wanted.map_or(usize::MAX, |wanted| wanted.len()),
        };
        reached >= least
    })
}

/// Whether a pod that is being deleted counts only once it has ended.
pub(super) fn waits_for_the_end(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| {
        spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed")
    })
}

/// Whether a pod has failed, or will never end because it never began.
pub(super) fn failed(job: &Job, pod: &Pod) -> bool {
    let phase = pods::phase(pod);
    let placed = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    let gone = pods::is_deleting(pod) && phase != "Succeeded";
    phase == "Failed" || (gone && !(waits_for_the_end(job) && placed))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{object, pod};

    fn job(spec: Value) -> Job {
        object(json!({"metadata": {"name": "j"}, "spec": spec}))
    }

    fn ended(container: &str, code: i32) -> Pod {
        pod(json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "containerStatuses": [{"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}]}}))
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let rules = |rules: Value| job(json!({"template": {}, "podFailurePolicy": {"rules": rules}}));
        let codes = |action: &str, operator: &str, values: Value| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let disrupted =
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        let why = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 0";
        let rows = [
            (json!([]), Answer::Count),
            (json!([codes("FailJob", "In", json!([42]))]), Answer::FailJob(why.into())),
            (json!([codes("FailJob", "In", json!([1]))]), Answer::Count),
            (json!([codes("FailJob", "NotIn", json!([42]))]), Answer::Count),
            (json!([codes("FailIndex", "NotIn", json!([1]))]), Answer::FailIndex),
            (json!([disrupted, codes("FailJob", "In", json!([42]))]), Answer::Ignore),
            (json!([codes("Count", "In", json!([42])), disrupted]), Answer::Count),
            (
                json!([{"action": "FailIndex", "onExitCodes": {"containerName": "x", "operator": "In", "values": [42]}}]),
                Answer::Count,
            ),
        ];
        for (given, want) in rows {
            assert_eq!(answer(&rules(given.clone()), &ended("c", 42)), want, "{given}");
        }
    }

    #[test]
    fn success_is_what_the_policy_calls_so() {
        let done = Indexes::parse("0,2-4", 10);
        let rows = [
            (json!([{"succeededIndexes": "0,2"}]), Some(0)),
            (json!([{"succeededIndexes": "0-2"}]), None),
            (json!([{"succeededIndexes": "0-2", "succeededCount": 2}]), Some(0)),
            (json!([{"succeededCount": 5}, {"succeededCount": 4}]), Some(1)),
        ];
        for (rules, want) in rows {
            let job = job(json!({"template": {}, "completions": 10, "successPolicy": {"rules": rules}}));
            assert_eq!(success(&job, &done), want, "{rules}");
        }
        assert_eq!(success(&job(json!({"template": {}, "completions": 10})), &done), None);
    }
}
