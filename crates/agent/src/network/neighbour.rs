//! The neighbour table: who answers to which address on a link.

use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use osc_agent_protocol::types;
use rtnetlink::Handle;

use super::{NetworkError, Result, address::mac, ip, link, refused};

/// Adds or replaces one entry. State 0 means it never expires.
pub(super) async fn add(handle: &Handle, entry: &types::ARPNeighbor) -> Result<()> {
    let address = ip("neighbour", &entry.toIPAddress.address)?;
    let link = link::by_name(handle, &entry.device).await?;
    let link = link.ok_or_else(|| NetworkError::NoLink { by: entry.device.clone() })?;
    let out_of_range = |field, value: i32| NetworkError::Invalid {
        field,
        value: value.to_string(),
        wanted: "give a value of the kernel's neighbour table",
    };
    let state = match u16::try_from(entry.state).map_err(|_| out_of_range("neighbour state", entry.state))? {
        0 => NeighbourState::Permanent,
        state => state.into(),
    };
    let flags = u8::try_from(entry.flags).map_err(|_| out_of_range("neighbour flags", entry.flags))?;
    let mut request = handle
        .neighbours()
        .add(link.index(), address)
        .state(state)
        .flags(NeighbourFlags::from_bits_retain(flags))
        .replace();
    if !entry.lladdr.is_empty() {
        request = request.link_layer_address(&mac(&entry.lladdr)?);
    }
    request.execute().await.map_err(refused("add", format!("neighbour {address} on {}", entry.device)))
}
