//! From the API's types, in which everything is optional, to checked ones.

mod container;
mod env;
mod files;
mod probe;
mod security;
mod volume;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::api::resource::Quantity};
use sha2::{Digest, Sha256};

use super::{
    model::{Amounts, Dns, Pod, Restart},
    problem::Problems,
    quantity,
};
use crate::names::DOMAIN;

/// Grace of pods that say nothing, as in Kubernetes.
const GRACE: i64 = 30;
/// Longest host name the kernel takes.
const MAX_HOSTNAME: usize = 64;

/// Checks a pod. `None`, with at least one problem, where nothing can be made of it.
pub(super) fn pod(given: &core::Pod, problems: &mut Problems) -> Option<Pod> {
    let meta = &given.metadata;
    let Some(spec) = &given.spec else {
        problems.add("spec", "missing");
        return None;
    };
    let name = meta.name.clone().unwrap_or_default();
    let namespace = meta.namespace.clone().unwrap_or_else(|| "default".into());
    problems.unless(is_subdomain(&name), "metadata.name", format!("{name:?} is not a DNS name in lower case"));
    problems.unless(is_label(&namespace), "metadata.namespace", format!("{namespace:?} is not a DNS label"));
    let uid = meta.uid.clone().unwrap_or_else(|| derive_uid(&namespace, &name));
    problems.unless(is_label(&uid), "metadata.uid", format!("{uid:?} is not usable as a file name"));
    let hostname = spec.hostname.clone().unwrap_or_else(|| default_hostname(&name));
    let usable = spec.hostname.is_none() || is_label(&hostname);
    problems.unless(usable, "spec.hostname", format!("{hostname:?} is not a DNS label"));
    let full_hostname = full_hostname(spec, &hostname, &namespace, problems);
    let named = full_hostname.clone().filter(|_| spec.set_hostname_as_fqdn.unwrap_or(false));
    let pod_security = spec.security_context.clone().unwrap_or_default();
    let volumes = volume::volumes(given, &uid, problems);
    let facts = container::PodFacts { meta, spec, uid: &uid, security: &pod_security, volumes: &volumes };
    let container::Lists { init, containers, ephemeral } = container::all(&facts, problems);
    let restarts = [("Always", Restart::Always), ("OnFailure", Restart::OnFailure), ("Never", Restart::Never)];
    let restart = spec.restart_policy.as_deref().unwrap_or("Always");
    let restart = problems.choice("spec.restartPolicy", restart, &restarts);
    Some(Pod {
        name,
        namespace,
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        handler: spec.runtime_class_name.clone(),
        restart: restart.unwrap_or(Restart::Never),
        grace: seconds("spec.terminationGracePeriodSeconds", spec.termination_grace_period_seconds, GRACE, problems),
        active_deadline: spec
            .active_deadline_seconds
            .map(|given| seconds("spec.activeDeadlineSeconds", Some(given), 0, problems)),
        hostname: named.unwrap_or(hostname),
        full_hostname,
        host_network: spec.host_network.unwrap_or(false),
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        share_processes: spec.share_process_namespace.unwrap_or(false),
        dns: dns(spec, problems),
        host_aliases: host_aliases(spec, problems),
        fs_group: id("spec.securityContext.fsGroup", pod_security.fs_group, problems),
        supplemental_groups: pod_security.supplemental_groups.clone().unwrap_or_default(),
        sysctls: pod_security.sysctls.iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
        volumes,
        init,
        containers,
        ephemeral,
        service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".into()),
        service_links: spec.enable_service_links.unwrap_or(true),
        pull_secrets: spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect(),
        overhead: spec.overhead.as_ref().map(|given| amounts("spec.overhead", given, problems)),
        ignored: Vec::new(),
        uid,
    })
}

/// A stable identity for a pod the API has given none, in the form of a UUID.
fn derive_uid(namespace: &str, name: &str) -> String {
    let hex = hex::encode(&Sha256::digest(format!("{namespace}/{name}"))[..16]);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Kubernetes cuts the pod's name to the length a host name may have.
fn default_hostname(name: &str) -> String {
    let cut: String = name.chars().take(63).map(|c| if c == '.' { '-' } else { c }).collect();
    cut.trim_end_matches('-').to_owned()
}

/// The name that a headless Service of the name of the subdomain gives a pod.
fn full_hostname(spec: &core::PodSpec, hostname: &str, namespace: &str, problems: &mut Problems) -> Option<String> {
    let subdomain = spec.subdomain.as_ref().filter(|name| problems.in_cluster && !name.is_empty())?;
    let full = format!("{hostname}.{subdomain}.{namespace}.svc.{DOMAIN}");
    let fits = full.len() <= MAX_HOSTNAME || !spec.set_hostname_as_fqdn.unwrap_or(false);
    let text = format!("{full:?} is longer than the {MAX_HOSTNAME} characters a host name may have");
    problems.unless(fits, "spec.setHostnameAsFQDN", text);
    Some(full)
}

fn seconds(path: &str, given: Option<i64>, default: i64, problems: &mut Problems) -> Duration {
    let seconds = u64::try_from(given.unwrap_or(default)).ok().filter(|&seconds| seconds <= 365 * 24 * 3600);
    problems.unless(seconds.is_some(), path, "must be between 0 and a year");
    Duration::from_secs(seconds.unwrap_or_default())
}

fn id(path: &str, given: Option<i64>, problems: &mut Problems) -> Option<u32> {
    let given = given?;
    let id = u32::try_from(given).ok().filter(|&id| id < u32::MAX / 2);
    problems.unless(id.is_some(), path, format!("{given} is not between 0 and 2147483647"));
    id
}

fn amounts(path: &str, given: &BTreeMap<String, Quantity>, problems: &mut Problems) -> Amounts {
    let mut amounts = Amounts::default();
    for (name, Quantity(text)) in given {
        let path = format!("{path}.{name}");
        let value = match name.as_str() {
            "cpu" => quantity::thousandths(text).inspect(|&value| amounts.cpu_milli = Some(value)),
            "memory" => quantity::units(text).inspect(|&value| amounts.memory = Some(value)),
            // Counted by a cluster's scheduler only.
            "ephemeral-storage" => quantity::units(text),
            // A cluster's scheduler has seen to it that the node has them.
            _ if problems.in_cluster => continue,
            _ => {
                problems.add(path, "not available here, only cpu and memory");
                continue;
            }
        };
        problems.unless(value.is_some(), path, format!("{text:?} is not a quantity such as 500m or 128Mi"));
    }
    amounts
}

fn dns(spec: &core::PodSpec, problems: &mut Problems) -> Dns {
    // Where there is no cluster DNS the host's resolver stands in.
    let policies = [("ClusterFirst", true), ("ClusterFirstWithHostNet", true), ("Default", true), ("None", false)];
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let from_host = problems.choice("spec.dnsPolicy", policy, &policies).unwrap_or(true);
    let given = spec.dns_config.clone().unwrap_or_default();
    let servers = given.nameservers.unwrap_or_default();
    for (n, server) in servers.iter().enumerate() {
        let path = format!("spec.dnsConfig.nameservers[{n}]");
        problems.unless(server.parse::<IpAddr>().is_ok(), path, format!("{server:?} is not an IP address"));
    }
    problems.unless(from_host || !servers.is_empty(), "spec.dnsConfig.nameservers", "needed with dnsPolicy None");
    let option = |option: &core::PodDNSConfigOption| {
        let name = option.name.clone().unwrap_or_default();
        option.value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}"))
    };
    // In the host's network that has to be said.
    let from_cluster = match policy {
        "ClusterFirst" => !spec.host_network.unwrap_or(false),
        policy => policy == "ClusterFirstWithHostNet",
    };
    Dns {
        from_host,
        from_cluster,
        servers,
        searches: given.searches.unwrap_or_default(),
        options: given.options.iter().flatten().map(option).collect(),
    }
}

fn host_aliases(spec: &core::PodSpec, problems: &mut Problems) -> Vec<(IpAddr, Vec<String>)> {
    let mut aliases = Vec::new();
    for (n, alias) in spec.host_aliases.iter().flatten().enumerate() {
        match alias.ip.parse() {
            Ok(ip) => aliases.push((ip, alias.hostnames.clone().unwrap_or_default())),
            Err(_) => problems.add(format!("spec.hostAliases[{n}].ip"), format!("{:?} is not an IP address", alias.ip)),
        }
    }
    aliases
}

/// RFC 1123 label: what Kubernetes allows for most names.
fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// RFC 1123 subdomain. Shorter than Kubernetes' 253 because names of sandboxes
/// and directories are longer than the pod's.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 200 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derived_identity_is_stable_and_looks_like_a_uuid() {
        let uid = derive_uid("default", "a");
        assert_eq!(uid, derive_uid("default", "a"));
        assert_ne!(uid, derive_uid("a", "default"));
        assert_eq!(uid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(is_label(&uid));
    }

    #[test]
    fn names_are_dns_names() {
        for (name, want) in [
            ("a", true),
            ("a.b", true),
            ("a-1", true),
            ("", false),
            ("A", false),
            ("a..b", false),
            ("-a", false),
            ("../a", false),
        ] {
            assert_eq!(is_subdomain(name), want, "{name}");
        }
        assert_eq!(default_hostname("a.b"), "a-b");
    }
}
