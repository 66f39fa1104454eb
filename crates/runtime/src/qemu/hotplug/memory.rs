//! Memory.

use serde_json::json;

use super::failed;
use crate::{
    config::Mib,
    deadline::Deadline,
    qemu::{
        command::memory_backend,
        error::HotplugError,
        machine::{Machine, Running},
    },
};

/// Smallest piece a Linux guest can bring online.
const BLOCK: Mib = Mib(128);
/// A guest needs 1/64 of new memory to describe it, out of what it has; more
/// than this many times its memory at once starves it.
const GROWTH: u64 = 48;

/// How much to add in one step towards `wanted` more, given what is there and
/// the limit: whole blocks, rounded up as long as the limit allows.
fn step(present: Mib, max: Mib, wanted: Mib) -> Mib {
    let left = max.0.saturating_sub(present.0);
    let most = left.min(present.0.saturating_mul(GROWTH)) / BLOCK.0 * BLOCK.0;
    Mib(wanted.0.div_ceil(BLOCK.0).saturating_mul(BLOCK.0).min(most))
}

impl Machine<Running> {
    /// Memory there is now.
    pub fn memory(&self) -> Mib {
        let inventory = &self.state.inventory;
        Mib(inventory.memory.boot.0 + inventory.dimms.iter().map(|(_, size)| size.0).sum::<u64>())
    }

    /// Adds memory in one step, which the guest must then bring online. The step
    /// is in whole blocks of 128 MiB and may be less than `wanted` when that is
    /// too much for the guest at once; then bring it online and go on. Returns
    /// what was added.
    ///
    /// # Errors
    /// [`HotplugError`]; nothing is left then.
    pub async fn add_memory(&mut self, wanted: Mib, by: Deadline) -> Result<Mib, HotplugError> {
        let (present, inventory) = (self.memory(), &mut self.state.inventory);
        let max = inventory.memory.max;
        let size = step(present, max, wanted);
        let slots = inventory.memory.slots.saturating_sub(inventory.dimms.len() as u8);
        if size.0 == 0 || slots == 0 {
            return Err(HotplugError::Memory { wanted, left: Mib(max.0.saturating_sub(present.0)), slots });
        }
        let number = inventory.next_number();
        let (object, device) = (format!("mem{number}"), format!("dimmmem{number}"));
        let backend = memory_backend(&inventory.memory, &object, size);
        let qmp = &self.state.qmp;
        qmp.execute("object-add", backend, by).await.map_err(failed("allocate", &object))?;
        let dimm = json!({ "driver": "pc-dimm", "id": device, "memdev": object });
        if let Err(source) = qmp.execute("device_add", dimm, by).await {
            if let Err(error) = qmp.execute("object-del", json!({ "id": object }), by).await {
                tracing::warn!(device = object, error = %error, "back end of a refused device stays");
            }
            return Err(failed("add", &device)(source));
        }
        self.state.inventory.dimms.push((device, size));
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_blocks_the_guest_can_bear() {
        let rows = [
            // present, max, wanted, step
            (2048, 8192, 128, 128),
            (2048, 8192, 1, 128),
            (2048, 8192, 129, 256),
            (2048, 2100, 64, 0),
            (2048, 2304, 1000, 256),
            (2048, 2048, 128, 0),
            (128, 65536, 10000, 6144),
            (4096, 1024, 128, 0),
        ];
        for (present, max, wanted, want) in rows {
            assert_eq!(step(Mib(present), Mib(max), Mib(wanted)), Mib(want), "{present} {max} {wanted}");
        }
    }
}
