//! What the guest is told: interfaces, routes and neighbours of the namespace
//! in the words of the agent protocol.

use std::{
    collections::HashMap,
    fmt::Display,
    net::{IpAddr, Ipv6Addr},
};

use osc_agent_protocol::types;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::LinkFlags,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteType,
    },
};

use super::link::Link;

/// Everything a scan of a namespace saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Interfaces that carry Ethernet.
    pub links: Vec<Link>,
    /// Protocol addresses of all interfaces.
    pub addresses: Vec<AddressMessage>,
    /// Routes of all tables.
    pub routes: Vec<RouteMessage>,
    /// The neighbour cache.
    pub neighbours: Vec<NeighbourMessage>,
}

impl Seen {
    /// Interfaces the guest should get: not ours, and either up or with an
    /// address. Kernel modules put unconfigured tunnels into every namespace.
    pub fn endpoints(&self) -> Vec<Link> {
        let wanted = |link: &&Link| {
            let addressed = self.addresses.iter().any(|address| address.header.index == link.index);
            !link.is_ours() && (addressed || link.flags.contains(LinkFlags::Up))
        };
        self.links.iter().filter(wanted).cloned().collect()
    }

    /// One interface as the guest should have it.
    pub fn interface(&self, link: &Link) -> types::Interface {
        let own = self.addresses.iter().filter(|address| address.header.index == link.index);
        let addresses = own.filter_map(|address| {
            let ip = address_of(address)?;
            (!grown_by_the_guest(ip, link.mac))
                .then(|| types::IPAddress { mask: address.header.prefix_len.to_string(), ..ip_address(ip) })
        });
        types::Interface {
            device: link.name.clone(),
            name: link.name.clone(),
            IPAddresses: addresses.collect(),
            mtu: link.mtu.into(),
            hwAddr: mac_text(&link.mac),
            type_: link.kind.clone(),
            raw_flags: (link.flags & LinkFlags::Noarp).bits(),
            ..Default::default()
        }
    }

    /// Routes over `links` the guest does not make itself, those without a
    /// gateway first: gateways are reached by them.
    pub fn routes(&self, links: &[Link]) -> Vec<types::Route> {
        let names = names(links);
        let mut routes: Vec<_> = self.routes.iter().filter_map(|route| route_of(route, &names)).collect();
        routes.sort_by_key(|route| !route.gateway.is_empty());
        routes
    }

    /// Neighbours somebody entered by hand, and default gateways the namespace
    /// reaches right now, which saves the guest its first question.
    pub fn neighbours(&self, links: &[Link]) -> Vec<types::ARPNeighbor> {
        let names = names(links);
        let gateways: Vec<_> = self.routes.iter().filter_map(default_gateway).collect();
        let wanted = self.neighbours.iter().filter_map(|neighbour| {
            let (device, header) = (names.get(&neighbour.header.ifindex)?, &neighbour.header);
            let (ip, mac) = neighbour_of(neighbour)?;
            let state = match header.state {
                NeighbourState::Permanent => header.state,
                NeighbourState::Reachable if gateways.contains(&(ip, header.ifindex)) => header.state,
                _ => return None,
            };
            Some(types::ARPNeighbor {
                toIPAddress: Some(ip_address(ip)).into(),
                device: (*device).clone(),
                lladdr: mac_text(mac),
                state: u16::from(state).into(),
                flags: header.flags.bits().into(),
                ..Default::default()
            })
        });
        wanted.collect()
    }
}

fn names(links: &[Link]) -> HashMap<u32, &String> {
    links.iter().map(|link| (link.index, &link.name)).collect()
}

fn ip_address(ip: IpAddr) -> types::IPAddress {
    types::IPAddress { family: family(ip).into(), address: ip.to_string(), ..Default::default() }
}

fn family(ip: IpAddr) -> types::IPFamily {
    if ip.is_ipv6() { types::IPFamily::v6 } else { types::IPFamily::v4 }
}

/// `02:00:00:00:00:01`, of any length.
fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// The interface's own address, which on point-to-point interfaces is not the
/// one called address.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => found = Some(*ip),
            _ => {}
        }
    }
    found
}

/// The link-local address a kernel derives from `mac`: the guest has the same
/// hardware address and derives the same.
fn grown_by_the_guest(ip: IpAddr, mac: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = mac;
    let bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    ip == IpAddr::from(Ipv6Addr::from(bytes))
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// Interface, gateway and flags of a route; of one with several ways, the first.
fn way(message: &RouteMessage) -> Option<(u32, Option<IpAddr>, u32)> {
    let (mut oif, mut gateway, mut flags) = (None, None, message.header.flags.bits());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip_of(address),
            RouteAttribute::MultiPath(ways) => {
                let first = ways.first()?;
                oif = Some(first.interface_index);
                flags = first.flags.bits().into();
                gateway = first.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(address) => ip_of(address),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some((oif?, gateway, flags))
}

/// A route in the agent's words; `None` for those a kernel makes by itself,
/// those of other tables, and those over other interfaces.
fn route_of(message: &RouteMessage, names: &HashMap<u32, &String>) -> Option<types::Route> {
    let header = &message.header;
    let ordinary = header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Kernel;
    if !ordinary {
        return None;
    }
    let (index, gateway, flags) = way(message)?;
    let mut route = types::Route {
        device: (*names.get(&index)?).clone(),
        gateway: text(gateway),
        scope: u8::from(header.scope).into(),
        // What a kernel reports beyond this is its own state, not the route.
        flags: flags & RouteFlags::Onlink.bits(),
        family: family_of(message).into(),
        ..Default::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.dest = format!("{}/{}", ip_of(address)?, header.destination_prefix_length);
            }
            RouteAttribute::PrefSource(address) => route.source = text(ip_of(address)),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu_of(metrics),
            _ => {}
        }
    }
    Some(route)
}

fn text(ip: Option<impl Display>) -> String {
    ip.map(|ip| ip.to_string()).unwrap_or_default()
}

fn family_of(message: &RouteMessage) -> types::IPFamily {
    use rtnetlink::packet_route::AddressFamily;
    if message.header.address_family == AddressFamily::Inet6 { types::IPFamily::v6 } else { types::IPFamily::v4 }
}

fn mtu_of(metrics: &[RouteMetric]) -> u32 {
    let mtu = metrics.iter().find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None });
    mtu.unwrap_or_default()
}

/// Gateway and interface of a default route.
fn default_gateway(message: &RouteMessage) -> Option<(IpAddr, u32)> {
    if message.header.destination_prefix_length != 0 || message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (index, gateway, _) = way(message)?;
    Some((gateway?, index))
}

/// Protocol and hardware address of a neighbour that has both.
fn neighbour_of(message: &NeighbourMessage) -> Option<(IpAddr, &[u8])> {
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some((*address).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => ip = Some((*address).into()),
            NeighbourAttribute::LinkLayerAddress(address) => mac = Some(address.as_slice()),
            _ => {}
        }
    }
    Some((ip?, mac?))
}
