//! Devices of a machine that goes on from a saved state.
//!
//! Their other side belongs to one sandbox, so no saved machine has them. They are
//! added while the machine stands still: the guest finds all of them in one scan, in
//! the order of their slots. The socket device is the last, so that an agent that
//! can be reached has the others already.

use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use super::failed;
use crate::{
    deadline::Deadline,
    qemu::{
        command::VsockLink,
        error::HotplugError,
        machine::{Machine, Running},
        spec::{Nic, SharedFs},
    },
};

const SHARE: &str = "share";
const VSOCK: &str = "vsock";

/// What to add, with everything connected already.
#[derive(Debug, Default)]
pub(in crate::qemu) struct Late {
    pub share: Option<(SharedFs, OwnedFd)>,
    pub nics: Vec<Nic>,
    pub vsock: Option<VsockLink>,
}

impl Machine<Running> {
    /// Adds all of it.
    pub(in crate::qemu) async fn add_late(&mut self, late: Late, by: Deadline) -> Result<(), HotplugError> {
        if let Some((SharedFs { tag, queue_size, .. }, socket)) = late.share {
            self.add_chardev(SHARE, socket, by).await?;
            let device = json!({
                "driver": "vhost-user-fs-pci", "chardev": SHARE, "tag": tag, "queue-size": queue_size, "romfile": "",
            });
            self.add_connected(SHARE, device, by).await?;
        }
        for nic in late.nics {
            self.add_nic(nic, by).await?;
        }
        let device = match late.vsock {
            None => return Ok(()),
            Some(VsockLink::User(socket)) => {
                self.add_chardev(VSOCK, socket, by).await?;
                json!({ "driver": "vhost-user-vsock-pci", "chardev": VSOCK, "romfile": "" })
            }
            Some(VsockLink::Kernel { fd, cid }) => {
                let name = self.give_all(VSOCK, vec![fd], by).await?;
                json!({
                    "driver": "vhost-vsock-pci", "vhostfd": name, "guest-cid": cid, "disable-legacy": "on",
                    "romfile": "",
                })
            }
        };
        self.add_connected(VSOCK, device, by).await
    }

    /// Adds a device whose back end only the end of the machine removes.
    async fn add_connected(&mut self, id: &str, mut device: Value, by: Deadline) -> Result<(), HotplugError> {
        let slot = self.state.inventory.take_slot(id)?;
        device["id"] = id.into();
        device["bus"] = slot.bus().into();
        device["addr"] = slot.addr().into();
        self.state.qmp.execute("device_add", device, by).await.map_err(failed("add", id))
    }

    async fn add_chardev(&mut self, id: &str, socket: OwnedFd, by: Deadline) -> Result<(), HotplugError> {
        let name = self.give_all(id, vec![socket], by).await?;
        let address = json!({ "type": "fd", "data": { "str": name } });
        let socket = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        let chardev = json!({ "id": id, "backend": socket });
        self.state.qmp.execute("chardev-add", chardev, by).await.map_err(failed("connect", id))
    }
}
