//! Network policies.

use std::net::IpAddr;

use osc_schema::{Cause, Path};
use serde_json::Value;

use super::{
    metadata, names,
    rules::{named, one_of, port_number, required},
};
use crate::value::{array, has, integer};

pub(super) fn policy(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    metadata::selector(&spec["podSelector"], &path.field("podSelector"), causes);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let list = path.field(direction);
        for (index, rule) in array(spec, direction).iter().enumerate() {
            let path = list.index(index);
            let ports = path.field("ports");
            for (index, each) in array(rule, "ports").iter().enumerate() {
                port(each, &ports.index(index), causes);
            }
            let list = path.field(peers);
            for (index, each) in array(rule, peers).iter().enumerate() {
                peer(each, &list.index(index), causes);
            }
        }
    }
    let list = path.field("policyTypes");
    let kinds = array(spec, "policyTypes");
    if kinds.len() > 2 {
        causes.push(Cause::invalid(list, &spec["policyTypes"], "may not specify more than two policyTypes"));
    }
    for (index, kind) in kinds.iter().enumerate() {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            causes.push(Cause::not_supported(list.index(index), kind, &["Egress", "Ingress"]));
        }
    }
}

fn port(port: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    one_of(port, "protocol", &["SCTP", "TCP", "UDP"], path, causes);
    let end = integer(port, "endPort");
    match &port["port"] {
        Value::Number(number) => {
            let first = number.as_i64().unwrap_or(0);
            port_number(first, &path.field("port"), causes);
            if let Some(end) = end {
                if end < first {
                    let detail = "must be greater than or equal to `port`";
                    causes.push(Cause::invalid(path.field("endPort"), &end.into(), detail));
                }
                port_number(end, &path.field("endPort"), causes);
            }
        }
        Value::String(name) => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is non-numeric";
                causes.push(Cause::invalid(path.field("endPort"), &end.into(), detail));
            }
            named(name, names::port_name, &path.field("port"), causes);
        }
        _ if end.is_some() => {
            causes.push(Cause::required(path.field("port"), "must be specified if `endPort` is specified"));
        }
        _ => {}
    }
}

fn peer(peer: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let given = ["podSelector", "namespaceSelector", "ipBlock"].iter().filter(|field| has(peer, field)).count();
    for field in ["podSelector", "namespaceSelector"] {
        metadata::selector(&peer[field], &path.field(field), causes);
    }
    if has(peer, "ipBlock") {
        block(&peer["ipBlock"], &path.field("ipBlock"), causes);
    }
    if given == 0 {
        causes.push(Cause::required(path, "must specify a peer"));
    } else if given > 1 && has(peer, "ipBlock") {
        causes.push(Cause::forbidden(path, "may not specify both ipBlock and another peer"));
    }
}

fn block(block: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let Some(whole) = required(block, "cidr", path, causes) else { return };
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let Some(whole) = Cidr::parse(whole) else {
        causes.push(Cause::invalid(path.field("cidr"), &whole.into(), detail));
        return;
    };
    let list = path.field("except");
    for (index, text) in array(block, "except").iter().enumerate() {
        match Cidr::parse(text.as_str().unwrap_or_default()) {
            None => causes.push(Cause::invalid(list.index(index), text, detail)),
            Some(part) if !whole.strictly_contains(part) => {
                causes.push(Cause::invalid(list.index(index), text, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

/// A range of addresses: the address as a number, its bits in all, and how many of them are fixed.
#[derive(Clone, Copy)]
struct Cidr {
    address: u128,
    bits: u32,
    fixed: u32,
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, fixed) = text.split_once('/')?;
        let (address, bits) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let fixed = fixed.parse().ok().filter(|fixed| *fixed <= bits)?;
        Some(Self { address, bits, fixed })
    }

    fn strictly_contains(self, other: Self) -> bool {
        let start = |address: u128| address.checked_shr(self.bits - self.fixed).unwrap_or(0);
        self.bits == other.bits && other.fixed > self.fixed && start(self.address) == start(other.address)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::wrong;

    #[test]
    fn policies_are_judged() {
        let port = |port| json!({"ingress": [{"ports": [port]}]});
        let peer = |peer| json!({"egress": [{"to": [peer]}]});
        let at = "spec.egress[0].to[0]";
        let rows = [
            (json!({"podSelector": {}}), String::new()),
            (port(json!({"port": 80, "endPort": 90, "protocol": "TCP"})), String::new()),
            (peer(json!({"podSelector": {}, "namespaceSelector": {}})), String::new()),
            (peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})), String::new()),
            (peer(json!({"ipBlock": {"cidr": "::/0", "except": ["2001:db8::/64"]}})), String::new()),
            (
                port(json!({"port": 80, "endPort": 79})),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`".into(),
            ),
            (
                port(json!({"port": "http", "endPort": 79})),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric"
                    .into(),
            ),
            (
                port(json!({"endPort": 79})),
                "spec.ingress[0].ports[0].port: Required value: must be specified if `endPort` is specified".into(),
            ),
            (peer(json!({})), format!("{at}: Required value: must specify a peer")),
            (
                peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
                format!("{at}: Forbidden: may not specify both ipBlock and another peer"),
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/33"}})),
                format!(
                    "{at}.ipBlock.cidr: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                ),
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
                format!("{at}.ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"),
            ),
            (
                json!({"policyTypes": ["Both"]}),
                "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\"".into(),
            ),
        ];
        for (spec, want) in rows {
            let found = wrong("networking.k8s.io", "networkpolicies", json!({"spec": spec}));
            assert_eq!(found.join("; "), want, "{spec}");
        }
    }
}
