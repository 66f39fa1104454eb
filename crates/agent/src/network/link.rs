//! Interfaces.

use std::{collections::HashMap, path::Path};

use futures::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
};
use osc_agent_protocol::types;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

use super::{
    NetworkError, Result,
    address::{Prefix, mac, mac_text},
    refused,
};

/// `IFF_NOARP`, the one flag of the protocol's `raw_flags` that is honoured.
const NO_ARP: u32 = 0x80;

/// What of an interface matters here.
#[derive(Clone, Debug)]
pub(super) struct Link {
    index: u32,
    name: String,
    mac: Vec<u8>,
    mtu: u32,
    up: bool,
    loopback: bool,
}

impl Link {
    fn of_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: Vec::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.link_layer_type == LinkLayerType::Loopback,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac.clone_from(mac),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                _ => {}
            }
        }
        link
    }

    /// The interface's index.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The interface's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// All interfaces.
pub(super) async fn all(handle: &Handle) -> Result<Vec<Link>> {
    let messages: Vec<_> = handle.link().get().execute().try_collect().await.map_err(refused("list", "interfaces"))?;
    Ok(messages.iter().map(Link::of_message).collect())
}

/// The interface called `name`.
pub(super) async fn by_name(handle: &Handle, name: &str) -> Result<Option<Link>> {
    Ok(all(handle).await?.into_iter().find(|link| link.name == name))
}

/// The interface with the wanted hardware address or, where there is none, name.
pub(super) async fn find(handle: &Handle, wanted: &types::Interface) -> Result<Link> {
    let links = all(handle).await?;
    let wanted_mac = if wanted.hwAddr.is_empty() { None } else { Some(mac(&wanted.hwAddr)?) };
    let by_mac = wanted_mac.and_then(|mac| links.iter().find(|link| link.mac == mac));
    let found = by_mac.or_else(|| links.iter().find(|link| link.name == wanted.name));
    found.cloned().ok_or_else(|| NetworkError::NoLink { by: format!("{} {}", wanted.hwAddr, wanted.name) })
}

/// Gives the interface the wanted addresses, name, hardware address, MTU and
/// flags, and brings it up.
pub(super) async fn configure(handle: &Handle, link: Link, wanted: &types::Interface) -> Result<()> {
    let addresses = wanted.IPAddresses.iter().map(Prefix::of_message).collect::<Result<Vec<_>>>()?;
    let renamed = !wanted.name.is_empty() && wanted.name != link.name;
    // Names and hardware addresses change only while the interface is down.
    if link.up {
        change(handle, &link, "bring down", LinkUnspec::new_with_index(link.index).down()).await?;
    }
    replace_addresses(handle, &link, &addresses).await?;
    if renamed {
        park(handle, &wanted.name).await?;
    }
    let mut settings = LinkUnspec::new_with_index(link.index).arp(wanted.raw_flags & NO_ARP == 0);
    if renamed {
        settings = settings.name(&wanted.name);
    }
    if !wanted.hwAddr.is_empty() && mac(&wanted.hwAddr)? != link.mac {
        settings = settings.address(mac(&wanted.hwAddr)?);
    }
    if let Some(mtu) = u32::try_from(wanted.mtu).ok().filter(|mtu| *mtu > 0) {
        settings = settings.mtu(mtu);
    }
    change(handle, &link, "configure", settings).await?;
    change(handle, &link, "bring up", LinkUnspec::new_with_index(link.index).up()).await
}

async fn change(
    handle: &Handle,
    link: &Link,
    action: &'static str,
    settings: LinkMessageBuilder<LinkUnspec>,
) -> Result<()> {
    handle.link().change(settings.build()).execute().await.map_err(refused(action, format!("interface {}", link.name)))
}

/// Moves an interface that holds the name another is to get out of the way.
async fn park(handle: &Handle, name: &str) -> Result<()> {
    let Some(holder) = by_name(handle, name).await? else { return Ok(()) };
    // The kernel allows 15 bytes.
    let stem: String = name.chars().take(10).collect();
    if holder.up {
        change(handle, &holder, "bring down", LinkUnspec::new_with_index(holder.index).down()).await?;
    }
    let settings = LinkUnspec::new_with_index(holder.index).name(format!("{stem}_temp"));
    change(handle, &holder, "rename", settings).await
}

async fn replace_addresses(handle: &Handle, link: &Link, wanted: &[Prefix]) -> Result<()> {
    let object = |prefix: &str| format!("address {prefix} of interface {}", link.name);
    let old: Vec<_> = handle
        .address()
        .get()
        .set_link_index_filter(link.index)
        .execute()
        .try_collect()
        .await
        .map_err(refused("list", object("")))?;
    for message in old {
        handle.address().del(message).execute().await.map_err(refused("delete", object("")))?;
    }
    let ipv6 = ipv6_enabled();
    for prefix in wanted.iter().filter(|prefix| ipv6 || prefix.address.is_ipv4()) {
        let mut request = handle.address().add(link.index, prefix.address, prefix.length).replace();
        if prefix.address.is_ipv6() {
            // The pod's interface on the host has made sure the address is free;
            // waiting a second time would delay the first connection by seconds.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(refused("add", object(&prefix.address.to_string())))?;
    }
    Ok(())
}

fn ipv6_enabled() -> bool {
    let switch = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    Path::new("/proc/net/if_inet6").exists() && switch.is_ok_and(|text| text.trim() == "0")
}

/// All interfaces in the shape of the protocol.
pub(super) async fn list(handle: &Handle) -> Result<Vec<types::Interface>> {
    let mut addresses: HashMap<u32, Vec<types::IPAddress>> = HashMap::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await.map_err(refused("list", "addresses"))? {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        if let Some(address) = address {
            let prefix = Prefix { address, length: message.header.prefix_len };
            addresses.entry(message.header.index).or_default().push(prefix.message());
        }
    }
    let describe = |link: Link| types::Interface {
        device: link.name.clone(),
        IPAddresses: addresses.remove(&link.index).unwrap_or_default(),
        mtu: link.mtu.into(),
        hwAddr: mac_text(&link.mac),
        name: link.name,
        ..Default::default()
    };
    Ok(all(handle).await?.into_iter().map(describe).collect())
}

/// Brings the loopback interface up.
pub(super) async fn loopback_up(handle: &Handle) -> Result<()> {
    let links = all(handle).await?;
    let loopback =
        links.iter().find(|link| link.loopback).ok_or_else(|| NetworkError::NoLink { by: "loopback".into() })?;
    if loopback.up {
        return Ok(());
    }
    change(handle, loopback, "bring up", LinkUnspec::new_with_index(loopback.index).up()).await
}
