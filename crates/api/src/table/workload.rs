//! Deployments, Jobs and their kin.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Cell, Column, NAME, age, column, joined, labels, number, or_none, size, wide};
use crate::{
    meta, pod,
    selector::LabelSelector,
    value::{array, integer, text},
};

const CONTAINERS: Column = wide("Containers", Cell::Made(|object, _| containers(object, "name")));
const IMAGES: Column = wide("Images", Cell::Made(|object, _| containers(object, "image")));
const SELECTOR: Column = wide("Selector", Cell::Made(|object, _| selector(&object["spec"]["selector"])));
const DESIRED: Column = column("Desired", Cell::Number("/spec/replicas"));
const CURRENT: Column = column("Current", Cell::Number("/status/replicas"));
const READY: Column = column("Ready", Cell::Number("/status/readyReplicas"));
const READY_OF: Column = column(
    "Ready",
    Cell::Made(|object, _| {
        format!("{}/{}", number(&object["status"], "readyReplicas"), number(&object["spec"], "replicas"))
    }),
);

pub(super) const DEPLOYMENTS: &[Column] = &[
    NAME,
    READY_OF,
    column("Up-to-date", Cell::Number("/status/updatedReplicas")),
    column("Available", Cell::Number("/status/availableReplicas")),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const REPLICA_SETS: &[Column] = &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR];

pub(super) const REPLICATION_CONTROLLERS: &[Column] = &[
    NAME,
    DESIRED,
    CURRENT,
    READY,
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector", Cell::Made(|object, _| labels(&object["spec"], "selector"))),
];

pub(super) const DAEMON_SETS: &[Column] = &[
    NAME,
    column("Desired", Cell::Number("/status/desiredNumberScheduled")),
    column("Current", Cell::Number("/status/currentNumberScheduled")),
    column("Ready", Cell::Number("/status/numberReady")),
    column("Up-to-date", Cell::Number("/status/updatedNumberScheduled")),
    column("Available", Cell::Number("/status/numberAvailable")),
    column("Node Selector", Cell::Made(|object, _| labels(&object["spec"]["template"]["spec"], "nodeSelector"))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const STATEFUL_SETS: &[Column] = &[NAME, READY_OF, AGE, CONTAINERS, IMAGES];

pub(super) const JOBS: &[Column] = &[
    NAME,
    column("Status", Cell::Made(|job, _| job_status(job).to_owned())),
    column("Completions", Cell::Made(|job, _| completions(job))),
    column("Duration", Cell::Made(duration)),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const CRON_JOBS: &[Column] = &[
    NAME,
    column("Schedule", Cell::Text("/spec/schedule")),
    column("Timezone", Cell::TextOrNone("/spec/timeZone")),
    column("Suspend", Cell::Made(|cron, _| truth(cron["spec"]["suspend"] == true))),
    column("Active", Cell::Counted(|cron| size(&cron["status"], "active"))),
    column(
        "Last Schedule",
        Cell::Made(|cron, now| match text(&cron["status"], "lastScheduleTime") {
            "" => "<none>".to_owned(),
            _ => age::since(&cron["status"]["lastScheduleTime"], now),
        }),
    ),
    AGE,
    wide("Containers", Cell::Made(|cron, _| containers(&cron["spec"]["jobTemplate"], "name"))),
    wide("Images", Cell::Made(|cron, _| containers(&cron["spec"]["jobTemplate"], "image"))),
    wide("Selector", Cell::Made(|cron, _| selector(&cron["spec"]["jobTemplate"]["spec"]["selector"]))),
];

pub(super) const CONTROLLER_REVISIONS: &[Column] = &[
    NAME,
    column("Controller", Cell::Made(|revision, _| controller(revision))),
    column("Revision", Cell::Number("/revision")),
    AGE,
];

pub(super) const POD_TEMPLATES: &[Column] = &[
    NAME,
    column(
        "Containers",
        Cell::Made(|object, _| {
            or_none(joined(array(&object["template"]["spec"], "containers").iter().map(|each| text(each, "name"))))
        }),
    ),
    column(
        "Images",
        Cell::Made(|object, _| {
            or_none(joined(array(&object["template"]["spec"], "containers").iter().map(|each| text(each, "image"))))
        }),
    ),
    column("Pod Labels", Cell::Made(|object, _| labels(&object["template"]["metadata"], "labels"))),
    AGE,
];

pub(super) const AUTOSCALERS: &[Column] = &[
    NAME,
    column(
        "Reference",
        Cell::Made(|object, _| {
            let target = &object["spec"]["scaleTargetRef"];
            format!("{}/{}", text(target, "kind"), text(target, "name"))
        }),
    ),
    column("Targets", Cell::Made(|object, _| targets(object))),
    column(
        "MinPods",
        Cell::Made(|object, _| {
            integer(&object["spec"], "minReplicas").map_or("<unset>".to_owned(), |min| min.to_string())
        }),
    ),
    column("MaxPods", Cell::Number("/spec/maxReplicas")),
    column("Replicas", Cell::Number("/status/currentReplicas")),
    AGE,
];

fn containers(object: &Value, field: &str) -> String {
    joined(array(&object["spec"]["template"]["spec"], "containers").iter().map(|container| text(container, field)))
}

fn selector(selector: &Value) -> String {
    LabelSelector::from_object(selector).map_or_else(|_| "<error>".to_owned(), |selector| or_none(selector.to_string()))
}

/// `True` or `False`, as Python and kubectl spell it.
pub(super) fn truth(flag: bool) -> String {
    if flag { "True" } else { "False" }.to_owned()
}

fn job_status(job: &Value) -> &'static str {
    let order = ["Complete", "Failed"];
    if let Some(done) = order.into_iter().find(|kind| pod::has_condition(job, kind)) {
        return done;
    }
    if meta::is_deleting(job) {
        return "Terminating";
    }
    let order = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    order.into_iter().find(|kind| pod::has_condition(job, kind)).unwrap_or("Running")
}

fn completions(job: &Value) -> String {
    let succeeded = number(&job["status"], "succeeded");
    match (integer(&job["spec"], "completions"), number(&job["spec"], "parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = meta::time_at(&job["status"], "startTime") else { return String::new() };
    let end = meta::time_at(&job["status"], "completionTime").unwrap_or(now);
    age::human_duration(end.as_second().saturating_sub(start.as_second()))
}

fn controller(object: &Value) -> String {
    let owners = array(&object["metadata"], "ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else { return "<none>".to_owned() };
    let (kind, api_version) = (text(owner, "kind").to_lowercase(), text(owner, "apiVersion"));
    let (group, _) = crate::split_api_version(api_version);
    let dot = if group.is_empty() { "" } else { "." };
    format!("{kind}{dot}{group}/{}", text(owner, "name"))
}

fn targets(object: &Value) -> String {
    let metrics = array(&object["spec"], "metrics");
    let shares = metrics.iter().enumerate().map(|(index, metric)| {
        let target = &metric["resource"]["target"];
        let current = &object["status"]["currentMetrics"][index]["resource"]["current"];
        let name = text(&metric["resource"], "name");
        match integer(target, "averageUtilization") {
            Some(target) => match integer(current, "averageUtilization") {
                Some(current) => format!("{name}: {current}%/{target}%"),
                None => format!("{name}: <unknown>/{target}%"),
            },
            None => format!("<unknown>/{}", or_none(text(target, "averageValue").to_owned())),
        }
    });
    or_none(shares.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::row;

    #[test]
    fn rows_read_like_those_of_kubernetes() {
        let metadata = json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}});
        let selector = json!({"matchLabels": {"app": "x"}});
        let deployment = json!({
            "metadata": metadata, "spec": {"replicas": 3, "template": template, "selector": selector},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
        });
        assert_eq!(row("apps", "deployments", deployment.clone()), "x|2/3|3|1|60m|a,b|i:1,j|app=x");
        assert_eq!(row("apps", "statefulsets", deployment.clone()), "x|2/3|60m|a,b|i:1,j");
        assert_eq!(row("apps", "replicasets", deployment), "x|3|0|2|60m|a,b|i:1,j|app=x");
        let job = json!({
            "metadata": metadata, "spec": {"completions": 2, "template": template},
            "status": {
                "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:07Z", "succeeded": 2,
                "conditions": [{"type": "Complete", "status": "True"}],
            },
        });
        assert_eq!(row("batch", "jobs", job), "x|Complete|2/2|7s|60m|a,b|i:1,j|<none>");
        let cron = json!({"metadata": metadata, "spec": {"schedule": "* * * * *"}, "status": {"active": [{}]}});
        assert_eq!(row("batch", "cronjobs", cron), "x|* * * * *|<none>|False|1|<none>|60m|||<none>");
    }
}
