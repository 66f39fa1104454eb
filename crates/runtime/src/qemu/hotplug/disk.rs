//! Disks: files and block devices of the host.

use std::path::PathBuf;

use serde_json::json;

use super::failed;
use crate::{
    deadline::Deadline,
    qemu::{
        error::HotplugError,
        machine::{Machine, Running},
        spec::PciPath,
    },
};

/// A disk to be added.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Name of the block node, for [`Machine::remove`]; at most 31 characters
    /// (a limit of QEMU), must not begin with `network-`.
    pub id: String,
    /// Raw image or block device.
    pub path: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
    /// Bypass the host's page cache.
    pub direct: bool,
}

impl Machine<Running> {
    /// Adds a virtio-blk disk and says where the guest finds it.
    ///
    /// # Errors
    /// [`HotplugError`]; nothing is left then.
    pub async fn add_disk(&mut self, disk: Disk, by: Deadline) -> Result<PciPath, HotplugError> {
        let Disk { id, path, read_only, direct } = disk;
        let slot = self.state.inventory.take_slot(&id)?;
        let driver = if path.is_file() { "file" } else { "host_device" };
        let node = json!({
            "node-name": id,
            "driver": "raw",
            "read-only": read_only,
            "cache": { "direct": direct, "no-flush": false },
            "file": { "driver": driver, "filename": path.to_string_lossy(), "cache": { "direct": direct, "no-flush": false } },
        });
        if let Err(source) = self.state.qmp.execute("blockdev-add", node, by).await {
            self.state.inventory.free_slot(&id);
            return Err(failed("open disk", &id)(source));
        }
        let device = json!({
            "driver": "virtio-blk-pci", "drive": id, "disable-legacy": "on", "share-rw": true, "romfile": "",
        });
        self.plug(&id, slot, device, ("blockdev-del", json!({ "node-name": id })), by).await
    }
}
