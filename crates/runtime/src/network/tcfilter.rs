//! The default model: every frame that arrives at the pod's interface leaves at
//! the tap, and the other way round.
//!
//! ```text
//!  host ═══ veth ──ingress: redirect──► tap ═══ guest (with the veth's hardware address)
//!             ▲                          │
//!             └────redirect :ingress─────┘
//! ```
//!
//! The interface keeps its addresses, for programs that look for them; nothing
//! reaches its own protocol stack any more.

use super::{error::NetworkError, link::Link, netns::Netns};

/// Parent of the filters of an ingress queue.
const INGRESS: u32 = 0xffff_0000;

/// Frames of any protocol, in network byte order.
const ALL: u16 = (nix::libc::ETH_P_ALL as u16).to_be();

/// Redirects all traffic between two interfaces. Leaves nothing behind when it
/// fails, and replaces what an earlier sandbox left.
pub async fn connect(netns: &Netns, one: &Link, other: &Link) -> Result<(), NetworkError> {
    let connected = async {
        redirect(netns, one, other).await?;
        redirect(netns, other, one).await
    };
    if let Err(error) = connected.await {
        for link in [one, other] {
            if let Err(error) = netns.remove_ingress(link).await {
                tracing::warn!(interface = %link.name, error = %error, "redirection stays behind");
            }
        }
        return Err(error);
    }
    Ok(())
}

async fn redirect(netns: &Netns, from: &Link, to: &Link) -> Result<(), NetworkError> {
    netns.remove_ingress(from).await?;
    let index = from.index as i32;
    let queue = netns.handle.qdisc().add(index).ingress().execute().await;
    queue.map_err(netns.doing(format!("add an ingress queue to {}", from.name)))?;

    let action = format!("redirect {} to {}", from.name, to.name);
    let filter = netns.handle.traffic_filter(index).add().parent(INGRESS).protocol(ALL).redirect(to.index);
    match filter {
        Ok(filter) => filter.execute().await.map_err(netns.doing(action)),
        Err(error) => Err(netns.doing(action)(error)),
    }
}
