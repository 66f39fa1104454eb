//! Network cards.

use serde_json::json;

use super::failed;
use crate::{
    deadline::Deadline,
    qemu::{
        command::{mac_text, nic_vectors},
        error::HotplugError,
        machine::{Machine, Running},
        spec::{Nic, PciPath},
    },
};

/// Names of network cards begin with this; it tells them from disks.
pub(super) const PREFIX: &str = "network-";

impl Machine<Running> {
    /// Adds a network card and says where the guest finds it.
    ///
    /// # Errors
    /// [`HotplugError`]; nothing is left then.
    pub async fn add_nic(&mut self, nic: Nic, by: Deadline) -> Result<PciPath, HotplugError> {
        let Nic { id, taps, vhosts, mac, mtu } = nic;
        let slot = self.state.inventory.take_slot(&id)?;
        let queues = taps.len();
        let mut device = json!({ "driver": "virtio-net-pci", "netdev": id, "mac": mac_text(mac), "disable-legacy": "on", "romfile": "" });
        if queues > 1 {
            device["mq"] = true.into();
            device["vectors"] = nic_vectors(queues).into();
        }
        if let Some(mtu) = mtu {
            device["host_mtu"] = mtu.into();
        }
        if let Err(error) = self.add_tap(&id, taps, vhosts, by).await {
            self.state.inventory.free_slot(&id);
            return Err(error);
        }
        self.plug(&id, slot, device, ("netdev_del", json!({ "id": id })), by).await
    }

    async fn add_tap(
        &mut self,
        id: &str,
        taps: Vec<std::os::fd::OwnedFd>,
        vhosts: Vec<std::os::fd::OwnedFd>,
        by: Deadline,
    ) -> Result<(), HotplugError> {
        let mut netdev = json!({ "type": "tap", "id": id, "fds": self.give_all(id, taps, by).await? });
        if !vhosts.is_empty() {
            netdev["vhost"] = true.into();
            netdev["vhostfds"] = self.give_all(id, vhosts, by).await?.into();
        }
        self.state.qmp.execute("netdev_add", netdev, by).await.map_err(failed("add", id))
    }

    /// Hands descriptors over; gives the list of their names.
    pub(super) async fn give_all(
        &mut self,
        id: &str,
        descriptors: Vec<std::os::fd::OwnedFd>,
        by: Deadline,
    ) -> Result<String, HotplugError> {
        let mut names = Vec::new();
        for descriptor in descriptors {
            // A name that starts with a digit would be taken for a number.
            let name = format!("fd-{}", self.state.inventory.next_number());
            self.state.qmp.give(&name, descriptor, by).await.map_err(failed("hand a descriptor to", id))?;
            names.push(name);
        }
        Ok(names.join(":"))
    }
}
