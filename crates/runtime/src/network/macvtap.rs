//! A macvtap in bridge mode on top of the pod's interface.
//!
//! The guest takes over the interface's hardware address; the interface gets
//! the one the macvtap was born with, and loses its protocol addresses, which
//! would otherwise be answered for twice.

use rtnetlink::{LinkMacVtap, packet_route::address::AddressMessage, packet_route::link::MacVtapMode};

use super::{error::NetworkError, link::Link, netns::Netns};

/// What has to be given back to the interface.
#[derive(Debug)]
pub struct Borrowed {
    addresses: Vec<AddressMessage>,
}

/// Puts a macvtap called `name` on `base`, with `base`'s hardware address.
/// What it did is undone when it fails.
pub async fn put_on(netns: &Netns, base: &Link, name: &str) -> Result<(Link, Borrowed), NetworkError> {
    let message = LinkMacVtap::new(name, base.index, MacVtapMode::Bridge).build();
    let added = netns.handle.link().add(message).execute().await;
    added.map_err(netns.doing(format!("put macvtap {name} on {}", base.name)))?;
    let Some(own) = netns.links().await?.into_iter().find(|link| link.name == name) else {
        return Err(netns.doing(format!("find macvtap {name}"))(rtnetlink::Error::RequestFailed));
    };
    match take_over(netns, base, &own).await {
        Ok(borrowed) => Ok((own, borrowed)),
        Err(error) => {
            if let Err(error) = take_off(netns, &own, base.mac, base.index, None).await {
                tracing::warn!(interface = name, error = %error, "macvtap stays behind");
            }
            Err(error)
        }
    }
}

async fn take_over(netns: &Netns, base: &Link, own: &Link) -> Result<Borrowed, NetworkError> {
    // First the interface: two with one address on one wire are refused.
    netns.set_mac(base.index, own.mac).await?;
    netns.set_mac(own.index, base.mac).await?;
    // Which groups the guest has joined is not known out here. Without this the device
    // drops what is sent to any of them: neighbour discovery first of all.
    netns.hear_all_groups(own).await?;
    netns.bring_up(own, base.mtu).await?;
    let of_base = netns.handle.address().get().set_link_index_filter(base.index).execute();
    let addresses = netns.list("addresses", of_base).await?;
    for address in &addresses {
        netns.remove_address(address.clone()).await?;
    }
    Ok(Borrowed { addresses })
}

/// Removes a macvtap and gives its interface back what it had: `mac`, and its
/// addresses as far as they are known.
pub async fn take_off(
    netns: &Netns,
    own: &Link,
    mac: [u8; 6],
    base: u32,
    borrowed: Option<&Borrowed>,
) -> Result<(), NetworkError> {
    netns.remove(own).await?;
    netns.set_mac(base, mac).await?;
    for address in borrowed.iter().flat_map(|borrowed| &borrowed.addresses) {
        let mut request = netns.handle.address().add(base, [0, 0, 0, 0].into(), 0).replace();
        *request.message_mut() = address.clone();
        request.execute().await.map_err(netns.doing("give an address back"))?;
    }
    Ok(())
}
