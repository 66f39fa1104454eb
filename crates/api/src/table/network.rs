//! Services and what stands behind them.

use serde_json::Value;

use super::{AGE, Cell, Column, NAME, column, first_of, joined, labels, or_none, wide};
use crate::{
    selector::LabelSelector,
    value::{array, has, integer, text},
};

pub(super) const SERVICES: &[Column] = &[
    NAME,
    column("Type", Cell::Text("/spec/type")),
    column("Cluster-IP", Cell::TextOrNone("/spec/clusterIP")),
    column("External-IP", Cell::Made(|service, _| external(service))),
    column("Port(s)", Cell::Made(|service, _| or_none(ports(service)))),
    AGE,
    wide("Selector", Cell::Made(|service, _| labels(&service["spec"], "selector"))),
];

pub(super) const ENDPOINTS: &[Column] =
    &[NAME, column("Endpoints", Cell::Made(|object, _| first_of(&endpoints(object), 3))), AGE];

pub(super) const ENDPOINT_SLICES: &[Column] = &[
    NAME,
    column("AddressType", Cell::Text("/addressType")),
    column(
        "Ports",
        Cell::Made(|slice, _| {
            let ports = array(slice, "ports").iter().map(|port| match integer(port, "port") {
                Some(port) => port.to_string(),
                None => "*".to_owned(),
            });
            match ports.collect::<Vec<_>>() {
                none if none.is_empty() => "<unset>".to_owned(),
                ports => first_of(&ports, 3),
            }
        }),
    ),
    column(
        "Endpoints",
        Cell::Made(|slice, _| {
            let addresses = array(slice, "endpoints").iter().flat_map(|endpoint| array(endpoint, "addresses"));
            let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
            if addresses.is_empty() { "<unset>".to_owned() } else { first_of(&addresses, 3) }
        }),
    ),
    AGE,
];

pub(super) const INGRESSES: &[Column] = &[
    NAME,
    column("Class", Cell::TextOrNone("/spec/ingressClassName")),
    column(
        "Hosts",
        Cell::Made(|ingress, _| {
            let rules = array(&ingress["spec"], "rules").iter();
            let hosts: Vec<String> =
                rules.map(|rule| text(rule, "host").to_owned()).filter(|host| !host.is_empty()).collect();
            if hosts.is_empty() { "*".to_owned() } else { first_of(&hosts, 3) }
        }),
    ),
    column("Address", Cell::Made(|ingress, _| balancer(ingress))),
    column("Ports", Cell::Made(|ingress, _| if has(&ingress["spec"], "tls") { "80, 443" } else { "80" }.to_owned())),
    AGE,
];

pub(super) const INGRESS_CLASSES: &[Column] = &[
    NAME,
    column("Controller", Cell::Text("/spec/controller")),
    column(
        "Parameters",
        Cell::Made(|class, _| {
            let parameters = &class["spec"]["parameters"];
            if !parameters.is_object() {
                return "<none>".to_owned();
            }
            let group = text(parameters, "apiGroup");
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", text(parameters, "kind"), text(parameters, "name"))
        }),
    ),
    AGE,
];

pub(super) const NETWORK_POLICIES: &[Column] = &[
    NAME,
    column(
        "Pod-Selector",
        Cell::Made(|policy, _| {
            let selector = LabelSelector::from_object(&policy["spec"]["podSelector"]).unwrap_or_default();
            or_none(selector.to_string())
        }),
    ),
    AGE,
];

fn balancer(object: &Value) -> String {
    let ingress = array(&object["status"]["loadBalancer"], "ingress").iter();
    joined(ingress.map(|each| if text(each, "ip").is_empty() { text(each, "hostname") } else { text(each, "ip") }))
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let given = joined(array(spec, "externalIPs").iter().filter_map(Value::as_str));
    match text(spec, "type") {
        "ExternalName" => text(spec, "externalName").to_owned(),
        "LoadBalancer" => match (balancer(service), given) {
            (balancer, given) if balancer.is_empty() && given.is_empty() => "<pending>".to_owned(),
            (balancer, given) if given.is_empty() => balancer,
            (balancer, given) if balancer.is_empty() => given,
            (balancer, given) => format!("{balancer},{given}"),
        },
        _ => or_none(given),
    }
}

fn ports(service: &Value) -> String {
    let ports = array(&service["spec"], "ports").iter().map(|port| {
        let (number, protocol) = (integer(port, "port").unwrap_or(0), text(port, "protocol"));
        match integer(port, "nodePort").unwrap_or(0) {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    });
    ports.collect::<Vec<_>>().join(",")
}

fn endpoints(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for subset in array(object, "subsets") {
        let ports = array(subset, "ports");
        for address in array(subset, "addresses") {
            let ip = text(address, "ip");
            if ports.is_empty() {
                found.push(ip.to_owned());
            }
            found.extend(ports.iter().map(|port| format!("{ip}:{}", integer(port, "port").unwrap_or(0))));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::cells;
    use super::*;

    #[test]
    fn services_show_where_they_are_reached() {
        let port = json!([{"port": 80, "protocol": "TCP"}, {"port": 1, "nodePort": 30_001, "protocol": "UDP"}]);
        let rows = [
            (
                json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": port}),
                "ClusterIP|10.0.0.1|<none>|80/TCP,1:30001/UDP",
            ),
            (json!({"type": "ClusterIP", "clusterIP": "None"}), "ClusterIP|None|<none>|<none>"),
            (json!({"type": "LoadBalancer"}), "LoadBalancer|<none>|<pending>|<none>"),
            (json!({"type": "ExternalName", "externalName": "a.b"}), "ExternalName|<none>|a.b|<none>"),
        ];
        for (spec, want) in rows {
            let cells = cells("", "services", &json!({"spec": spec}));
            let shown: Vec<_> = cells[1..5].iter().map(|(_, cell)| cell.as_str()).collect();
            assert_eq!(shown.join("|"), want);
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let addresses: Vec<Value> = (0..5).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
        let object = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 1}]}]});
        assert_eq!(cells("", "endpoints", &object)[1].1, "10.0.0.0:1,10.0.0.1:1,10.0.0.2:1 + 2 more...");
    }
}
