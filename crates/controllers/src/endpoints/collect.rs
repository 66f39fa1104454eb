//! Which addresses and ports stand behind a Service.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{
            ContainerPort, EndpointAddress, EndpointPort, EndpointSubset, ObjectReference, Pod, Service, ServicePort,
        },
        discovery::v1::{self as discovery, EndpointConditions, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use crate::{
    pods::{self, owned_by},
    template,
};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Marks an Endpoints object as made here.
pub(super) const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub(super) const ENDPOINTS_MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Addresses in one slice.
const SLICE_SIZE: usize = 100;
/// Addresses in one Endpoints object.
const ENDPOINTS_SIZE: usize = 1000;

/// A port a backend serves, after resolving names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: String,
    port: i32,
    app_protocol: Option<String>,
}

/// One pod behind a Service.
#[derive(Clone, Debug)]
struct Backend<'a> {
    pod: &'a Pod,
    ports: Vec<Port>,
    ready: bool,
    serving: bool,
    terminating: bool,
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn backends<'a>(service: &Service, pods: &'a [impl AsRef<Pod>]) -> Vec<Backend<'a>> {
    let spec = service.spec.clone().unwrap_or_default();
    let always = spec.publish_not_ready_addresses == Some(true);
    let ports = spec.ports.unwrap_or_default();
    let usable = pods.iter().map(AsRef::as_ref).filter(|pod| !ips(pod).is_empty() && !pods::is_finished(pod));
    let mut backends: Vec<_> = usable
        .map(|pod| {
            let (serving, terminating) = (pods::is_ready(pod), pods::is_deleting(pod));
            let ports = ports.iter().filter_map(|port| resolve(port, pod)).collect();
            Backend { pod, ports, ready: always || (serving && !terminating), serving, terminating }
        })
        // A pod that serves none of the ports is no backend, unless ports do not matter.
        .filter(|backend| !backend.ports.is_empty() || ports.is_empty())
        .collect();
    backends.sort_by(|left, right| left.pod.metadata.name.cmp(&right.pod.metadata.name));
    backends
}

fn ips(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many: Vec<&str> =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if many.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { many }
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: number,
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let named = |port: &&ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports.find(named).map(|port| port.container_port)
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.namespace(),
        name: Some(pod.name_any()),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let inside = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|name| inside && !name.is_empty())
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Subsets of the Endpoints object: backends with the same ports together.
pub(super) fn subsets(service: &Service, pods: &[impl AsRef<Pod>]) -> Vec<EndpointSubset> {
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for backend in backends(service, pods).iter().take(ENDPOINTS_SIZE) {
        // Terminating pods are only in slices.
        if backend.terminating && !backend.ready {
            continue;
        }
        let Some(ip) = ips(backend.pod).first().copied() else { continue };
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, backend.pod),
            node_name: some(pods::node(backend.pod)),
            target_ref: Some(target(backend.pod)),
        };
        let group = groups.entry(backend.ports.clone()).or_default();
        if backend.ready { group.0.push(address) } else { group.1.push(address) }
    }
    let list = |addresses: Vec<EndpointAddress>| Some(addresses).filter(|addresses| !addresses.is_empty());
    groups
        .into_iter()
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(not_ready),
            ports: Some(ports.into_iter().map(endpoint_port).collect()).filter(|ports: &Vec<_>| !ports.is_empty()),
        })
        .collect()
}

fn endpoint_port(port: Port) -> EndpointPort {
    EndpointPort {
        name: some(&port.name),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

/// Labels of what is derived from a Service.
pub(super) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// Slices of a Service: by address family and ports, a hundred addresses each.
/// Names derive from the content's place, so that the same input makes the same slices.
pub(super) fn slices(service: &Service, pods: &[impl AsRef<Pod>]) -> Vec<EndpointSlice> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let families = if families.is_empty() { vec!["IPv4".to_owned()] } else { families };
    let backends = backends(service, pods);
    let mut slices = Vec::new();
    for family in &families {
        let mut groups: BTreeMap<Vec<Port>, Vec<discovery::Endpoint>> = BTreeMap::new();
        for backend in &backends {
            let addresses: Vec<String> = ips(backend.pod)
                .into_iter()
                .filter(|ip| ip.contains(':') == (family == "IPv6"))
                .map(str::to_owned)
                .collect();
            if !addresses.is_empty() {
                groups.entry(backend.ports.clone()).or_default().push(endpoint(service, backend, addresses));
            }
        }
        // A Service without backends still has a slice, which tells that there are none.
        if groups.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for (ports, endpoints) in groups {
            let chunks = endpoints.chunks(SLICE_SIZE);
            let chunks: Vec<_> = if endpoints.is_empty() { vec![&endpoints[..]] } else { chunks.collect() };
            for (number, chunk) in chunks.into_iter().enumerate() {
                slices.push(slice(service, family, &ports, number, chunk.to_vec()));
            }
        }
    }
    slices
}

fn endpoint(service: &Service, backend: &Backend<'_>, addresses: Vec<String>) -> discovery::Endpoint {
    discovery::Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: hostname(service, backend.pod),
        node_name: some(pods::node(backend.pod)),
        target_ref: Some(target(backend.pod)),
        ..discovery::Endpoint::default()
    }
}

fn slice(
    service: &Service,
    family: &str,
    ports: &[Port],
    number: usize,
    endpoints: Vec<discovery::Endpoint>,
) -> EndpointSlice {
    let name = service.name_any();
    let place: Vec<_> = ports.iter().map(|port| (&port.name, &port.protocol, port.port)).collect();
    let hash = template::hash(&(family, place, number), 0);
    let mut labels = labels(service);
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let ports = ports.iter().map(|port| discovery::EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", &hash[..5])),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owned_by(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints,
        ports: Some(ports.collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{object, pod};

    fn service(spec: Value) -> Service {
        object(json!({"metadata": {"name": "s", "namespace": "x", "uid": "u", "labels": {"l": "m"}}, "spec": spec}))
    }

    fn backend(name: &str, ip: &str, ready: &str, port: i32) -> Arc<Pod> {
        Arc::new(pod(json!({"metadata": {"name": name, "namespace": "x"}, "spec": {"nodeName": "n", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}})))
    }

    fn named() -> Value {
        json!({"ports": [{"port": 80, "targetPort": "web"}]})
    }

    #[test]
    fn ready_and_unready_pods_are_told_apart() {
        let pods = [
            backend("b", "10.0.0.2", "False", 8080),
            backend("a", "10.0.0.1", "True", 8080),
            backend("c", "", "True", 1),
        ];
        let got = subsets(&service(named()), &pods);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].addresses.as_ref().unwrap()[0].ip, "10.0.0.1");
        assert_eq!(got[0].not_ready_addresses.as_ref().unwrap()[0].ip, "10.0.0.2");
        assert_eq!(got[0].ports.as_ref().unwrap()[0].port, 8080);
        let always = json!({"publishNotReadyAddresses": true, "ports": [{"port": 80, "targetPort": "web"}]});
        assert_eq!(subsets(&service(always), &pods)[0].addresses.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn named_ports_may_differ_between_pods() {
        let pods = [backend("a", "10.0.0.1", "True", 8080), backend("b", "10.0.0.2", "True", 9090)];
        assert_eq!(subsets(&service(named()), &pods).len(), 2);
        let slices = slices(&service(named()), &pods);
        assert_eq!(slices.len(), 2);
        assert_ne!(slices[0].metadata.name, slices[1].metadata.name);
        let missing = json!({"ports": [{"port": 80, "targetPort": "nowhere"}]});
        assert!(subsets(&service(missing), &pods).is_empty());
    }

    #[test]
    fn target_ports() {
        let pod = backend("a", "10.0.0.1", "True", 8080);
        for (port, want) in [
            (json!({"port": 80}), Some(80)),
            (json!({"port": 80, "targetPort": 0}), Some(80)),
            (json!({"port": 80, "targetPort": 81}), Some(81)),
            (json!({"port": 80, "targetPort": "web"}), Some(8080)),
            (json!({"port": 80, "targetPort": "web", "protocol": "UDP"}), None),
        ] {
            let port: ServicePort = object(port);
            assert_eq!(resolve(&port, &pod).map(|port| port.port), want, "{port:?}");
        }
    }

    #[test]
    fn slices_hold_a_hundred_and_are_stable() {
        let pods: Vec<_> = (0..250).map(|n| backend(&format!("p{n:03}"), &format!("10.0.1.{n}"), "True", 80)).collect();
        let first = slices(&service(named()), &pods);
        assert_eq!(first.iter().map(|slice| slice.endpoints.len()).collect::<Vec<_>>(), [100, 100, 50]);
        assert_eq!(first, slices(&service(named()), &pods));
        let labels = first[0].metadata.labels.clone().unwrap();
        assert_eq!(
            (labels[SERVICE_NAME].as_str(), labels[MANAGED_BY].as_str(), labels["l"].as_str()),
            ("s", MANAGER, "m")
        );
    }

    #[test]
    fn an_empty_service_has_one_empty_slice_per_family() {
        let none: [Arc<Pod>; 0] = [];
        let both = json!({"ipFamilies": ["IPv4", "IPv6"], "clusterIP": "None"});
        let slices = slices(&service(both), &none);
        assert_eq!(slices.len(), 2);
        assert!(slices[0].metadata.labels.as_ref().unwrap().contains_key(HEADLESS));
    }

    #[test]
    fn terminating_pods_stay_in_slices_only() {
        let mut dying = backend("a", "10.0.0.1", "True", 80).as_ref().clone();
        dying.metadata.deletion_timestamp = Some(crate::testing::time("2026-01-01T00:00:00Z"));
        let pods = [Arc::new(dying)];
        assert!(subsets(&service(named()), &pods).is_empty());
        let slices = slices(&service(named()), &pods);
        let conditions = slices[0].endpoints[0].conditions.clone().unwrap();
        assert_eq!(
            (conditions.ready, conditions.serving, conditions.terminating),
            (Some(false), Some(true), Some(true))
        );
    }
}
