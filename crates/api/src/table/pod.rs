//! Pods: one word for everything that may be going on.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Cell, Column, NAME, age::human_duration, column, condition, or_none, wide};
use crate::{
    meta, pod,
    value::{array, has, integer, text},
};

pub(super) const PODS: &[Column] = &[
    NAME,
    column("Ready", Cell::Made(|pod, _| summary(pod).ready_text())),
    column("Status", Cell::Made(|pod, _| summary(pod).status)),
    column("Restarts", Cell::Made(|pod, now| summary(pod).restarts_text(now))),
    AGE,
    wide("IP", Cell::Made(|pod, _| or_none(address(pod)))),
    wide("Node", Cell::TextOrNone("/spec/nodeName")),
    wide("Nominated Node", Cell::TextOrNone("/status/nominatedNodeName")),
    wide("Readiness Gates", Cell::Made(|pod, _| gates(pod))),
];

fn address(pod: &Value) -> String {
    let first = array(&pod["status"], "podIPs").first().map(|address| text(address, "ip")).unwrap_or_default();
    if first.is_empty() { text(&pod["status"], "podIP").to_owned() } else { first.to_owned() }
}

fn gates(pod: &Value) -> String {
    let gates = array(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| pod::has_condition(pod, text(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len())
}

/// What a row says about a pod.
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn ready_text(&self) -> String {
        format!("{}/{}", self.ready, self.total)
    }

    fn restarts_text(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                let ago = human_duration(now.as_second().saturating_sub(last.as_second()));
                format!("{} ({ago} ago)", self.restarts)
            }
            _ => self.restarts.to_string(),
        }
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts = self.restarts.saturating_add(integer(container, "restartCount").unwrap_or(0));
        let finished = meta::time_at(&container["lastState"]["terminated"], "finishedAt");
        self.last_restart = self.last_restart.max(finished);
    }
}

fn summary(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let init = array(spec, "initContainers");
    let phase = text(status, "phase");
    let mut summary = Summary {
        ready: 0,
        total: array(spec, "containers").len() + init.iter().filter(|container| pod::is_sidecar(container)).count(),
        status: if has(status, "reason") { text(status, "reason") } else { phase }.to_owned(),
        restarts: 0,
        last_restart: None,
    };
    if condition(pod, "PodScheduled").is_some_and(|condition| text(condition, "reason") == "SchedulingGated") {
        summary.status = "SchedulingGated".to_owned();
    }
    let initializing = summarize_init(&mut summary, init, array(status, "initContainerStatuses"));
    if !initializing || pod::has_condition(pod, "Initialized") {
        summarize_main(&mut summary, init, status, pod::has_condition(pod, "Ready"));
    }
    if meta::is_deleting(pod) {
        if text(status, "reason") == "NodeLost" {
            summary.status = "Unknown".to_owned();
        } else if !pod::is_finished(pod) {
            summary.status = "Terminating".to_owned();
        }
    }
    summary
}

/// Looks at init containers in order until one that is not done; says whether there is one.
fn summarize_init(summary: &mut Summary, init: &[Value], statuses: &[Value]) -> bool {
    for (index, container) in statuses.iter().enumerate() {
        summary.count_restarts(container);
        let state = &container["state"];
        let sidecar = is_sidecar(init, container);
        if has(state, "terminated") && integer(&state["terminated"], "exitCode").unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        let waiting = text(&state["waiting"], "reason");
        summary.status = if has(state, "terminated") {
            format!("Init:{}", end(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init.len())
        };
        return true;
    }
    false
}

/// Looks at the main containers; restarts of init containers no longer count, those of sidecars do.
fn summarize_main(summary: &mut Summary, init: &[Value], status: &Value, ready: bool) {
    (summary.restarts, summary.last_restart) = (0, None);
    for container in array(status, "initContainerStatuses").iter().filter(|container| is_sidecar(init, container)) {
        summary.count_restarts(container);
    }
    let mut running = false;
    for container in array(status, "containerStatuses").iter().rev() {
        summary.count_restarts(container);
        let state = &container["state"];
        let waiting = text(&state["waiting"], "reason");
        if !waiting.is_empty() {
            summary.status = waiting.to_owned();
        } else if has(state, "terminated") {
            summary.status = end(&state["terminated"]);
        } else if container["ready"] == true && has(state, "running") {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && running {
        summary.status = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn is_sidecar(init: &[Value], status: &Value) -> bool {
    init.iter().any(|container| text(container, "name") == text(status, "name") && pod::is_sidecar(container))
}

/// How a container ended, in one word.
fn end(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    match integer(terminated, "signal").unwrap_or(0) {
        _ if !reason.is_empty() => reason.to_owned(),
        0 => format!("ExitCode:{}", integer(terminated, "exitCode").unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::cells;
    use super::*;

    fn row(pod: &Value) -> (String, String, String) {
        let cells = cells("", "pods", pod);
        (cells[1].1.clone(), cells[2].1.clone(), cells[3].1.clone())
    }

    #[test]
    fn status_is_what_matters_most() {
        let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
        let ended = |code: i64, reason: &str| json!({"name": "a", "state": {"terminated": {"exitCode": code, "reason": reason}}});
        let waiting = |reason: &str| json!({"name": "a", "state": {"waiting": {"reason": reason}}});
        let initialized = json!([{"type": "Initialized", "status": "True"}]);
        let rows = [
            (json!({"phase": "Pending"}), "0/1", "Pending"),
            (json!({"phase": "Running", "containerStatuses": [running]}), "1/1", "Running"),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff")]}),
                "0/1",
                "ImagePullBackOff",
            ),
            (json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}), "0/1", "Completed"),
            (json!({"phase": "Failed", "containerStatuses": [ended(3, "")]}), "0/1", "ExitCode:3"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/1", "Evicted"),
            (json!({"phase": "Running", "containerStatuses": [running, ended(0, "Completed")]}), "1/1", "NotReady"),
            (json!({"phase": "Pending", "initContainerStatuses": [ended(1, "Error")]}), "0/1", "Init:Error"),
            (json!({"phase": "Pending", "initContainerStatuses": [waiting("PodInitializing")]}), "0/1", "Init:0/1"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [waiting("CrashLoopBackOff")]}),
                "0/1",
                "Init:CrashLoopBackOff",
            ),
            (
                json!({"phase": "Running", "conditions": initialized, "initContainerStatuses": [ended(0, "Completed")], "containerStatuses": [running]}),
                "1/1",
                "Running",
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                "0/1",
                "SchedulingGated",
            ),
        ];
        for (status, ready, want) in rows {
            let pod =
                json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "a"}]}, "status": status});
            assert_eq!(row(&pod), (ready.to_owned(), want.to_owned(), "0".to_owned()), "{pod}");
        }
    }

    #[test]
    fn deletion_and_restarts_are_seen() {
        let mut pod = json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "restartCount": 3, "state": {"running": {}}, "ready": true,
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}},
            }]},
        });
        assert_eq!(row(&pod), ("1/1".to_owned(), "Terminating".to_owned(), "3 (5m ago)".to_owned()));
        pod["status"]["phase"] = "Failed".into();
        assert_eq!(row(&pod).1, "Failed");
    }

    #[test]
    fn sidecars_count_as_containers() {
        let pod = json!({
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 2, "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}],
            },
        });
        assert_eq!(row(&pod), ("2/2".to_owned(), "Running".to_owned(), "2".to_owned()));
    }
}
