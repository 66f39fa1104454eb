//! Services, endpoints, policies.

use std::net::IpAddr;

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    metadata, names,
    rules::{Seen, immutable, named, one_of, optional_name, port_number, port_or_name, required, required_one_of},
};
use crate::value::{array, has, integer, text};

pub(super) fn service(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    required_one_of(spec, "type", &kinds, path, causes);
    required_one_of(spec, "sessionAffinity", &["ClientIP", "None"], path, causes);
    one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], path, causes);
    one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], path, causes);
    metadata::labels(spec, "selector", path, causes);
    let address = text(spec, "clusterIP");
    let headless = address == "None";
    match text(spec, "type") {
        "ExternalName" => {
            if let Some(name) = required(spec, "externalName", path, causes) {
                named(name.trim_end_matches('.'), names::subdomain, &path.field("externalName"), causes);
            }
        }
        _ if array(spec, "ports").is_empty() && !headless => causes.push(Cause::required(path.field("ports"), "")),
        _ => {}
    }
    if !matches!(address, "" | "None") && address.parse::<IpAddr>().is_err() {
        let addresses = path.field("clusterIPs");
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.push(Cause::invalid(addresses.index(0), &address.into(), detail));
    }
    service_ports(spec, path, causes);
    if let Some(before) = old.map(|old| &old["spec"]) {
        let was = text(before, "clusterIP");
        let outside = text(spec, "type") == "ExternalName" || text(before, "type") == "ExternalName";
        if !outside && !was.is_empty() && was != address {
            let addresses = path.field("clusterIPs");
            causes.push(Cause::invalid(addresses.index(0), &address.into(), "may not change once set"));
        }
    }
}

fn service_ports(spec: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list = path.field("ports");
    let ports = array(spec, "ports");
    let (mut names_seen, mut numbers) = (Seen::new(), std::collections::HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        match text(port, "name") {
            "" if ports.len() > 1 => causes.push(Cause::required(path.field("name"), "")),
            "" => {}
            name => {
                named(name, names::label, &path.field("name"), causes);
                names_seen.add(name, &path.field("name"), causes);
            }
        }
        port_number(integer(port, "port").unwrap_or(0), &path.field("port"), causes);
        required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
        if has(port, "targetPort") {
            port_or_name(&port["targetPort"], &path.field("targetPort"), causes);
        }
        if let Some(number) = integer(port, "port")
            && !numbers.insert((number, text(port, "protocol")))
        {
            let value = serde_json::json!({"port": number, "protocol": text(port, "protocol")});
            causes.push(Cause::duplicate(path, &value));
        }
    }
}

/// Most endpoints of one slice.
const MAX_ENDPOINTS: usize = 1000;

pub(super) fn endpoint_slice(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let root = &Path::Root;
    required_one_of(object, "addressType", &["FQDN", "IPv4", "IPv6"], root, causes);
    if let Some(old) = old {
        immutable(old, object, "addressType", root, causes);
    }
    let list = root.field("endpoints");
    let endpoints = array(object, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        causes.push(Cause::too_many(list, endpoints.len(), MAX_ENDPOINTS as u64));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        if array(endpoint, "addresses").is_empty() {
            let path = list.index(index);
            causes.push(Cause::required(path.field("addresses"), "must contain at least 1 address"));
        }
    }
}

pub(super) fn ingress(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    let list = path.field("rules");
    let rules = array(spec, "rules");
    if rules.is_empty() && !has(spec, "defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid(path, &serde_json::json!([]), detail));
    }
    optional_name(spec, "ingressClassName", names::subdomain, path, causes);
    for (index, rule) in rules.iter().enumerate() {
        let rule_path = list.index(index);
        let http = rule_path.field("http");
        let paths = http.field("paths");
        for (index, each) in array(&rule["http"], "paths").iter().enumerate() {
            let path = paths.index(index);
            required_one_of(each, "pathType", &["Exact", "ImplementationSpecific", "Prefix"], &path, causes);
            if !has(&each["backend"], "service") && !has(&each["backend"], "resource") {
                let detail = "cannot set neither resource nor service backends";
                causes.push(Cause::required(path.field("backend"), detail));
            }
        }
    }
}

pub(super) fn policy(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    metadata::selector(&spec["podSelector"], &path.field("podSelector"), causes);
    for direction in ["ingress", "egress"] {
        let list = path.field(direction);
        for (index, rule) in array(spec, direction).iter().enumerate() {
            let rule_path = list.index(index);
            let ports = rule_path.field("ports");
            for (index, port) in array(rule, "ports").iter().enumerate() {
                let path = ports.index(index);
                one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
                if has(port, "port") {
                    port_or_name(&port["port"], &path.field("port"), causes);
                }
            }
        }
    }
    let list = path.field("policyTypes");
    for (index, kind) in array(spec, "policyTypes").iter().enumerate() {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            causes.push(Cause::not_supported(list.index(index), kind, &["Egress", "Ingress"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};

    #[test]
    fn services_are_judged() {
        let rows = [
            (json!({"ports": [{"port": 80}]}), vec![]),
            (json!({"clusterIP": "None"}), vec![]),
            (json!({"type": "ExternalName", "externalName": "a.b."}), vec![]),
            (json!({}), vec!["spec.ports: Required value"]),
            (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
            (
                json!({"ports": [{"port": 0, "targetPort": 80}]}),
                vec!["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (json!({"ports": [{"port": 1, "name": "a"}, {"port": 2}]}), vec!["spec.ports[1].name: Required value"]),
            (
                json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}),
                vec!["spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}"],
            ),
        ];
        for (spec, want) in rows {
            assert_eq!(wrong("", "services", json!({"spec": spec})), want, "{spec}");
        }
        let service =
            |address: &str| json!({"metadata": {"name": "x"}, "spec": {"clusterIP": address, "ports": [{"port": 1}]}});
        let found = wrong_change("", "services", &service("10.0.0.1"), &service("10.0.0.2"));
        assert_eq!(found, ["spec.clusterIPs[0]: Invalid value: \"10.0.0.2\": may not change once set"]);
    }
}
