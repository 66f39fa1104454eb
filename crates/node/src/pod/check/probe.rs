//! Probes and what they share with hooks.

use std::time::Duration;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};

use crate::pod::{
    model::HttpGet,
    probe::{Probe, Question},
    problem::Problems,
};

pub(super) fn check(
    path: &str,
    given: Option<&core::Probe>,
    container: &core::Container,
    problems: &mut Problems,
) -> Option<Probe> {
    let given = given?;
    let question = question(path, given, container, problems)?;
    let at_least_one = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1).unsigned_abs();
    let seconds = |value: u32| Duration::from_secs(value.into());
    let grace = given.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Some(Probe {
        question,
        delay: seconds(given.initial_delay_seconds.unwrap_or(0).max(0).unsigned_abs()),
        period: seconds(at_least_one(given.period_seconds, 10)),
        timeout: seconds(at_least_one(given.timeout_seconds, 1)),
        successes: at_least_one(given.success_threshold, 1),
        failures: at_least_one(given.failure_threshold, 3),
        grace: grace.map(Duration::from_secs),
    })
}

fn question(path: &str, given: &core::Probe, container: &core::Container, problems: &mut Problems) -> Option<Question> {
    if let Some(exec) = &given.exec {
        return Some(Question::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(http) = &given.http_get {
        return http_get(&format!("{path}.httpGet"), http, container, problems).map(Question::Http);
    }
    if let Some(tcp) = &given.tcp_socket {
        let port = port(&format!("{path}.tcpSocket.port"), &tcp.port, container, problems)?;
        return Some(Question::Tcp { host: tcp.host.clone().unwrap_or_default(), port });
    }
    if let Some(grpc) = &given.grpc {
        let port = port(&format!("{path}.grpc.port"), &IntOrString::Int(grpc.port), container, problems)?;
        return Some(Question::Grpc { port, service: grpc.service.clone().unwrap_or_default() });
    }
    problems.add(path, "one of exec, httpGet, tcpSocket, grpc is needed");
    None
}

pub(super) fn http_get(
    path: &str,
    given: &core::HTTPGetAction,
    container: &core::Container,
    problems: &mut Problems,
) -> Option<HttpGet> {
    let port = port(&format!("{path}.port"), &given.port, container, problems)?;
    let way = given.path.clone().unwrap_or_default();
    Some(HttpGet {
        tls: given.scheme.as_deref() == Some("HTTPS"),
        host: given.host.clone().unwrap_or_default(),
        port,
        path: if way.starts_with('/') { way } else { format!("/{way}") },
        headers: given.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
    })
}

/// A number, or the name of one of the container's ports.
fn port(path: &str, given: &IntOrString, container: &core::Container, problems: &mut Problems) -> Option<u16> {
    let number = match given {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name.as_str()));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|&number| number != 0);
    problems.unless(port.is_some(), path, format!("{given:?} is neither a port nor the name of one"));
    port
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(probe: Value) -> (Option<Probe>, usize) {
        let ports = json!([{"name": "web", "containerPort": 8080}]);
        let container = serde_json::from_value(json!({"name": "c", "ports": ports})).expect("container");
        let mut problems = Problems::default();
        let probe = serde_json::from_value(probe).expect("probe");
        (check("p", Some(&probe), &container, &mut problems), problems.found.len())
    }

    #[test]
    fn ports_can_be_named() {
        let (probe, problems) = checked(json!({"httpGet": {"port": "web", "path": "x"}, "periodSeconds": 2}));
        let probe = probe.expect("probe");
        let Question::Http(http) = &probe.question else { panic!("{probe:?}") };
        assert_eq!((http.port, http.path.as_str(), problems), (8080, "/x", 0));
        assert_eq!((probe.period, probe.failures), (Duration::from_secs(2), 3));
    }

    #[test]
    fn what_cannot_be_asked_is_a_problem() {
        for probe in [json!({}), json!({"tcpSocket": {"port": "dns"}}), json!({"httpGet": {"port": 70000}})] {
            assert_eq!(checked(probe.clone()).1, 1, "{probe}");
        }
    }
}
