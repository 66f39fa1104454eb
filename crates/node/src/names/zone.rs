//! Names of Services and of pods behind them: a pure function of what the API has.
//!
//! ```text
//! <service>.<namespace>.svc.cluster.local                 its address, or its endpoints
//! <host>.<service>.<namespace>.svc.cluster.local          one endpoint that has a name
//! _<port>._<protocol>.<service>.<namespace>.svc.cluster.local    ports, as SRV
//! <address with dashes>.<namespace>.pod.cluster.local     that address
//! ```

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};

/// Label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The domain of the cluster.
pub const DOMAIN: &str = "cluster.local";

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// An address.
    Address(IpAddr),
    /// Another name for it.
    Alias(String),
    /// A port, and the name of where it is.
    Port(u16, String),
    /// The name of an address.
    Pointer(String),
}

/// All names, in lower case and without the last dot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Zone(HashMap<String, Vec<Entry>>);

impl Zone {
    /// What `name` stands for: nothing where it does not exist, and an empty list
    /// where only names below it do.
    pub fn find(&self, name: &str) -> Option<Cow<'_, [Entry]>> {
        let known = self.0.get(name).map(|entries| Cow::Borrowed(entries.as_slice()));
        known.or_else(|| of_pod(name).map(Cow::Owned))
    }

    /// The names of `services` and of the endpoints in `slices`.
    pub fn of<'a>(
        services: impl Iterator<Item = &'a Service>,
        slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    ) -> Self {
        let mut names = Names::default();
        names.add(format!("svc.{DOMAIN}"), None);
        names.add(format!("pod.{DOMAIN}"), None);
        for service in services {
            let own = slices.clone().filter(|slice| belongs(slice, service));
            add(&mut names, service, own);
        }
        Self(names.0.into_iter().map(|(name, entries)| (name, sorted(entries))).collect())
    }
}

/// A name that has its address in it. As with most clusters, whether a pod has that
/// address is not asked.
fn of_pod(name: &str) -> Option<Vec<Entry>> {
    let above = name.strip_suffix(DOMAIN)?.strip_suffix(".pod.")?;
    match above.split_once('.') {
        None => Some(Vec::new()),
        Some((address, namespace)) if !namespace.contains('.') => {
            let v4 = address.replace('-', ".").parse().map(IpAddr::V4);
            let address = v4.or_else(|_| address.replace('-', ":").parse().map(IpAddr::V6)).ok()?;
            Some(vec![Entry::Address(address)])
        }
        Some(_) => None,
    }
}

fn sorted(entries: HashSet<Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = entries.into_iter().collect();
    entries.sort();
    entries
}

#[derive(Default)]
struct Names(BTreeMap<String, HashSet<Entry>>);

impl Names {
    /// Adds a name with the names above it, which exist through it.
    fn add(&mut self, name: String, entry: Option<Entry>) {
        let mut above = name.as_str();
        while let Some((_, rest)) = above.split_once('.').filter(|(_, rest)| rest.ends_with(DOMAIN)) {
            self.0.entry(rest.to_owned()).or_default();
            above = rest;
        }
        self.0.entry(name).or_default().extend(entry);
    }
}

fn belongs(slice: &EndpointSlice, service: &Service) -> bool {
    let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    slice.address_type == "IPv4"
        && slice.metadata.namespace == service.metadata.namespace
        && name == service.metadata.name.as_ref()
}

fn add<'a>(names: &mut Names, service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone) {
    let (Some(spec), Some(name), Some(namespace)) =
        (&service.spec, &service.metadata.name, &service.metadata.namespace)
    else {
        return;
    };
    let full = format!("{name}.{namespace}.svc.{DOMAIN}");
    if let Some(other) = spec.external_name.as_ref().filter(|_| spec.type_.as_deref() == Some("ExternalName")) {
        return names.add(full, Some(Entry::Alias(other.trim_end_matches('.').to_ascii_lowercase())));
    }
    names.add(full.clone(), None);
    let address = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).find_map(|address| address.parse().ok());
    if let Some(address) = address {
        names.add(full.clone(), Some(Entry::Address(IpAddr::V4(address))));
        names.add(pointer(address), Some(Entry::Pointer(full.clone())));
        for port in spec.ports.iter().flatten() {
            let at = Entry::Port(u16::try_from(port.port).unwrap_or_default(), full.clone());
            add_port(names, &full, port.name.as_deref(), port.protocol.as_deref(), at);
        }
        return;
    }
    let unready = spec.publish_not_ready_addresses.unwrap_or(false);
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|endpoint| unready || is_ready(endpoint)) {
            add_endpoint(names, &full, slice, endpoint);
        }
    }
}

/// An endpoint of a Service without an address of its own.
fn add_endpoint(names: &mut Names, full: &str, slice: &EndpointSlice, endpoint: &Endpoint) {
    for address in endpoint.addresses.iter().filter_map(|address| address.parse::<Ipv4Addr>().ok()) {
        names.add(full.to_owned(), Some(Entry::Address(IpAddr::V4(address))));
        let host = endpoint.hostname.clone().unwrap_or_else(|| address.to_string().replace('.', "-"));
        let host = format!("{host}.{full}");
        names.add(host.clone(), Some(Entry::Address(IpAddr::V4(address))));
        names.add(pointer(address), Some(Entry::Pointer(host.clone())));
        for port in slice.ports.iter().flatten() {
            let Some(number) = port.port.and_then(|port| u16::try_from(port).ok()) else { continue };
            let at = Entry::Port(number, host.clone());
            add_port(names, full, port.name.as_deref(), port.protocol.as_deref(), at);
        }
    }
}

fn add_port(names: &mut Names, full: &str, name: Option<&str>, protocol: Option<&str>, at: Entry) {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return };
    let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
    names.add(format!("_{name}._{protocol}.{full}"), Some(at));
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn pointer(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn zone(spec: Value) -> Zone {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        let service: Service = serde_json::from_value(service).expect("service");
        let meta = json!({"name": "web-1", "namespace": "shop", "labels": {SERVICE_NAME: "web"}});
        let endpoints = json!([
            {"addresses": ["10.1.0.1"], "hostname": "web-0"},
            {"addresses": ["10.1.0.2"], "conditions": {"ready": false}},
        ]);
        let ports = json!([{"name": "http", "port": 8080}]);
        let slice = json!({"metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        let slice: EndpointSlice = serde_json::from_value(slice).expect("slice");
        Zone::of([service].iter(), [slice].iter())
    }

    const FULL: &str = "web.shop.svc.cluster.local";

    fn found(zone: &Zone, name: &str) -> Option<Vec<Entry>> {
        zone.find(name).map(Cow::into_owned)
    }

    fn address(text: &str) -> Entry {
        Entry::Address(text.parse().expect("address"))
    }

    #[test]
    fn services_and_what_lies_between_have_names() {
        let zone = zone(json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}));
        assert_eq!(found(&zone, FULL), Some(vec![address("10.96.0.7")]));
        let port = Entry::Port(80, FULL.into());
        assert_eq!(found(&zone, &format!("_http._tcp.{FULL}")), Some(vec![port]));
        assert_eq!(found(&zone, "7.0.96.10.in-addr.arpa"), Some(vec![Entry::Pointer(FULL.into())]));
        for between in ["shop.svc.cluster.local", "svc.cluster.local", DOMAIN] {
            assert_eq!(found(&zone, between), Some(vec![]), "{between}");
        }
        for absent in ["local", "other.shop.svc.cluster.local", "web-0.web.shop.svc.cluster.local", "in-addr.arpa"] {
            assert_eq!(found(&zone, absent), None, "{absent}");
        }
    }

    #[test]
    fn names_of_pods_are_their_addresses() {
        let zone = Zone::of([].iter(), [].iter());
        for (name, want) in [
            ("10-1-0-2.shop.pod", Some(vec![address("10.1.0.2")])),
            ("fd00--1.shop.pod", Some(vec![address("fd00::1")])),
            ("shop.pod", Some(vec![])),
            ("pod", Some(vec![])),
            ("10-1-0-256.shop.pod", None),
            ("10-1-0-2.more.shop.pod", None),
            ("10-1-0-2.shop", None),
        ] {
            assert_eq!(found(&zone, &format!("{name}.{DOMAIN}")), want, "{name}");
        }
        assert_eq!(found(&zone, "10-1-0-2.shop.pod"), None);
    }

    #[test]
    fn without_an_address_endpoints_are_named() {
        let headless = json!({"clusterIP": "None"});
        let host = format!("web-0.{FULL}");
        let ready = zone(headless.clone());
        assert_eq!(found(&ready, FULL), Some(vec![address("10.1.0.1")]));
        assert_eq!(found(&ready, &host), Some(vec![address("10.1.0.1")]));
        assert_eq!(found(&ready, &format!("_http._tcp.{FULL}")), Some(vec![Entry::Port(8080, host)]));
        let all = zone(json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
        assert_eq!(found(&all, FULL).expect("name").len(), 2);
        assert_eq!(found(&all, &format!("10-1-0-2.{FULL}")), Some(vec![address("10.1.0.2")]));
        let outside = zone(json!({"type": "ExternalName", "externalName": "Example.com."}));
        assert_eq!(found(&outside, FULL), Some(vec![Entry::Alias("example.com".into())]));
    }
}
