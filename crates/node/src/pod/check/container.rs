//! Containers.

use std::{collections::HashSet, time::Duration};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{amounts, env, is_label, probe, security, volume};
use crate::pod::{
    model::{Amounts, Container, Hook, Port, Pull, Volume},
    problem::Problems,
};

/// What the containers of one pod share.
pub(super) struct PodFacts<'a> {
    pub meta: &'a ObjectMeta,
    pub spec: &'a core::PodSpec,
    pub uid: &'a str,
    pub security: &'a core::PodSecurityContext,
    pub volumes: &'a [Volume],
}

/// The containers of a pod.
pub(super) struct Lists {
    pub init: Vec<Container>,
    pub containers: Vec<Container>,
    pub ephemeral: Vec<Container>,
}

/// All containers; their names are different.
pub(super) fn all(pod: &PodFacts<'_>, problems: &mut Problems) -> Lists {
    let mut names = HashSet::new();
    let mut list = |field: &str, given: &[core::Container], init: bool, problems: &mut Problems| {
        let mut checked = Vec::new();
        for (n, container) in given.iter().enumerate() {
            let path = format!("spec.{field}[{n}]");
            if !names.insert(container.name.clone()) {
                problems.add(format!("{path}.name"), format!("{:?} is there twice", container.name));
            }
            checked.push(one(&path, container, init, pod, problems));
        }
        checked
    };
    let init = list("initContainers", pod.spec.init_containers.as_deref().unwrap_or_default(), true, problems);
    let containers = list("containers", &pod.spec.containers, false, problems);
    problems.unless(!containers.is_empty(), "spec.containers", "at least one is needed");
    let (given, targets) = ephemeral(pod.spec, problems);
    let mut ephemeral = list("ephemeralContainers", &given, false, problems);
    for (container, target) in ephemeral.iter_mut().zip(targets) {
        container.target = target;
    }
    Lists { init, containers, ephemeral }
}

/// Ephemeral containers as ordinary ones, which have all of their fields but one:
/// whose processes each wants to see.
fn ephemeral(spec: &core::PodSpec, problems: &mut Problems) -> (Vec<core::Container>, Vec<Option<String>>) {
    let given = spec.ephemeral_containers.as_deref().unwrap_or_default();
    let mut both = (Vec::new(), Vec::new());
    for (n, container) in given.iter().enumerate() {
        match serde_json::to_value(container).and_then(serde_json::from_value) {
            Ok(ordinary) => {
                both.0.push(ordinary);
                both.1.push(container.target_container_name.clone().filter(|name| !name.is_empty()));
            }
            Err(error) => problems.add(format!("spec.ephemeralContainers[{n}]"), error.to_string()),
        }
    }
    both
}

fn one(path: &str, given: &core::Container, init: bool, pod: &PodFacts<'_>, problems: &mut Problems) -> Container {
    let at = |field: &str| format!("{path}.{field}");
    problems.unless(is_label(&given.name), at("name"), format!("{:?} is not a DNS label", given.name));
    let image = given.image.clone().unwrap_or_default();
    problems.unless(is_reference(&image), at("image"), format!("{image:?} is not an image reference"));
    let sidecar = match (given.restart_policy.as_deref(), init) {
        (None, _) => false,
        (Some("Always"), true) => true,
        (Some(policy), _) => {
            problems.add(at("restartPolicy"), format!("{policy:?}: only Always, and only on init containers"));
            false
        }
    };
    let resources = given.resources.clone().unwrap_or_default();
    let limits = amounts(&at("resources.limits"), &resources.limits.unwrap_or_default(), problems);
    let requests = amounts(&at("resources.requests"), &resources.requests.unwrap_or_default(), problems);
    check_requests(&at("resources.requests"), &requests, &limits, problems);
    let dir = given.working_dir.clone().unwrap_or_default();
    problems.unless(dir.is_empty() || dir.starts_with('/'), at("workingDir"), format!("{dir:?} is not absolute"));
    let lifecycle = given.lifecycle.clone().unwrap_or_default();
    Container {
        name: given.name.clone(),
        pull: pull(&at("imagePullPolicy"), given.image_pull_policy.as_deref(), &image, problems),
        image,
        command: given.command.clone().unwrap_or_default(),
        args: given.args.clone().unwrap_or_default(),
        dir,
        env_from: env::from(given),
        env: env::variables(path, given, pod, problems),
        mounts: volume::mounts(path, given, pod.volumes, problems),
        devices: given.volume_devices.iter().flatten().map(|d| (d.name.clone(), d.device_path.clone())).collect(),
        ports: ports(path, given.ports.as_deref().unwrap_or_default(), problems),
        requests: Amounts {
            cpu_milli: requests.cpu_milli.or(limits.cpu_milli),
            memory: requests.memory.or(limits.memory),
        },
        limits,
        security: security::merge(path, given.security_context.as_ref(), pod.security, problems),
        stdin: given.stdin.unwrap_or(false),
        stdin_once: given.stdin_once.unwrap_or(false),
        tty: given.tty.unwrap_or(false),
        post_start: hook(&at("lifecycle.postStart"), lifecycle.post_start, given, problems),
        pre_stop: hook(&at("lifecycle.preStop"), lifecycle.pre_stop, given, problems),
        target: None,
        sidecar,
        startup: probe::check(&at("startupProbe"), given.startup_probe.as_ref(), given, problems),
        liveness: probe::check(&at("livenessProbe"), given.liveness_probe.as_ref(), given, problems),
        readiness: probe::check(&at("readinessProbe"), given.readiness_probe.as_ref(), given, problems),
        message_path: given.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".into()),
        message_from_log: given.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
    }
}

/// A request above the limit would be refused by the API too.
fn check_requests(path: &str, requests: &Amounts, limits: &Amounts, problems: &mut Problems) {
    let above = |request: Option<u64>, limit: Option<u64>| matches!((request, limit), (Some(r), Some(l)) if r > l);
    problems.unless(!above(requests.cpu_milli, limits.cpu_milli), format!("{path}.cpu"), "more than the limit");
    problems.unless(!above(requests.memory, limits.memory), format!("{path}.memory"), "more than the limit");
}

/// No white space, nothing a command line could take for an option.
fn is_reference(image: &str) -> bool {
    image.len() <= 1024
        && image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && image.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
}

/// Without a policy, `latest` is always fetched, except from this machine.
fn pull(path: &str, policy: Option<&str>, image: &str, problems: &mut Problems) -> Pull {
    let policies = [("Always", Pull::Always), ("IfNotPresent", Pull::IfNotPresent), ("Never", Pull::Never)];
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':'));
    match policy {
        Some(policy) => problems.choice(path, policy, &policies).unwrap_or(Pull::Never),
        None if image.starts_with("localhost/") || image.contains('@') => Pull::IfNotPresent,
        None if tag.is_none_or(|(_, tag)| tag == "latest") => Pull::Always,
        None => Pull::IfNotPresent,
    }
}

/// Only ports with a host port matter: all others can be reached anyway.
fn ports(path: &str, given: &[core::ContainerPort], problems: &mut Problems) -> Vec<Port> {
    let mut ports = Vec::new();
    for (n, port) in given.iter().enumerate() {
        let path = format!("{path}.ports[{n}]");
        let protocols = [("TCP", 0), ("UDP", 1), ("SCTP", 2)];
        let name = port.protocol.as_deref().unwrap_or("TCP");
        let protocol = problems.choice(&format!("{path}.protocol"), name, &protocols).unwrap_or(0);
        let number = |port: i32| u16::try_from(port).ok().filter(|&port| port != 0);
        let Some(container) = number(port.container_port) else {
            problems.add(format!("{path}.containerPort"), format!("{} is not a port", port.container_port));
            continue;
        };
        match port.host_port {
            None | Some(0) => {}
            Some(host) => match number(host) {
                Some(host) => {
                    let host_ip = port.host_ip.clone().unwrap_or_default();
                    ports.push(Port { protocol, container, host, host_ip });
                }
                None => problems.add(format!("{path}.hostPort"), format!("{host} is not a port")),
            },
        }
    }
    ports
}

fn hook(
    path: &str,
    handler: Option<core::LifecycleHandler>,
    container: &core::Container,
    problems: &mut Problems,
) -> Option<Hook> {
    let handler = handler?;
    if let Some(exec) = handler.exec {
        let command = exec.command.unwrap_or_default();
        problems.unless(!command.is_empty(), format!("{path}.exec.command"), "empty");
        return Some(Hook::Exec(command));
    }
    if let Some(http) = &handler.http_get {
        return probe::http_get(&format!("{path}.httpGet"), http, container, problems).map(Hook::Http);
    }
    let seconds = handler.sleep.map(|sleep| sleep.seconds).and_then(|seconds| u64::try_from(seconds).ok());
    problems.unless(seconds.is_some(), path, "only exec, httpGet and sleep can be done here");
    seconds.map(|seconds| Hook::Sleep(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, want) in [
            ("a", Pull::Always),
            ("a:latest", Pull::Always),
            ("a:1", Pull::IfNotPresent),
            ("host:5000/a", Pull::Always),
            ("host:5000/a:1", Pull::IfNotPresent),
            ("a@sha256:00", Pull::IfNotPresent),
            ("localhost/a:latest", Pull::IfNotPresent),
        ] {
            assert_eq!(pull("", None, image, &mut Problems::default()), want, "{image}");
        }
    }

    #[test]
    fn references_cannot_be_options() {
        for (image, want) in [("a/b:1", true), ("a@sha256:0f", true), ("", false), ("--all", false), ("a b", false)] {
            assert_eq!(is_reference(image), want, "{image}");
        }
    }
}
