//! Interfaces of a namespace, and what can be asked of them.

use rtnetlink::{
    LinkMessageBuilder, LinkUnspec,
    packet_route::{
        address::AddressMessage,
        link::{
            AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
            LinkMessage,
        },
        tc::TcHandle,
    },
};

use super::{error::NetworkError, netns::Netns};

/// An interface of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// `IFF_…`
    pub flags: LinkFlags,
    /// `veth`, `macvtap`…; empty for hardware.
    pub kind: String,
    /// The interface it sits on, for those that sit on one.
    pub base: Option<u32>,
}

impl Link {
    /// What a message says of an interface that carries Ethernet; `None` for
    /// loopback, tunnels and the like.
    pub fn of(message: &LinkMessage) -> Option<Self> {
        if message.header.link_layer_type != LinkLayerType::Ether {
            return None;
        }
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 1500,
            flags: message.header.flags,
            kind: String::new(),
            base: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok()?,
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(base) => link.base = Some(*base),
                LinkAttribute::LinkInfo(info) => link.kind = kind_of(info),
                _ => {}
            }
        }
        Some(link)
    }

    /// Whether it is one of ours: `tap<n>_kata`.
    pub fn is_ours(&self) -> bool {
        let number = self.name.strip_prefix("tap").and_then(|rest| rest.strip_suffix("_kata"));
        number.is_some_and(|number| number.parse::<u16>().is_ok())
    }

    /// Whether it is a macvtap.
    pub fn is_macvtap(&self) -> bool {
        self.kind == "macvtap"
    }
}

/// Our name for the device that belongs to endpoint `number`.
pub fn tap_name(number: usize) -> String {
    format!("tap{number}_kata")
}

fn kind_of(info: &[LinkInfo]) -> String {
    let mut kinds = info.iter().filter_map(|info| match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    });
    kinds.next_back().unwrap_or_default()
}

/// A change of the interface `index`.
fn change(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

impl Netns {
    /// All interfaces that carry Ethernet.
    pub async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        let messages = self.list("interfaces", self.handle.link().get().execute()).await?;
        Ok(messages.iter().filter_map(Link::of).collect())
    }

    /// Sets MTU and brings a device of ours up, without addresses of its own:
    /// what it says for itself would reach the guest.
    pub async fn bring_up(&self, link: &Link, mtu: u32) -> Result<(), NetworkError> {
        let quiet = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let quiet = change(link.index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![quiet])).build();
        if let Err(error) = self.handle.link().set(quiet).execute().await {
            // A host without IPv6 has nothing to be told.
            tracing::debug!(interface = %link.name, error = %error, "interface keeps its IPv6 settings");
        }
        let up = change(link.index).mtu(mtu).up().build();
        self.handle.link().set(up).execute().await.map_err(self.doing(format!("bring {} up", link.name)))
    }

    /// Gives an interface a hardware address.
    pub async fn set_mac(&self, index: u32, mac: [u8; 6]) -> Result<(), NetworkError> {
        let message = change(index).address(mac.to_vec()).build();
        let action = format!("set the hardware address of interface {index}");
        self.handle.link().set(message).execute().await.map_err(self.doing(action))
    }

    /// Lets frames to every multicast group through an interface.
    pub async fn hear_all_groups(&self, link: &Link) -> Result<(), NetworkError> {
        let message = change(link.index).allmulticast(true).build();
        let action = format!("let multicast frames through {}", link.name);
        self.handle.link().set(message).execute().await.map_err(self.doing(action))
    }

    /// Removes an interface; one that is gone is fine.
    pub async fn remove(&self, link: &Link) -> Result<(), NetworkError> {
        let removed = self.handle.link().del(link.index).execute().await;
        unless_absent(removed).map_err(self.doing(format!("remove {}", link.name)))
    }

    /// Takes an address off its interface; one that is gone is fine.
    pub async fn remove_address(&self, address: AddressMessage) -> Result<(), NetworkError> {
        let removed = self.handle.address().del(address).execute().await;
        unless_absent(removed).map_err(self.doing("remove an address"))
    }

    /// Removes the ingress queue of an interface with all its filters; one that
    /// has none is fine.
    pub async fn remove_ingress(&self, link: &Link) -> Result<(), NetworkError> {
        let mut request = self.handle.qdisc().del(link.index as i32);
        request.message_mut().header.parent = TcHandle::INGRESS;
        let removed = request.execute().await;
        unless_absent(removed).map_err(self.doing(format!("remove the ingress queue of {}", link.name)))
    }
}

/// What is not there need not be removed.
fn unless_absent(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    use nix::libc::{EADDRNOTAVAIL, EINVAL, ENODEV, ENOENT};
    match result {
        // EINVAL: an interface without an ingress queue.
        Err(rtnetlink::Error::NetlinkError(message))
            if [ENODEV, ENOENT, EADDRNOTAVAIL, EINVAL].contains(&-message.raw_code()) =>
        {
            Ok(())
        }
        other => other,
    }
}
