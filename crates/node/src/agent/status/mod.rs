//! A pod's status: a pure function of what it should be, what is seen of it, and
//! what was told before.

mod conditions;
mod container;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::Time};

use crate::pod::{Phase, Report, State, model::Pod, qos};

/// Why a pod is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub phase: Phase,
    /// One word and a sentence, unless its containers say it all.
    pub reason: Option<(&'static str, String)>,
}

/// All that a status is made of.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The object as the API has it.
    pub object: &'a core::Pod,
    /// What it asks for.
    pub pod: &'a Pod,
    /// What is seen of it.
    pub report: &'a Report,
    /// How it ended, once it has.
    pub end: Option<&'a End>,
    /// Address of the node.
    pub node: IpAddr,
    /// The time.
    pub now: Timestamp,
}

/// The status to be told. A terminal phase stays what it is.
pub fn compute(facts: Facts<'_>) -> core::PodStatus {
    let before = facts.object.status.clone().unwrap_or_default();
    let phase = phase(&facts, before.phase.as_deref());
    let over = matches!(phase, "Succeeded" | "Failed") || facts.object.metadata.deletion_timestamp.is_some();
    let statuses = |containers: &[crate::pod::model::Container], before: &Option<Vec<core::ContainerStatus>>| {
        let one = |container| container::status(&facts, container, before.as_deref().unwrap_or_default(), over);
        containers.iter().map(one).collect::<Vec<_>>()
    };
    let init = statuses(&facts.pod.init, &before.init_container_statuses);
    let containers = statuses(&facts.pod.containers, &before.container_statuses);
    let ephemeral = statuses(&facts.pod.ephemeral, &before.ephemeral_container_statuses);
    let conditions = conditions::all(&facts, phase, &init, &containers);
    let addresses: Vec<String> = facts.report.addresses.iter().map(IpAddr::to_string).collect();
    let (reason, message) = match facts.end.and_then(|end| end.reason.as_ref()) {
        Some((reason, message)) => (Some((*reason).to_owned()), Some(message.clone())),
        None => (before.reason.clone(), before.message.clone()),
    };
    let mut status = core::PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        observed_generation: facts.object.metadata.generation,
        host_ip: Some(facts.node.to_string()),
        host_ips: Some(vec![core::HostIP { ip: facts.node.to_string() }]),
        start_time: Some(before.start_time.clone().unwrap_or(Time(facts.now))),
        qos_class: Some(qos(facts.pod).name().to_owned()),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(containers),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        conditions: Some(conditions),
        ..before
    };
    // A pod that is over keeps the addresses it had.
    if !addresses.is_empty() || !over {
        status.pod_ip = addresses.first().cloned();
        let ips: Vec<_> = addresses.into_iter().map(|ip| core::PodIP { ip }).collect();
        status.pod_ips = (!ips.is_empty()).then_some(ips);
    }
    status
}

fn phase(facts: &Facts<'_>, before: Option<&str>) -> &'static str {
    match (before, facts.end.map(|end| end.phase)) {
        (Some("Succeeded"), _) => return "Succeeded",
        (Some("Failed"), _) => return "Failed",
        (_, Some(Phase::Succeeded)) => return "Succeeded",
        (_, Some(Phase::Failed)) => return "Failed",
        _ => {}
    }
    let begun = |name: &str| {
        let state = facts.report.seen.containers.get(name).map(|attempt| attempt.state);
        matches!(state, Some(State::Running | State::Exited { .. }))
    };
    let all = facts.pod.containers.iter().all(|container| begun(&container.name));
    // A sandbox that is being replaced does not make a pod pending again.
    let lost = facts.report.seen.containers.is_empty() && before == Some("Running");
    if all || lost { "Running" } else { "Pending" }
}

/// How a pod ends that is made to end: well, if all its containers did.
pub fn end_of_deleted(pod: &Pod, report: &Report) -> End {
    let code = |name: &str| match report.seen.containers.get(name)?.state {
        State::Exited { code, .. } => Some(code),
        State::Created | State::Running => None,
    };
    let well = pod.containers.iter().all(|container| code(&container.name) == Some(0));
    End { phase: if well { Phase::Succeeded } else { Phase::Failed }, reason: None }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc, time::Duration};

    use serde_json::{Value, json};

    use super::*;
    use crate::pod::{Attempt, Detail, Manifest, Sandbox, Seen, probe::Health};

    fn object(spec: Value, status: Value) -> core::Pod {
        let meta = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 2});
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status});
        serde_json::from_value(object).expect("pod")
    }

    fn attempt(number: u32, state: State) -> Attempt {
        let code = if let State::Exited { code, .. } = state { code } else { 0 };
        let started = 1_767_225_600_000_000_000;
        let detail =
            Detail { id: format!("id{number}"), image_id: "sha256:1".into(), started, code, ..Detail::default() };
        Attempt { id: detail.id.clone(), number, state, health: Health::WELL, detail: Arc::new(detail), previous: None }
    }

    fn ended(code: i32) -> State {
        State::Exited { code, ran: Duration::from_secs(1), since: Duration::ZERO }
    }

    fn report(states: &[(&str, Attempt)]) -> Report {
        let containers: HashMap<_, _> = states.iter().map(|(name, a)| ((*name).to_owned(), a.clone())).collect();
        let seen = Seen { sandbox: Sandbox::Ready { id: "s".into() }, containers, ..Seen::default() };
        Report { seen, addresses: vec!["10.1.1.1".parse().expect("address")], ..Report::default() }
    }

    fn status(object: &core::Pod, report: &Report, end: Option<&End>) -> Value {
        let pod = Manifest::of_cluster(serde_json::to_value(object).expect("json")).expect("good").pod;
        let node = "10.0.0.1".parse().expect("address");
        let now = "2026-01-01T00:01:00Z".parse().expect("time");
        serde_json::to_value(compute(Facts { object, pod: &pod, report, end, node, now })).expect("json")
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        let conditions = status["conditions"].as_array().expect("conditions");
        conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
    }

    fn spec() -> Value {
        json!({"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]})
    }

    #[test]
    fn a_pod_goes_from_pending_to_ready() {
        let object = object(spec(), Value::Null);
        let first = status(&object, &Report::default(), None);
        assert_eq!(first["phase"], "Pending");
        assert_eq!(first["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!(first["initContainerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
        assert_eq!(condition(&first, "Initialized")["status"], "False");
        assert_eq!(first["podIP"], Value::Null);

        let one = report(&[("i", attempt(0, ended(0))), ("a", attempt(0, State::Running))]);
        let one = status(&object, &one, None);
        assert_eq!((&one["phase"], &one["podIP"]), (&json!("Pending"), &json!("10.1.1.1")));
        assert_eq!(condition(&one, "Ready")["message"], "containers with unready status: [b]");
        assert_eq!(one["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");

        let mut starting = attempt(0, State::Running);
        (starting.health.started, starting.health.ready) = (false, false);
        let all = [("i", attempt(0, ended(0))), ("a", attempt(0, State::Running)), ("b", starting)];
        let running = status(&object, &report(&all), None);
        assert_eq!((&running["phase"], &condition(&running, "Ready")["status"]), (&json!("Running"), &json!("False")));
        assert_eq!(running["containerStatuses"][1]["started"], false);

        let all = [("i", attempt(0, ended(0))), ("a", attempt(0, State::Running)), ("b", attempt(0, State::Running))];
        let ready = status(&object, &report(&all), None);
        assert_eq!(condition(&ready, "Ready")["status"], "True");
        assert_eq!(ready["containerStatuses"][0]["containerID"], "containerd://id0");
        assert_eq!((&ready["qosClass"], &ready["observedGeneration"]), (&json!("BestEffort"), &json!(2)));
    }

    #[test]
    fn a_crashing_container_waits_and_tells_how_it_ended() {
        let object = object(json!({"containers": [{"name": "a", "image": "x"}]}), Value::Null);
        let status = status(&object, &report(&[("a", attempt(2, ended(3)))]), None);
        let container = &status["containerStatuses"][0];
        assert_eq!(status["phase"], "Running");
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(container["state"]["waiting"]["message"], "back-off 20s restarting failed container=a pod=p_n(u)");
        let last = &container["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(3), &json!("Error")));
        assert_eq!((&container["restartCount"], &container["ready"]), (&json!(2), &json!(false)));
    }

    #[test]
    fn what_the_engine_has_forgotten_is_kept() {
        let spec = json!({"containers": [{"name": "a", "image": "x"}]});
        let terminated = json!({"exitCode": 9, "containerID": "containerd://old"});
        let container = json!({"name": "a", "image": "x", "imageID": "", "ready": false, "restartCount": 4,
            "containerID": "containerd://old", "state": {"terminated": terminated}});
        let before = json!({"phase": "Running", "containerStatuses": [container]});
        let alive = object(spec.clone(), before.clone());
        let found = status(&alive, &report(&[("a", attempt(5, State::Running))]), None);
        assert_eq!(found["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 9);
        let found = status(&alive, &Report::default(), None);
        assert_eq!(found["phase"], "Running");
        assert_eq!(found["containerStatuses"][0]["restartCount"], 4);

        let end = End { phase: Phase::Failed, reason: None };
        let found = status(&alive, &Report::default(), Some(&end));
        assert_eq!(found["containerStatuses"][0]["state"]["terminated"]["exitCode"], 9);
    }

    #[test]
    fn a_terminal_phase_stays() {
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]});
        let over = object(spec.clone(), json!({"phase": "Succeeded"}));
        let found = status(&over, &report(&[("a", attempt(0, State::Running))]), None);
        assert_eq!(found["phase"], "Succeeded");
        let reason = Some(("DeadlineExceeded", "Pod was active on the node longer than the specified deadline".into()));
        let end = End { phase: Phase::Failed, reason };
        let found = status(&object(spec, Value::Null), &report(&[("a", attempt(0, ended(137)))]), Some(&end));
        assert_eq!((&found["phase"], &found["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
        assert_eq!(condition(&found, "Ready")["reason"], "PodFailed");
        assert_eq!(found["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    }

    #[test]
    fn times_of_conditions_change_with_them() {
        let old = "2025-01-01T00:00:00Z";
        let conditions = json!([
            {"type": "Ready", "status": "False", "lastTransitionTime": old},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": old},
            {"type": "example.com/gate", "status": "True", "lastTransitionTime": old},
        ]);
        let spec = json!({"containers": [{"name": "a", "image": "x"}], "readinessGates": [{"conditionType": "example.com/gate"}, {"conditionType": "other"}]});
        let object = object(spec, json!({"conditions": conditions}));
        let found = status(&object, &report(&[("a", attempt(0, State::Running))]), None);
        assert_eq!(condition(&found, "Ready")["lastTransitionTime"], old);
        assert_eq!(condition(&found, "Ready")["reason"], "ReadinessGatesNotReady");
        assert_eq!(condition(&found, "ContainersReady")["lastTransitionTime"], "2026-01-01T00:01:00Z");
        assert_eq!(condition(&found, "example.com/gate")["status"], "True");
        assert_eq!(condition(&found, "PodScheduled")["lastTransitionTime"], old);
    }
}
