//! Where a Service is reached, and what stands behind it.

use std::net::Ipv4Addr;

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Front {
    /// `namespace/name`, and the port's name where it has one.
    pub name: String,
    /// The cluster IP.
    pub address: Ipv4Addr,
    /// The port there.
    pub port: u16,
    /// The port on every address of the machine.
    pub node_port: Option<u16>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Whether a client always gets the same endpoint.
    pub sticky: bool,
    /// Ready endpoints, sorted.
    pub targets: Vec<(Ipv4Addr, u16)>,
}

/// Protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// In the words of nft.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    fn of(given: Option<&str>) -> Option<Self> {
        match given.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// The fronts of all Services that have a cluster IP of version 4, sorted.
pub fn of<'a>(
    services: impl Iterator<Item = &'a Service>,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
) -> Vec<Front> {
    let mut fronts: Vec<Front> = services.flat_map(|service| fronts(service, slices.clone())).collect();
    fronts.sort();
    fronts
}

fn fronts<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone) -> Vec<Front> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let (namespace, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let Some(address) = addresses.filter_map(|address| address.parse().ok()).next() else { return Vec::new() };
    let own = slices.filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        slice.address_type == "IPv4"
            && slice.metadata.namespace.as_deref() == namespace
            && labels.and_then(|labels| labels.get(SERVICE_NAME)).map(String::as_str) == name
    });
    let front = |port: &ServicePort| {
        let suffix = port.name.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
        Some(Front {
            name: format!("{}/{}{suffix}", namespace.unwrap_or_default(), name.unwrap_or_default()),
            address,
            port: number(port.port)?,
            node_port: port.node_port.and_then(number),
            protocol: Protocol::of(port.protocol.as_deref())?,
            sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
            targets: targets(port, own.clone()),
        })
    };
    spec.ports.iter().flatten().filter_map(front).collect()
}

fn targets<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a EndpointSlice> + Clone) -> Vec<(Ipv4Addr, u16)> {
    let matching = |ready: fn(&Endpoint) -> bool| {
        let mut targets: Vec<(Ipv4Addr, u16)> = slices
            .clone()
            .flat_map(|slice| {
                let to = slice.ports.iter().flatten().find(|to| same(to.name.as_deref(), port.name.as_deref()));
                // Slices of one's own may leave the number to the Service.
                let target = to.and_then(|to| to.port).or(match &port.target_port {
                    Some(IntOrString::Int(target)) if to.is_some() => Some(*target),
                    _ => None,
                });
                let target = target.and_then(number);
                let endpoints = slice.endpoints.iter().filter(move |endpoint| ready(endpoint));
                let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
                let addresses = addresses.filter_map(|address| address.parse().ok()).filter(is_elsewhere);
                addresses.filter_map(move |address| Some((address, target?)))
            })
            .collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    };
    let ready = matching(|endpoint| condition(endpoint, |c| c.ready));
    if !ready.is_empty() {
        return ready;
    }
    // Better those that are about to end than nobody.
    matching(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.serving) == Some(true))
}

/// Slices are written by users: what only the machine itself may talk to is no
/// endpoint.
fn is_elsewhere(address: &Ipv4Addr) -> bool {
    !(address.is_loopback() || address.is_link_local() || address.is_unspecified() || address.is_multicast())
}

/// What is not said is taken for granted.
fn condition(
    endpoint: &Endpoint,
    which: impl Fn(&k8s_openapi::api::discovery::v1::EndpointConditions) -> Option<bool>,
) -> bool {
    endpoint.conditions.as_ref().and_then(which).unwrap_or(true)
}

fn same(a: Option<&str>, b: Option<&str>) -> bool {
    a.unwrap_or_default() == b.unwrap_or_default()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})).expect("service")
    }

    fn slice(name: &str, endpoints: Value) -> EndpointSlice {
        let meta = json!({"name": "s-1", "namespace": "n", "labels": {SERVICE_NAME: name}});
        let ports = json!([{"name": "web", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]);
        let slice = json!({"metadata": meta, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        serde_json::from_value(slice).expect("slice")
    }

    fn found(spec: Value, slices: &[EndpointSlice]) -> Vec<(u16, Option<u16>, &'static str, Vec<String>)> {
        let fronts = of([service(spec)].iter(), slices.iter());
        let texts = |front: &Front| front.targets.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
        fronts.iter().map(|front| (front.port, front.node_port, front.protocol.name(), texts(front))).collect()
    }

    #[test]
    fn only_ready_endpoints_of_the_own_service_count() {
        let ports =
            json!([{"name": "web", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
        let spec = json!({"clusterIP": "10.96.0.9", "ports": ports});
        let ready = json!([
            {"addresses": ["10.1.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.1.0.1", "127.0.0.1", "169.254.169.254"]},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true}},
        ]);
        let slices = [slice("s", ready), slice("other", json!([{"addresses": ["10.1.0.4"]}]))];
        let web: Vec<String> = ["10.1.0.1:8080", "10.1.0.2:8080"].map(str::to_owned).into();
        let dns: Vec<String> = ["10.1.0.1:5353", "10.1.0.2:5353"].map(str::to_owned).into();
        assert_eq!(found(spec.clone(), &slices), [(53, None, "udp", dns), (80, Some(30080), "tcp", web)]);

        let ending = json!([{"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true}},
            {"addresses": ["10.1.0.5"], "conditions": {"ready": false, "serving": false}}]);
        assert_eq!(found(spec.clone(), &[slice("s", ending)])[1].3, ["10.1.0.3:8080"]);
        assert!(found(spec, &[])[0].3.is_empty());
    }

    #[test]
    fn services_without_an_address_have_no_front() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "example.com"}),
            json!({"clusterIP": "fd00::1", "ports": [{"port": 80}]}),
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 0}]}),
            json!({"clusterIP": "10.96.0.1"}),
        ] {
            assert_eq!(found(spec.clone(), &[]), [], "{spec}");
        }
    }
}
