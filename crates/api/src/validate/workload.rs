//! Deployments, Jobs and their kin.

use osc_schema::{Cause, Path};
use serde_json::{Map, Value};

use super::{
    job_policy, metadata, pod,
    rules::{at_most_all, count_or_percent, immutable, not_negative, one_of, required, required_one_of},
};
use crate::{
    selector::LabelSelector,
    value::{has, integer, text},
};

/// A template of pods that are always restarted.
fn template(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field("template");
    pod::template(&spec["template"], &path, causes);
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    let path = path.field("spec");
    if matches!(policy, "OnFailure" | "Never") {
        causes.push(Cause::not_supported(path.field("restartPolicy"), &policy.into(), &["Always"]));
    }
    if has(&spec["template"]["spec"], "activeDeadlineSeconds") {
        causes.push(Cause::forbidden(
            path.field("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        ));
    }
}

/// What every workload with a selector shares.
fn common(kind: &str, spec: &Value, old: Option<&Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    not_negative(spec, "replicas", path, causes);
    not_negative(spec, "minReadySeconds", path, causes);
    not_negative(spec, "revisionHistoryLimit", path, causes);
    metadata::selects_template(spec, kind, path, causes);
    template(spec, path, causes);
    if let Some(old) = old {
        immutable(&old["spec"], spec, "selector", path, causes);
    }
}

pub(super) fn deployment(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    common("deployment", spec, old, path, causes);
    let strategy = &spec["strategy"];
    let strategy_path = path.field("strategy");
    required_one_of(strategy, "type", &["Recreate", "RollingUpdate"], &strategy_path, causes);
    let rolling = strategy_path.field("rollingUpdate");
    if text(strategy, "type") == "Recreate" && has(strategy, "rollingUpdate") {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        causes.push(Cause::forbidden(rolling, detail));
    } else {
        rolling_update(&strategy["rollingUpdate"], &rolling, causes);
    }
    not_negative(spec, "progressDeadlineSeconds", path, causes);
    if let Some(deadline) = integer(spec, "progressDeadlineSeconds")
        && deadline <= integer(spec, "minReadySeconds").unwrap_or(0)
    {
        let detail = "must be greater than minReadySeconds";
        causes.push(Cause::invalid(path.field("progressDeadlineSeconds"), &deadline.into(), detail));
    }
}

fn rolling_update(rolling: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    count_or_percent(rolling, "maxUnavailable", path, causes);
    count_or_percent(rolling, "maxSurge", path, causes);
    at_most_all(rolling, "maxUnavailable", path, causes);
    let none = |key: &str| match &rolling[key] {
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text == "0%",
        _ => false,
    };
    if none("maxUnavailable") && none("maxSurge") {
        let detail = "may not be 0 when `maxSurge` is 0";
        causes.push(Cause::invalid(path.field("maxUnavailable"), &rolling["maxUnavailable"], detail));
    }
}

pub(super) fn replica_set(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    common("replicaset", &object["spec"], old, &Path::Root.field("spec"), causes);
}

pub(super) fn replication_controller(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    not_negative(spec, "replicas", path, causes);
    match spec["selector"].as_object().filter(|selector| !selector.is_empty()) {
        None => causes.push(Cause::required(path.field("selector"), "")),
        Some(selector) if !LabelSelector::from_labels(selector).matches_object(&spec["template"]) => {
            let template = path.field("template");
            let metadata = template.field("metadata");
            let labels = &spec["template"]["metadata"]["labels"];
            let detail = "`selector` does not match template `labels`";
            causes.push(Cause::invalid(metadata.field("labels"), labels, detail));
        }
        Some(_) => {}
    }
    template(spec, path, causes);
}

pub(super) fn daemon_set(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    common("daemonset", spec, old, path, causes);
    let strategy = path.field("updateStrategy");
    required_one_of(&spec["updateStrategy"], "type", &["OnDelete", "RollingUpdate"], &strategy, causes);
    rolling_update(&spec["updateStrategy"]["rollingUpdate"], &strategy.field("rollingUpdate"), causes);
}

/// What may change in a StatefulSet.
const STATEFUL_CHANGES: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn stateful_set(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    common("statefulset", spec, None, path, causes);
    required_one_of(spec, "podManagementPolicy", &["OrderedReady", "Parallel"], path, causes);
    let strategy = path.field("updateStrategy");
    required_one_of(&spec["updateStrategy"], "type", &["OnDelete", "RollingUpdate"], &strategy, causes);
    not_negative(&spec["updateStrategy"]["rollingUpdate"], "partition", &strategy.field("rollingUpdate"), causes);
    let retention = path.field("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        one_of(&spec["persistentVolumeClaimRetentionPolicy"], key, &["Delete", "Retain"], &retention, causes);
    }
    if old.is_some_and(|old| without(&old["spec"], STATEFUL_CHANGES) != without(spec, STATEFUL_CHANGES)) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        causes.push(Cause::forbidden(path, detail));
    }
}

fn without(spec: &Value, keys: &[&str]) -> Map<String, Value> {
    let mut rest = spec.as_object().cloned().unwrap_or_default();
    rest.retain(|key, _| !keys.contains(&key.as_str()));
    rest
}

pub(super) fn job(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    job_spec(spec, path, causes);
    if !spec["selector"].is_object() {
        causes.push(Cause::required(path.field("selector"), ""));
    } else if !LabelSelector::from_object(&spec["selector"])
        .is_ok_and(|selector| selector.matches_object(&spec["template"]))
    {
        let template = path.field("template");
        let metadata = template.field("metadata");
        let detail = "`selector` does not match template `labels`";
        causes.push(Cause::invalid(metadata.field("labels"), &spec["template"]["metadata"]["labels"], detail));
    }
    if let Some(old) = old {
        for key in
            ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            immutable(&old["spec"], spec, key, path, causes);
        }
        // A suspended Job that never ran may still be told where to run.
        let asleep = old["spec"]["suspend"] == true && !has(&old["status"], "startTime");
        if !asleep {
            immutable(&old["spec"], spec, "template", path, causes);
        }
        let follows = old["spec"]["completionMode"] == "Indexed" && spec["completions"] == spec["parallelism"];
        if !follows {
            immutable(&old["spec"], spec, "completions", path, causes);
        }
    }
}

fn job_spec(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for key in counts {
        not_negative(spec, key, path, causes);
    }
    one_of(spec, "completionMode", &["Indexed", "NonIndexed"], path, causes);
    if text(spec, "completionMode") == "Indexed" && !has(spec, "completions") {
        let detail = "when completion mode is Indexed";
        causes.push(Cause::required(path.field("completions"), detail));
    }
    one_of(spec, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"], path, causes);
    job_policy::policies(spec, path, causes);
    let path = path.field("template");
    pod::template(&spec["template"], &path, causes);
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    if policy == "Always" {
        let path = path.field("spec");
        causes.push(Cause::not_supported(path.field("restartPolicy"), &policy.into(), &["OnFailure", "Never"]));
    }
}

/// Names of CronJobs leave room for what is appended for each Job.
const MAX_CRON_NAME: usize = 52;

pub(super) fn cron_job(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    let name = text(&object["metadata"], "name");
    if name.len() > MAX_CRON_NAME {
        let detail = format!("must be no more than {MAX_CRON_NAME} characters");
        causes.push(Cause::invalid(Path::Root.field("metadata").field("name"), &name.into(), &detail));
    }
    if let Some(schedule) = required(spec, "schedule", path, causes)
        && let Some(why) = schedule_problem(schedule)
    {
        causes.push(Cause::invalid(path.field("schedule"), &schedule.into(), &why));
    }
    one_of(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], path, causes);
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(spec, key, path, causes);
    }
    let path = path.field("jobTemplate");
    job_spec(&spec["jobTemplate"]["spec"], &path.field("spec"), causes);
}

/// What keeps a text from being a schedule: five fields or one of the names with `@`.
fn schedule_problem(schedule: &str) -> Option<String> {
    if let Some(name) = schedule.strip_prefix('@') {
        let names = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let known = names.contains(&name) || name.strip_prefix("every ").is_some_and(|span| !span.trim().is_empty());
        return (!known).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        return Some("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len()));
    }
    let strange = |field: &&&str| !field.bytes().all(|c| c.is_ascii_alphanumeric() || b"*/,-?".contains(&c));
    fields.iter().find(strange).map(|field| format!("failed to parse {field}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};
    use super::*;

    fn workload(change: Value) -> Value {
        let mut spec = json!({
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        });
        spec.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        json!({"metadata": {"name": "x"}, "spec": spec})
    }

    #[test]
    fn workloads_are_judged() {
        let rows = [
            ("apps", "deployments", json!({}), ""),
            ("apps", "daemonsets", json!({}), ""),
            ("apps", "statefulsets", json!({}), ""),
            (
                "apps",
                "deployments",
                json!({"replicas": -1}),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            ("apps", "deployments", json!({"selector": null}), "spec.selector: Required value"),
            (
                "apps",
                "deployments",
                json!({"selector": {}}),
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            ),
            (
                "apps",
                "replicasets",
                json!({"selector": {"matchLabels": {"x": "y"}}}),
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ),
            (
                "apps",
                "deployments",
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
            ),
            (
                "apps",
                "deployments",
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                "apps",
                "statefulsets",
                json!({"podManagementPolicy": "x"}),
                "spec.podManagementPolicy: Unsupported value: \"x\": supported values: \"OrderedReady\", \"Parallel\"",
            ),
        ];
        for (group, plural, change, want) in rows {
            let wrong = wrong(group, plural, workload(change.clone()));
            match want {
                "" => assert_eq!(wrong, [""; 0], "{plural} {change}"),
                want => assert!(wrong.iter().any(|sentence| sentence == want), "{change}: {wrong:?}"),
            }
        }
    }

    #[test]
    fn pods_of_workloads_are_always_restarted_and_those_of_jobs_never() {
        let mut deployment = workload(json!({}));
        deployment["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
        assert_eq!(
            wrong("apps", "deployments", deployment.clone()),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
        assert_eq!(wrong("batch", "jobs", deployment), [""; 0]);
        assert_eq!(
            wrong("batch", "jobs", workload(json!({}))),
            [
                "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\""
            ]
        );
    }

    #[test]
    fn selectors_never_change() {
        let (old, new) =
            (workload(json!({})), workload(json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": []}})));
        let found = wrong_change("apps", "deployments", &old, &new);
        assert!(found.len() == 1 && found[0].ends_with("field is immutable"), "{found:?}");
        assert_eq!(wrong_change("apps", "statefulsets", &old, &workload(json!({"serviceName": "s"}))).len(), 1);
        assert_eq!(wrong_change("apps", "statefulsets", &old, &workload(json!({"replicas": 3}))), [""; 0]);
    }

    #[test]
    fn schedules_have_five_fields() {
        for good in ["* * * * *", "*/5 0 1,2 * mon-fri", "@daily", "@every 1h"] {
            assert_eq!(schedule_problem(good), None, "{good}");
        }
        for bad in ["* * * *", "@sometimes", "TZ=x * * * * *", "a b c d $"] {
            assert!(schedule_problem(bad).is_some(), "{bad}");
        }
    }
}
