//! Addresses and ports of Services.

use std::{collections::HashSet, net::Ipv4Addr};

use osc_api::status::{Cause, Status};
use rand::Rng;
use serde_json::{Value, json};

use crate::api::Api;

/// Ports on nodes that Services may get.
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30000..=32767;
/// Random draws before looking through the whole range.
const DRAWS: usize = 64;

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: u32,
    size: u32,
}

impl Network {
    /// The range `address/length`.
    ///
    /// `None` for lengths that leave no room: only 8 to 30 are of use.
    pub fn new(address: Ipv4Addr, length: u8) -> Option<Self> {
        if !(8..=30).contains(&length) {
            return None;
        }
        let size = 1u32 << (32 - length);
        Some(Self { base: u32::from(address) & !(size - 1), size })
    }

    /// The first usable address, which belongs to the API server.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        (self.base + 1..self.base + self.size - 1).contains(&u32::from(address))
    }

    /// An address nobody has.
    fn free(self, taken: &HashSet<String>) -> Option<Ipv4Addr> {
        let usable = self.base + 2..self.base + self.size - 1;
        let free = |address: &Ipv4Addr| !taken.contains(&address.to_string());
        let mut random = rand::rng();
        let drawn = (0..DRAWS).map(|_| Ipv4Addr::from(random.random_range(usable.clone()))).find(free);
        drawn.or_else(|| usable.clone().map(Ipv4Addr::from).find(free))
    }
}

/// What existing Services hold.
#[derive(Default)]
struct Taken {
    addresses: HashSet<String>,
    ports: HashSet<u64>,
}

/// Gives a new Service the addresses and node ports it wants.
pub(crate) async fn allocate(api: &Api, service: &mut Value) -> Result<(), Status> {
    let mut taken = Taken::default();
    for other in api.reader.list("", "services", "").await? {
        taken.addresses.extend(other["spec"]["clusterIP"].as_str().map(str::to_owned));
        let ports = other["spec"]["ports"].as_array().cloned().unwrap_or_default();
        taken.ports.extend(ports.iter().filter_map(|port| port["nodePort"].as_u64()));
    }
    assign(api.config.service_network, &taken, service)
}

fn assign(network: Network, taken: &Taken, service: &mut Value) -> Result<(), Status> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let invalid = |field: &str, value: &Value, why: &str| {
        let cause = Cause::new("FieldValueInvalid", format!("Invalid value: {value}: {why}"), field);
        Status::invalid_kind("", "Service", &name, [cause])
    };
    let Some(spec) = service.get_mut("spec").filter(|spec| spec.is_object()) else { return Ok(()) };
    let kind = spec["type"].as_str().unwrap_or("ClusterIP").to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    match spec["clusterIP"].as_str().unwrap_or_default().to_owned().as_str() {
        "None" => {}
        "" => {
            let address = network.free(&taken.addresses);
            let address = address.ok_or_else(|| Status::internal("no service address is free"))?;
            spec["clusterIP"] = address.to_string().into();
        }
        asked => {
            let inside = asked.parse().is_ok_and(|address| network.contains(address));
            if !inside || taken.addresses.contains(asked) {
                let why =
                    if inside { "provided IP is already allocated" } else { "provided IP is not in the valid range" };
                return Err(invalid(
                    "spec.clusterIPs",
                    &json!([asked]),
                    &format!("failed to allocate IP {asked}: {why}"),
                ));
            }
        }
    }
    spec["clusterIPs"] = json!([spec["clusterIP"]]);
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        let mut used = taken.ports.clone();
        for (at, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let field = format!("spec.ports[{at}].nodePort");
            match port["nodePort"].as_u64().unwrap_or(0) {
                0 => {
                    let free = NODE_PORTS.clone().find(|number| !used.contains(number));
                    port["nodePort"] = free.ok_or_else(|| Status::internal("no node port is free"))?.into();
                }
                asked if !NODE_PORTS.contains(&asked) => {
                    return Err(invalid(
                        &field,
                        &asked.into(),
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    ));
                }
                asked if used.contains(&asked) => {
                    return Err(invalid(&field, &asked.into(), "provided port is already allocated"));
                }
                _ => {}
            }
            used.extend(port["nodePort"].as_u64());
        }
    }
    Ok(())
}

/// Updates keep what was assigned, unless they say otherwise.
pub(crate) fn keep_addresses(new: &mut Value, old: &Value) {
    let same_kind = new["spec"]["type"] == old["spec"]["type"];
    let Some(spec) = new.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if spec["clusterIP"].as_str().unwrap_or_default().is_empty() && spec["type"] != "ExternalName" {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                spec[field] = value.clone();
            }
        }
    }
    if !same_kind {
        return;
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let twin = old["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]);
        if let (None | Some(0), Some(number)) =
            (port["nodePort"].as_u64(), twin.and_then(|twin| twin["nodePort"].as_u64()))
        {
            port["nodePort"] = number.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::new(Ipv4Addr::new(10, 96, 0, 7), 29).unwrap()
    }

    #[test]
    fn addresses_are_given_once() {
        let mut taken = Taken::default();
        for _ in 0..5 {
            let mut service = json!({"spec": {"type": "ClusterIP"}});
            assign(network(), &taken, &mut service).unwrap();
            assert_eq!(service["spec"]["clusterIPs"], json!([service["spec"]["clusterIP"]]));
            assert!(taken.addresses.insert(service["spec"]["clusterIP"].as_str().unwrap().into()));
        }
        assert!(assign(network(), &taken, &mut json!({"spec": {}})).is_err(), "10.96.0.2 to .6 are all there is");
        assert_eq!(network().first(), Ipv4Addr::new(10, 96, 0, 1));
    }

    #[test]
    fn what_is_asked_for_must_be_free() {
        let taken = Taken { addresses: ["10.96.0.3".into()].into(), ports: [30001].into() };
        let rows = [
            (json!({"clusterIP": "10.96.0.2"}), true),
            (json!({"clusterIP": "10.96.0.3"}), false),
            (json!({"clusterIP": "10.97.0.3"}), false),
            (json!({"clusterIP": "None"}), true),
            (json!({"type": "ExternalName"}), true),
            (json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}), false),
            (json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}), false),
            (json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2, "nodePort": 30005}]}), true),
        ];
        for (spec, good) in rows {
            let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
            assert_eq!(assign(network(), &taken, &mut service).is_ok(), good, "{spec}");
        }
    }

    #[test]
    fn updates_keep_what_was_given() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.2", "clusterIPs": ["10.96.0.2"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30007}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        keep_addresses(&mut new, &old);
        assert_eq!(new, old);
    }
}
