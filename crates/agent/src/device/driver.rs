//! Drivers that are loaded when the first device needs them.
//!
//! A guest loads at start what every guest uses; disks are rarer. There is no
//! daemon here that would load drivers as devices appear.

use std::{path::Path, process::Command, time::Duration};

use super::Address;
use crate::{boot::SEARCH_PATH, container::reaper::Reaper};

const MODPROBE: &str = "/sbin/modprobe";
/// Longest time one driver and what it needs may take to load.
const PATIENCE: Duration = Duration::from_secs(10);

/// Loads the drivers a device at `address` may need. A driver that is built in or
/// missing is no failure here: the device appears or is waited for in vain.
pub(super) async fn load_for(address: &Address, reaper: &Reaper) {
    if !Path::new(MODPROBE).exists() {
        return;
    }
    for module in modules(address).iter().filter(|module| !Path::new("/sys/module").join(module).exists()) {
        let mut command = Command::new(MODPROBE);
        command.args(["-q", module]).env_clear().env("PATH", SEARCH_PATH);
        match reaper.run(command, &[], PATIENCE).await {
            Ok(finished) => tracing::debug!(module, status = finished.status, "driver asked for"),
            Err(error) => tracing::warn!(module, error = %error, "driver not loaded"),
        }
    }
}

fn modules(address: &Address) -> &'static [&'static str] {
    match address {
        Address::Pci(_) => &["virtio_blk"],
        Address::Scsi { .. } => &["virtio_scsi", "sd_mod"],
        Address::Node(node) if name_begins(node, "pmem") => &["nfit", "nd_pmem"],
        Address::Node(_) => &["virtio_mmio", "virtio_blk"],
    }
}

fn name_begins(node: &Path, start: &str) -> bool {
    node.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_disk_has_its_drivers() {
        for (driver, text, want) in [
            ("blk", "02/01", "virtio_blk"),
            ("scsi", "0:1", "sd_mod"),
            ("mmioblk", "/dev/vda", "virtio_mmio"),
            ("nvdimm", "/dev/pmem0", "nd_pmem"),
        ] {
            let address = Address::of_driver(driver, text).unwrap().unwrap();
            assert!(modules(&address).contains(&want), "{driver}");
        }
    }
}
