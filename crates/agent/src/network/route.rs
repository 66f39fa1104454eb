//! Routes of the main table.

use std::{collections::HashMap, net::IpAddr};

use futures::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
        RouteType,
    },
};
use osc_agent_protocol::types;
use rtnetlink::Handle;

use super::{NetworkError, Result, address::Prefix, family, ip, link, os_error, refused};

/// Makes `wanted` the routes of the main table besides those the kernel keeps
/// itself. Routes without a gateway come first: gateways must be reachable.
pub(super) async fn replace(handle: &Handle, wanted: &[types::Route]) -> Result<()> {
    let indices: HashMap<_, _> =
        link::all(handle).await?.into_iter().map(|link| (link.name().to_owned(), link.index())).collect();
    let (direct, through): (Vec<_>, Vec<_>) = wanted.iter().partition(|route| route.gateway.is_empty());
    // Everything is checked before anything is taken away.
    let messages = direct
        .into_iter()
        .chain(through)
        .map(|route| Ok((route, message(route, &indices)?)))
        .collect::<Result<Vec<_>>>()?;
    for old in dump(handle).await?.into_iter().filter(|route| route.header.protocol != RouteProtocol::Kernel) {
        let object = destination(&old).map_or_else(String::new, |d| d.to_string());
        handle.route().del(old).execute().await.map_err(refused("delete", format!("route to {object:?}")))?;
    }
    for (route, message) in messages {
        match handle.route().add(message).replace().execute().await.map_err(os_error) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                let object = format!("route to {:?} through {:?} on {}", route.dest, route.gateway, route.device);
                return Err(NetworkError::Refused { action: "add", object, source });
            }
        }
    }
    Ok(())
}

fn message(route: &types::Route, indices: &HashMap<String, u32>) -> Result<RouteMessage> {
    let gateway = optional("gateway", &route.gateway)?;
    let source = optional("source", &route.source)?;
    let destination = Some(route.dest.as_str()).filter(|d| !d.is_empty()).map(Prefix::parse).transpose()?;
    let index = indices.get(&route.device).ok_or_else(|| NetworkError::NoLink { by: route.device.clone() })?;

    let mut message = RouteMessage::default();
    message.header.address_family = address_family(route, destination, gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = scope(route);
    message.header.flags = RouteFlags::from_bits_retain(route.flags) & RouteFlags::Onlink;
    message.attributes.push(RouteAttribute::Oif(*index));
    // A prefix of length zero is the default route, which has no destination.
    if let Some(prefix) = destination.filter(|prefix| prefix.length > 0) {
        message.header.destination_prefix_length = prefix.length;
        message.attributes.push(RouteAttribute::Destination(prefix.address.into()));
    }
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(source) = source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if route.mtu > 0 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(route.mtu)]));
    }
    Ok(message)
}

fn optional(field: &'static str, text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() { Ok(None) } else { ip(field, text).map(Some) }
}

/// Addresses decide; a default route without any is of the family it says.
fn address_family(route: &types::Route, destination: Option<Prefix>, gateway: Option<IpAddr>) -> AddressFamily {
    let said = route.family.enum_value() == Ok(types::IPFamily::v6);
    let v6 = destination.map(|d| d.address).or(gateway).map_or(said, |address| address.is_ipv6());
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

/// The scope is a byte of the kernel's; a zero that comes without a gateway was
/// not meant to be the whole universe, which the kernel would refuse.
fn scope(route: &types::Route) -> RouteScope {
    match u8::try_from(route.scope) {
        Ok(0) | Err(_) if route.gateway.is_empty() && !is_v6(route) => RouteScope::Link,
        Ok(scope) => scope.into(),
        Err(_) => RouteScope::Universe,
    }
}

fn is_v6(route: &types::Route) -> bool {
    route.dest.contains(':') || route.family.enum_value() == Ok(types::IPFamily::v6)
}

/// The unicast routes of the main table of both families.
async fn dump(handle: &Handle) -> Result<Vec<RouteMessage>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        let routes: Vec<_> =
            handle.route().get(filter).execute().try_collect().await.map_err(refused("list", "routes"))?;
        found.extend(routes);
    }
    found.retain(|route| {
        route.header.table == RouteHeader::RT_TABLE_MAIN
            && route.header.kind == RouteType::Unicast
            && !route.header.flags.contains(RouteFlags::Cloned)
    });
    Ok(found)
}

/// The routes in the shape of the protocol.
pub(super) async fn list(handle: &Handle) -> Result<Vec<types::Route>> {
    let names: HashMap<_, _> =
        link::all(handle).await?.into_iter().map(|link| (link.index(), link.name().to_owned())).collect();
    Ok(dump(handle).await?.iter().map(|message| describe(message, &names)).collect())
}

fn describe(message: &RouteMessage, names: &HashMap<u32, String>) -> types::Route {
    let mut route = types::Route { scope: u8::from(message.header.scope).into(), ..Default::default() };
    let v6 = message.header.address_family == AddressFamily::Inet6;
    route.family = if v6 { types::IPFamily::v6 } else { types::IPFamily::v4 }.into();
    route.flags = message.header.flags.bits();
    if let Some(address) = destination(message) {
        route.dest = format!("{address}/{}", message.header.destination_prefix_length);
        route.family = family(address).into();
    }
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => route.gateway = text(address),
            RouteAttribute::PrefSource(address) => route.source = text(address),
            RouteAttribute::Oif(index) => route.device = names.get(index).cloned().unwrap_or_default(),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics
                    .iter()
                    .find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
                    .unwrap_or(0);
            }
            _ => {}
        }
    }
    route
}

fn destination(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => address_of(address),
        _ => None,
    })
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn text(address: &RouteAddress) -> String {
    address_of(address).map_or_else(String::new, |address| address.to_string())
}
