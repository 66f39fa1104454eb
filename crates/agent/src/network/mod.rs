//! The guest's network, set up as the host tells it over route netlink.

mod address;
mod iptables;
mod link;
mod neighbour;
mod route;

use std::{io, net::IpAddr, sync::Arc};

use osc_agent_protocol::{Kind, agent, types};
use rtnetlink::Handle;
use tokio::sync::OnceCell;

use crate::{
    container::reaper::Reaper,
    device::{BadAddress, DeviceError, Devices},
};

/// A network request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No socket to the kernel.
    #[error("cannot reach the kernel's network configuration")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {action} {object}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A field does not hold what it must.
    #[error("{field} {value:?} is not usable: {wanted}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// No interface fits. Runtimes recognise the first words and try again,
    /// because a plugged interface may take a moment to appear.
    #[error("Link not found ({by}): check that the host plugged the interface")]
    NoLink {
        /// What was looked for.
        by: String,
    },
    /// The interface behind a PCI path did not appear.
    #[error("interface {name:?} did not appear")]
    Device {
        /// Name it was to get.
        name: String,
        /// Why.
        source: DeviceError,
    },
    /// The PCI path of an interface does not follow its grammar.
    #[error("interface {name:?} cannot be located")]
    Address {
        /// Name it was to get.
        name: String,
        /// Why.
        source: BadAddress,
    },
    /// A program is missing from the guest image.
    #[error("this guest has no {program}: use a guest image with iptables")]
    NoProgram {
        /// The program.
        program: &'static str,
    },
    /// A program did not do its work.
    #[error("{program} ended with status {status}: {said}")]
    Program {
        /// The program.
        program: &'static str,
        /// Its exit status.
        status: i32,
        /// The end of what it wrote to standard error.
        said: String,
    },
    /// A program could not be run.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl NetworkError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Socket(source) | Self::Refused { source, .. } | Self::Run { source, .. } => Kind::of_io(source),
            Self::Invalid { .. } | Self::Address { .. } => Kind::Invalid,
            Self::NoLink { .. } => Kind::NotFound,
            Self::Device { source, .. } => source.kind(),
            Self::NoProgram { .. } => Kind::Unsupported,
            Self::Program { .. } => Kind::Bug,
        }
    }
}

type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// The guest's network.
pub struct Network {
    devices: Arc<Devices>,
    reaper: Reaper,
    handle: OnceCell<Handle>,
}

impl Network {
    /// A network whose interfaces are found among `devices`. The socket to the
    /// kernel is opened when first needed.
    pub fn new(devices: Arc<Devices>, reaper: Reaper) -> Self {
        Self { devices, reaper, handle: OnceCell::new() }
    }

    /// Configures one interface and returns it as asked for.
    ///
    /// # Errors
    /// [`NetworkError`]; the interface may be left half configured, and asking
    /// again starts over.
    pub async fn update_interface(&self, wanted: types::Interface) -> Result<types::Interface> {
        let handle = self.handle().await?;
        let link = self.find(handle, &wanted).await?;
        link::configure(handle, link, &wanted).await?;
        Ok(wanted)
    }

    async fn find(&self, handle: &Handle, wanted: &types::Interface) -> Result<link::Link> {
        if wanted.devicePath.is_empty() {
            return link::find(handle, wanted).await;
        }
        let name = || wanted.name.clone();
        let path = wanted.devicePath.parse().map_err(|source| NetworkError::Address { name: name(), source })?;
        let found = self.devices.network_interface(&path).await;
        let found = found.map_err(|source| NetworkError::Device { name: name(), source })?;
        link::by_name(handle, &found).await?.ok_or(NetworkError::NoLink { by: found })
    }

    /// All interfaces with their addresses.
    ///
    /// # Errors
    /// [`NetworkError`] when the kernel does not answer.
    pub async fn interfaces(&self) -> Result<Vec<types::Interface>> {
        link::list(self.handle().await?).await
    }

    /// Replaces the routes of the main table and returns them as asked for.
    ///
    /// # Errors
    /// [`NetworkError`] of the first route that cannot be set.
    pub async fn update_routes(&self, wanted: agent::Routes) -> Result<agent::Routes> {
        route::replace(self.handle().await?, &wanted.Routes).await?;
        Ok(wanted)
    }

    /// The routes of the main table, those the kernel made itself included.
    ///
    /// # Errors
    /// [`NetworkError`] when the kernel does not answer.
    pub async fn routes(&self) -> Result<Vec<types::Route>> {
        route::list(self.handle().await?).await
    }

    /// Adds entries to the neighbour table.
    ///
    /// # Errors
    /// [`NetworkError`] of the first entry that cannot be added.
    pub async fn add_neighbours(&self, wanted: &[types::ARPNeighbor]) -> Result<()> {
        let handle = self.handle().await?;
        for entry in wanted {
            neighbour::add(handle, entry).await?;
        }
        Ok(())
    }

    /// Brings the loopback interface up.
    ///
    /// # Errors
    /// [`NetworkError`] when there is none or the kernel refuses.
    pub async fn loopback_up(&self) -> Result<()> {
        link::loopback_up(self.handle().await?).await
    }

    /// The packet filter's rules in the format of `iptables-save`.
    ///
    /// # Errors
    /// [`NetworkError::NoProgram`] in an image without iptables.
    pub async fn iptables(&self, ipv6: bool) -> Result<Vec<u8>> {
        iptables::save(&self.reaper, ipv6).await
    }

    /// Replaces the packet filter's rules.
    ///
    /// # Errors
    /// [`NetworkError::NoProgram`] in an image without iptables.
    pub async fn set_iptables(&self, ipv6: bool, rules: &[u8]) -> Result<Vec<u8>> {
        iptables::restore(&self.reaper, ipv6, rules).await
    }

    async fn handle(&self) -> Result<&Handle> {
        let open = || async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Socket)?;
            // Ends when the last handle is dropped.
            tokio::spawn(connection);
            Ok(handle)
        };
        self.handle.get_or_try_init(open).await
    }
}

fn refused(action: &'static str, object: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let object = object.into();
    move |error| NetworkError::Refused { action, object, source: os_error(error) }
}

fn os_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn ip(field: &'static str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| NetworkError::Invalid { field, value: text.into(), wanted: "give an IP address" })
}

fn family(address: IpAddr) -> types::IPFamily {
    if address.is_ipv6() { types::IPFamily::v6 } else { types::IPFamily::v4 }
}

#[cfg(test)]
mod tests;
