//! Changing a running machine: processors, memory, network cards, disks.
//!
//! A verb that fails undoes what it did. One that is dropped half-way may leave
//! a device behind; its slot then stays taken for the life of the machine.

mod cpu;
mod disk;
mod late;
mod memory;
mod nic;

pub use self::disk::Disk;
pub(super) use self::late::Late;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{
    command::FIRST_BRIDGE,
    error::HotplugError,
    machine::{Machine, Running},
    qmp::{Event, QmpError},
    spec::{Accelerator, Memory, PciPath, VmSpec},
};
use crate::{config::Mib, deadline::Deadline};

/// Slots of a bridge that take devices: 1 to 30.
const SLOTS: std::ops::RangeInclusive<u8> = 1..=30;

/// What can be added and what was.
#[derive(Debug)]
pub(super) struct Inventory {
    accelerator: Accelerator,
    bridges: u8,
    /// Devices behind bridges: name by bridge index and slot.
    slots: BTreeMap<(u8, u8), String>,
    memory: Memory,
    /// Memory devices added, in order.
    dimms: Vec<(String, Mib)>,
    /// Numbers the next memory device and descriptor name; never used twice.
    counter: u32,
}

impl Inventory {
    pub fn of(spec: &VmSpec) -> Self {
        Self {
            accelerator: spec.accelerator,
            bridges: spec.bridges,
            slots: BTreeMap::new(),
            memory: spec.memory.clone(),
            dimms: Vec::new(),
            counter: 0,
        }
    }

    fn next_number(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    /// Takes a free slot for a new device.
    fn take_slot(&mut self, id: &str) -> Result<Slot, HotplugError> {
        if self.slots.values().any(|present| present == id) {
            return Err(HotplugError::Present(id.to_owned()));
        }
        let mut all = (0..self.bridges).flat_map(|bridge| SLOTS.map(move |slot| (bridge, slot)));
        let (bridge, slot) =
            all.find(|place| !self.slots.contains_key(place)).ok_or_else(|| HotplugError::Slots(id.to_owned()))?;
        self.slots.insert((bridge, slot), id.to_owned());
        Ok(Slot { bridge, slot })
    }

    /// Where the device `id` sits, if it is behind a bridge.
    fn place(&self, id: &str) -> Option<PciPath> {
        let (&(bridge, slot), _) = self.slots.iter().find(|(_, present)| *present == id)?;
        Some(Slot { bridge, slot }.path())
    }

    fn free_slot(&mut self, id: &str) {
        self.slots.retain(|_, present| present != id);
    }

    fn holds(&self, id: &str) -> bool {
        self.slots.values().any(|present| present == id)
    }
}

/// A place behind a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    bridge: u8,
    slot: u8,
}

impl Slot {
    /// QEMU's name of the bridge.
    fn bus(self) -> String {
        format!("pci-bridge-{}", self.bridge)
    }

    /// Slot in QEMU's notation.
    fn addr(self) -> String {
        format!("{:x}", self.slot)
    }

    fn path(self) -> PciPath {
        PciPath::behind(FIRST_BRIDGE + self.bridge, self.slot)
    }
}

fn failed(action: &'static str, device: &str) -> impl FnOnce(QmpError) -> HotplugError {
    let device = device.to_owned();
    move |source| HotplugError::Qmp { action, device, source }
}

impl Machine<Running> {
    /// Where a device that was added sits, by the name it was added under; `None` for
    /// one that was there from the start.
    pub fn place(&self, id: &str) -> Option<PciPath> {
        self.state.inventory.place(id)
    }

    /// Takes away a network card or disk, by the name it was added under, and
    /// waits until the guest has let go of it.
    ///
    /// # Errors
    /// [`HotplugError::Held`] when the guest keeps it; it may be tried again.
    pub async fn remove(&mut self, id: &str, by: Deadline) -> Result<(), HotplugError> {
        if !self.state.inventory.holds(id) {
            return Err(HotplugError::Absent(id.to_owned()));
        }
        self.unplug(&frontend(id), by).await?;
        let (command, arguments) = match id.starts_with(nic::PREFIX) {
            true => ("netdev_del", json!({ "id": id })),
            false => ("blockdev-del", json!({ "node-name": id })),
        };
        self.state.qmp.execute(command, arguments, by).await.map_err(failed("free", id))?;
        self.state.inventory.free_slot(id);
        Ok(())
    }

    /// Asks the guest to release a device and waits for it.
    async fn unplug(&self, device: &str, by: Deadline) -> Result<(), HotplugError> {
        // Listen first: the event may come before the reply.
        let mut events = self.state.qmp.events();
        let deleted = async {
            loop {
                match events.recv().await {
                    Ok(Event::DeviceDeleted(Some(gone))) if gone == device => return Ok(()),
                    Ok(_) => {}
                    // Ours may be among the missed ones: asking again tells.
                    Err(RecvError::Lagged(_)) => match self.delete(device, by).await {
                        Err(error) if error.kind() == osc_agent_protocol::Kind::NotFound => return Ok(()),
                        Err(QmpError::Refused { .. }) | Ok(()) => {}
                        Err(error) => return Err(error),
                    },
                    Err(RecvError::Closed) => return Err(QmpError::Lost { command: "device_del" }),
                }
            }
        };
        match self.delete(device, by).await {
            // An earlier attempt that timed out may have succeeded since.
            Err(error) if error.kind() == osc_agent_protocol::Kind::NotFound => return Ok(()),
            result => result.map_err(failed("remove", device))?,
        }
        match by.run(deleted).await {
            Ok(result) => result.map_err(failed("remove", device)),
            Err(elapsed) => Err(HotplugError::Held { device: device.to_owned(), waited: elapsed.0 }),
        }
    }

    async fn delete(&self, device: &str, by: Deadline) -> Result<(), QmpError> {
        self.state.qmp.execute("device_del", json!({ "id": device }), by).await
    }

    /// Adds a device whose back end exists, in a slot taken for it. On failure
    /// the slot is free again and `undo` has removed the back end.
    async fn plug(
        &mut self,
        id: &str,
        slot: Slot,
        mut device: Value,
        undo: (&'static str, Value),
        by: Deadline,
    ) -> Result<PciPath, HotplugError> {
        device["id"] = frontend(id).into();
        device["bus"] = slot.bus().into();
        device["addr"] = slot.addr().into();
        let Err(source) = self.state.qmp.execute("device_add", device, by).await else {
            return Ok(slot.path());
        };
        self.state.inventory.free_slot(id);
        if let Err(error) = self.state.qmp.execute(undo.0, undo.1, by).await {
            tracing::warn!(device = id, error = %error, "back end of a refused device stays");
        }
        Err(failed("add", id)(source))
    }
}

/// Name of the device the guest sees, given the name of its back end.
fn frontend(id: &str) -> String {
    format!("virtio-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::spec::MemoryBackend;

    fn inventory(bridges: u8) -> Inventory {
        let memory =
            Memory { boot: Mib(256), max: Mib(1024), slots: 2, backend: MemoryBackend::Memfd, prealloc: false };
        Inventory {
            accelerator: Accelerator::TCG,
            bridges,
            slots: BTreeMap::new(),
            memory,
            dimms: Vec::new(),
            counter: 0,
        }
    }

    #[test]
    fn slots_fill_bridge_by_bridge_and_are_used_again() {
        let mut inventory = inventory(2);
        for n in 0..60 {
            let slot = inventory.take_slot(&format!("d{n}")).unwrap();
            assert_eq!((slot.bridge, slot.slot), (n / 30, n % 30 + 1));
        }
        assert!(matches!(inventory.take_slot("late"), Err(HotplugError::Slots(_))));
        inventory.free_slot("d31");
        assert_eq!(inventory.take_slot("late").unwrap().path().to_string(), "03/02");
        assert!(matches!(inventory.take_slot("late"), Err(HotplugError::Present(_))));
    }
}
