//! Services and endpoints.

use std::net::IpAddr;

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    metadata, names,
    rules::{Seen, immutable, named, one_of, port_number, port_or_name, required, required_one_of},
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

/// The older form of endpoints.
pub(super) fn endpoints(object: &Value, causes: &mut Vec<Cause>) {
    let list = Path::Root.field("subsets");
    for (index, subset) in array(object, "subsets").iter().enumerate() {
        let path = list.index(index);
        let (ready, unready) = (array(subset, "addresses"), array(subset, "notReadyAddresses"));
        if ready.is_empty() && unready.is_empty() {
            causes.push(Cause::required(path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
            let list = path.field(field);
            for (index, address) in addresses.iter().enumerate() {
                endpoint_address(address, &list.index(index), causes);
            }
        }
        let list = path.field("ports");
        let ports = array(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            let path = list.index(index);
            match text(port, "name") {
                "" if ports.len() > 1 => causes.push(Cause::required(path.field("name"), "")),
                "" => {}
                name => named(name, names::label, &path.field("name"), causes),
            }
            port_number(integer(port, "port").unwrap_or(0), &path.field("port"), causes);
            required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &path, causes);
        }
    }
}

fn endpoint_address(address: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let path = path.field("ip");
    let given = text(address, "ip");
    match given.parse::<IpAddr>() {
        Err(_) => {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(path, &given.into(), detail));
        }
        Ok(ip) if ip.is_unspecified() => {
            causes.push(Cause::invalid(path, &given.into(), "may not be unspecified (0.0.0.0 or ::)"));
        }
        Ok(ip) if ip.is_loopback() => {
            causes.push(Cause::invalid(path, &given.into(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
        }
        Ok(_) => {}
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

    #[test]
    fn endpoints_are_judged() {
        let rows = [
            (json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}), ""),
            (json!({}), "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
            (
                json!({"addresses": [{"ip": "127.0.0.1"}]}),
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                json!({"notReadyAddresses": [{"ip": "x"}]}),
                "subsets[0].notReadyAddresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 0}]}),
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
        ];
        for (subset, want) in rows {
            assert_eq!(wrong("", "endpoints", json!({"subsets": [subset]})).join("; "), want, "{subset}");
        }
    }
}
