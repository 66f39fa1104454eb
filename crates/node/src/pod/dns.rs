//! Resolver configuration and host names of a pod.

use std::{fmt::Write, fs, net::IpAddr};

use k8s_cri::v1::DnsConfig;

use super::model::{Dns, Pod};
use crate::names::DOMAIN;

/// systemd-resolved writes the real servers here; `/etc/resolv.conf` names its
/// loopback stub, which a pod cannot reach.
const FILES: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

/// The machine's own resolver configuration.
pub fn host_resolvers() -> String {
    FILES.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default()
}

/// What the sandbox's `resolv.conf` is made of; `server` answers for the cluster.
pub fn config(pod: &Pod, server: Option<IpAddr>) -> DnsConfig {
    let host = if pod.dns.from_host { host_resolvers() } else { String::new() };
    let cluster = server.filter(|_| pod.dns.from_cluster).map(|server| (server, pod.namespace.as_str()));
    merge(&pod.dns, &host, cluster)
}

/// `cluster` is who answers for it, and the namespace of the pod.
fn merge(dns: &Dns, host: &str, cluster: Option<(IpAddr, &str)>) -> DnsConfig {
    let mut config = parse(host);
    if let Some((server, namespace)) = cluster {
        let host = std::mem::take(&mut config.searches);
        config.searches = vec![format!("{namespace}.svc.{DOMAIN}"), format!("svc.{DOMAIN}"), DOMAIN.to_owned()];
        append(&mut config.searches, &host);
        config.servers = vec![server.to_string()];
        // So that a name with some dots is looked for in these domains first.
        config.options = vec!["ndots:5".into()];
    }
    append(&mut config.servers, &dns.servers);
    append(&mut config.searches, &dns.searches);
    append(&mut config.options, &dns.options);
    config.servers.truncate(3); // all the resolver reads
    config
}

fn append(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Reads resolv.conf(5).
fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let values: Vec<String> = words.map(str::to_owned).collect();
        match keyword {
            Some("nameserver") => config.servers.extend(values.into_iter().take(1)),
            Some("search" | "domain") => config.searches = values,
            Some("options") => config.options.extend(values),
            _ => {}
        }
    }
    config
}

/// The pod's `/etc/hosts`.
pub fn hosts(pod: &Pod, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "# Written by osc.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    // The first name is the full one: what `hostname -f` prints.
    let short = pod.hostname.split('.').next().unwrap_or_default();
    let names: Vec<&str> = pod.full_hostname.as_deref().into_iter().chain([short]).collect();
    for address in addresses {
        let _ = writeln!(text, "{address}\t{}", names.join("\t")); // writing to a string succeeds
    }
    for (address, names) in &pod.host_aliases {
        let _ = writeln!(text, "{address}\t{}", names.join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_values_follow_the_hosts() {
        let host = "# c\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a b\noptions ndots:2 rotate\n";
        let dns = Dns {
            from_host: true,
            from_cluster: true,
            servers: vec!["10.0.0.2".into(), "10.0.0.3".into(), "10.0.0.4".into()],
            searches: vec!["c".into()],
            options: vec!["ndots:5".into()],
        };
        let merged = merge(&dns, host, None);
        assert_eq!(merged.servers, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(merged.searches, ["a", "b", "c"]);
        assert_eq!(merged.options, ["ndots:2", "rotate", "ndots:5"]);

        let merged = merge(&Dns::default(), host, Some(("10.1.0.1".parse().expect("address"), "shop")));
        assert_eq!(merged.servers, ["10.1.0.1"]);
        assert_eq!(merged.searches, ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "a", "b"]);
        assert_eq!(merged.options, ["ndots:5"]);
    }
}
