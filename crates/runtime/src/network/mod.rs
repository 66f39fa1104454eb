//! The pod's network, handed to its guest.
//!
//! The container engine gives a pod a network namespace with interfaces,
//! addresses and routes in it. Each interface becomes a network card of the
//! virtual machine, by way of a tap, and the agent repeats addresses, routes and
//! neighbours inside.
//!
//! Nothing outlives its owner: taps are not persistent and go with QEMU, what is
//! changed in the namespace is named after the endpoint (`tap<n>_kata`), and
//! [`cleanup`] finds it by these names alone.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use osc_agent_protocol::types;
use rtnetlink::packet_route::{neighbour::NeighbourMessage, route::RouteMessage};

pub use self::{
    error::NetworkError,
    forward::{Forward, ForwardError},
};
use self::{
    guest::Seen,
    link::{Link, tap_name},
    macvtap::Borrowed,
    netns::Netns,
};
use crate::{config::NetworkModel, deadline::Deadline, qemu::Nic};

mod error;
mod forward;
mod guest;
mod link;
mod macvtap;
mod netns;
mod sys;
mod tap;
mod tcfilter;
#[cfg(test)]
pub(in crate::network) mod tests;

/// How often an empty namespace is looked at while hooks may still fill it.
const RESCAN: Duration = Duration::from_millis(50);

/// How interfaces reach the guest.
#[derive(Clone, Copy, Debug)]
pub struct Wiring {
    /// The model.
    pub model: NetworkModel,
    /// Queue pairs of each card, at least 1.
    pub queues: u16,
    /// Whether `/dev/vhost-net` is used where there is one.
    pub vhost_net: bool,
}

/// One interface of the pod and what was made for it.
#[derive(Debug)]
struct Endpoint {
    link: Link,
    tap: Link,
    nic: Option<Nic>,
    borrowed: Option<Borrowed>,
}

/// A pod's network, attached to its guest.
#[derive(Debug)]
pub struct Network {
    netns: PathBuf,
    wiring: Wiring,
    endpoints: Vec<Endpoint>,
    interfaces: Vec<types::Interface>,
    routes: Vec<types::Route>,
    neighbours: Vec<types::ARPNeighbor>,
}

impl Network {
    /// Wires every interface of the namespace at `netns`. One without interfaces
    /// is an empty network, at once. What an earlier sandbox left there is
    /// removed first. Not cancel-safe: [`cleanup`] afterwards.
    ///
    /// # Errors
    /// See [`NetworkError`]; nothing is left behind.
    pub async fn attach(netns: &Path, wiring: Wiring, by: Deadline) -> Result<Self, NetworkError> {
        let mut network = Self {
            netns: netns.to_owned(),
            wiring,
            endpoints: Vec::new(),
            interfaces: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
        };
        if wiring.model != NetworkModel::None {
            in_time(netns, by, network.scan()).await?;
        }
        Ok(network)
    }

    /// Looks again until an interface has appeared or time is up; for hooks that
    /// make the pod's network after the virtual machine was started. Whether
    /// there are new cards in [`Network::nics`].
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub async fn rescan(&mut self, by: Deadline) -> Result<bool, NetworkError> {
        while self.wiring.model != NetworkModel::None && self.is_empty() && !by.passed() {
            let netns = self.netns.clone();
            in_time(&netns, by, self.scan()).await?;
            if !self.is_empty() {
                return Ok(true);
            }
            tokio::time::sleep(RESCAN.min(by.left())).await;
        }
        Ok(false)
    }

    /// Whether the pod has no interfaces.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The cards for QEMU, each handed out once. A tap lives as long as somebody
    /// holds its descriptors.
    pub fn nics(&mut self) -> Vec<Nic> {
        self.endpoints.iter_mut().filter_map(|endpoint| endpoint.nic.take()).collect()
    }

    /// Interfaces for the agent, in the order of the cards. For cards plugged in
    /// later the caller adds `devicePath`.
    pub fn interfaces(&self) -> &[types::Interface] {
        &self.interfaces
    }

    /// Routes for the agent, those without a gateway first.
    pub fn routes(&self) -> &[types::Route] {
        &self.routes
    }

    /// Neighbours for the agent.
    pub fn neighbors(&self) -> &[types::ARPNeighbor] {
        &self.neighbours
    }

    /// Gives the namespace back as it was, as far as it still exists. May be
    /// repeated.
    ///
    /// # Errors
    /// The first of all that went wrong; everything was tried.
    pub async fn detach(&mut self, by: Deadline) -> Result<(), NetworkError> {
        if self.endpoints.is_empty() || !self.netns.exists() {
            self.endpoints.clear();
            return Ok(());
        }
        let netns = self.netns.clone();
        in_time(&netns, by, async {
            let inside = Netns::open(&netns).await?;
            let mut result = Ok(());
            for endpoint in self.endpoints.drain(..) {
                result = result.and(endpoint.undo(&inside).await);
            }
            result
        })
        .await
    }

    async fn scan(&mut self) -> Result<(), NetworkError> {
        let inside = Netns::open(&self.netns).await?;
        if inside.links().await?.iter().any(Link::is_ours) {
            sweep(&inside).await?;
        }
        let seen = see(&inside).await?;
        let links = seen.endpoints();
        for (number, link) in links.iter().enumerate() {
            match wire(&inside, link.clone(), number, self.wiring).await {
                Ok(endpoint) => self.endpoints.push(endpoint),
                Err(error) => {
                    for endpoint in self.endpoints.drain(..) {
                        if let Err(error) = endpoint.undo(&inside).await {
                            tracing::warn!(error = %error, "network endpoint stays behind");
                        }
                    }
                    return Err(error);
                }
            }
        }
        self.interfaces = links.iter().map(|link| seen.interface(link)).collect();
        self.routes = seen.routes(&links);
        self.neighbours = seen.neighbours(&links);
        Ok(())
    }
}

/// Removes whatever any sandbox left in the namespace at `netns`, knowing only
/// names; a namespace that is gone is fine. Addresses a macvtap took from its
/// interface are not known any more and stay away.
///
/// # Errors
/// See [`NetworkError`].
pub async fn cleanup(netns: &Path, by: Deadline) -> Result<(), NetworkError> {
    if !netns.exists() {
        return Ok(());
    }
    in_time(netns, by, async { sweep(&Netns::open(netns).await?).await }).await
}

async fn in_time<T>(
    netns: &Path,
    by: Deadline,
    work: impl Future<Output = Result<T, NetworkError>>,
) -> Result<T, NetworkError> {
    let slow = |_| NetworkError::Slow { netns: netns.to_owned(), waited: by.total() };
    by.run(work).await.map_err(slow)?
}

/// Everything in the namespace the guest may have to know.
async fn see(inside: &Netns) -> Result<Seen, NetworkError> {
    let links = inside.links().await?;
    if links.is_empty() {
        return Ok(Seen::default());
    }
    let handle = &inside.handle;
    Ok(Seen {
        links,
        addresses: inside.list("addresses", handle.address().get().execute()).await?,
        routes: inside.list("routes", handle.route().get(RouteMessage::default()).execute()).await?,
        neighbours: inside.list::<NeighbourMessage>("neighbours", handle.neighbours().get().execute()).await?,
    })
}

async fn sweep(inside: &Netns) -> Result<(), NetworkError> {
    let links = inside.links().await?;
    let mut result = Ok(());
    for link in &links {
        let swept = match link {
            // It took the hardware address of the interface below.
            Link { base: Some(base), mac, .. } if link.is_ours() && link.is_macvtap() => {
                macvtap::take_off(inside, link, *mac, *base, None).await
            }
            _ if link.is_ours() => inside.remove(link).await,
            _ => inside.remove_ingress(link).await,
        };
        result = result.and(swept);
    }
    result
}

async fn wire(inside: &Netns, link: Link, number: usize, wiring: Wiring) -> Result<Endpoint, NetworkError> {
    let name = tap_name(number);
    let (tap, taps, borrowed) = match wiring.model {
        NetworkModel::MacVtap => {
            let (tap, borrowed) = macvtap::put_on(inside, &link, &name).await?;
            let opened = tap::open_macvtap(inside.path(), &name, tap.index, wiring.queues).await;
            match opened {
                Ok(taps) => (tap, taps, Some(borrowed)),
                Err(error) => {
                    undo(inside, &link, &tap, Some(&borrowed)).await?;
                    return Err(error);
                }
            }
        }
        NetworkModel::TcFilter | NetworkModel::None => {
            let taps = tap::create(inside.path(), &name, wiring.queues).await?;
            let tap = bring_up(inside, &link, &name).await?;
            tcfilter::connect(inside, &link, &tap).await?;
            (tap, taps, None)
        }
    };
    let vhosts = if wiring.vhost_net { tap::vhosts(wiring.queues) } else { Ok(Vec::new()) };
    match vhosts {
        Ok(vhosts) => Ok(Endpoint { nic: Some(nic(&link, &name, taps, vhosts)), link, tap, borrowed }),
        Err(error) => {
            undo(inside, &link, &tap, borrowed.as_ref()).await?;
            Err(error)
        }
    }
}

async fn bring_up(inside: &Netns, link: &Link, name: &str) -> Result<Link, NetworkError> {
    let made = inside.links().await?.into_iter().find(|made| made.name == name);
    let tap = made.ok_or_else(|| inside.doing(format!("find {name}"))(rtnetlink::Error::RequestFailed))?;
    inside.bring_up(&tap, link.mtu).await?;
    Ok(tap)
}

fn nic(link: &Link, name: &str, taps: Vec<OwnedFd>, vhosts: Vec<OwnedFd>) -> Nic {
    Nic { id: format!("network-{name}"), taps, vhosts, mac: link.mac, mtu: u16::try_from(link.mtu).ok() }
}

impl Endpoint {
    async fn undo(self, inside: &Netns) -> Result<(), NetworkError> {
        undo(inside, &self.link, &self.tap, self.borrowed.as_ref()).await
    }
}

/// Undoes the wiring of one interface, whichever way it was wired.
async fn undo(inside: &Netns, link: &Link, tap: &Link, borrowed: Option<&Borrowed>) -> Result<(), NetworkError> {
    match borrowed {
        Some(_) => macvtap::take_off(inside, tap, link.mac, link.index, borrowed).await,
        // The tap itself is its holder's, and a frame that was redirected nowhere is only lost.
        None => inside.remove_ingress(link).await.and(inside.remove(tap).await),
    }
}
