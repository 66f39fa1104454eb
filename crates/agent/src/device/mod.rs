//! Devices the host plugs in, from the address it names to the node a container
//! gets.
//!
//! The kernel says what it found in sysfs and announces changes by uevent. A wait
//! for a device looks in sysfs first and again after each announcement, so a
//! device that came early, late or twice is all the same.

mod address;
mod driver;
mod rewrite;
mod uevent;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use osc_agent_protocol::{Kind, agent, oci};
use tokio::time::{Instant, timeout_at};

use crate::container::reaper::Reaper;

pub use address::{Address, BadAddress, PciPath};
pub use uevent::Uevents;

/// Device types the agent resolves, in the words of the protocol.
pub const TYPES: &[&str] = &["blk", "mmioblk", "scsi", "nvdimm"];

/// A device that cannot be given to a container.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The address cannot be understood.
    #[error("device {id:?} cannot be located")]
    Address {
        /// Identifier the host gave it.
        id: String,
        /// Why.
        #[source]
        source: BadAddress,
    },
    /// The type is not one of [`TYPES`].
    #[error("devices of type {0:?} are not supported: use one of blk, mmioblk, scsi, nvdimm")]
    Unsupported(String),
    /// The kernel did not announce the device in time.
    #[error(
        "device {what} did not appear within {waited:?}: check that the host plugged it, or raise agent.hotplug_timeout"
    )]
    Silent {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The container's specification has no such device.
    #[error("device {path:?} is not in the container's device list")]
    NotInSpec {
        /// Path inside the container.
        path: String,
    },
    /// The kernel's description of the device cannot be read.
    #[error("cannot read {}", path.display())]
    Sysfs {
        /// The sysfs file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DeviceError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } | Self::NotInSpec { .. } => Kind::Invalid,
            Self::Unsupported(_) => Kind::Unsupported,
            Self::Silent { .. } => Kind::Timeout,
            Self::Sysfs { source, .. } => Kind::of_io(source),
        }
    }
}

/// A block device of this guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its node, such as `/dev/vda`.
    pub node: PathBuf,
    /// Major device number.
    pub major: i64,
    /// Minor device number.
    pub minor: i64,
}

/// Finds devices by address.
pub struct Devices {
    sysfs: PathBuf,
    nodes: PathBuf,
    uevents: Uevents,
    patience: Duration,
    /// Runs the program that loads drivers; `None` leaves drivers alone.
    loader: Option<Reaper>,
}

impl Devices {
    /// Finds devices of the running kernel, waiting up to `patience` for each.
    pub fn new(uevents: Uevents, patience: Duration) -> Self {
        Self { sysfs: "/sys".into(), nodes: "/dev".into(), uevents, patience, loader: None }
    }

    /// Loads drivers of disks when they are first needed.
    #[must_use]
    pub fn loading_drivers(mut self, reaper: Reaper) -> Self {
        self.loader = Some(reaper);
        self
    }

    /// Waits for the block device at `address`.
    ///
    /// # Errors
    /// [`DeviceError`] when the time is up or the kernel's description is odd.
    pub async fn block(&self, address: &Address) -> Result<Block, DeviceError> {
        if let Some(reaper) = &self.loader
            && address.block_directory(&self.sysfs).is_none()
        {
            driver::load_for(address, reaper).await;
        }
        if let Address::Scsi { target, lun } = address {
            self.scan_scsi(*target, *lun)?;
        }
        let directory = self.wait(&address.to_string(), || address.block_directory(&self.sysfs)).await?;
        let name = directory.file_name().map(PathBuf::from).unwrap_or_default();
        let node = self.nodes.join(&name);
        // The directory appears before the node does.
        self.wait(&node.display().to_string(), || node.exists().then_some(())).await?;
        let (major, minor) = numbers(&directory.join("dev"))?;
        Ok(Block { node, major, minor })
    }

    /// Waits for the network interface behind a PCI address and returns its name.
    ///
    /// # Errors
    /// [`DeviceError`] when the time is up.
    pub async fn network_interface(&self, path: &PciPath) -> Result<String, DeviceError> {
        self.wait(&format!("at PCI path {path}"), || path.network_interface(&self.sysfs)).await
    }

    /// Resolves every device of a request and gives the specification the numbers
    /// they have in this guest.
    ///
    /// # Errors
    /// [`DeviceError`] of the first device that cannot be resolved; the
    /// specification is then unchanged.
    pub async fn resolve(&self, devices: &[agent::Device], spec: &mut oci::Spec) -> Result<(), DeviceError> {
        let mut found = Vec::with_capacity(devices.len());
        for device in devices {
            let block = self.block(&Address::of_device(device)?).await?;
            found.push((device.container_path.as_str(), block));
        }
        rewrite::apply(&found, spec)
    }

    /// Asks every SCSI host to look for the device; hosts that do not have it
    /// ignore the request.
    fn scan_scsi(&self, target: u32, lun: u32) -> Result<(), DeviceError> {
        let hosts = self.sysfs.join("class/scsi_host");
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| DeviceError::Sysfs { path, source }
        };
        for host in fs::read_dir(&hosts).map_err(failed(&hosts))?.flatten() {
            let scan = host.path().join("scan");
            fs::write(&scan, format!("0 {target} {lun}")).map_err(failed(&scan))?;
        }
        Ok(())
    }

    /// Waits until `find` finds something, looking again after every change.
    async fn wait<T>(&self, what: &str, find: impl Fn() -> Option<T>) -> Result<T, DeviceError> {
        let mut changes = self.uevents.changes();
        let deadline = Instant::now() + self.patience;
        loop {
            changes.mark_unchanged();
            if let Some(found) = find() {
                return Ok(found);
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(DeviceError::Silent { what: what.to_owned(), waited: self.patience });
            }
        }
    }
}

/// Reads a `major:minor` file.
fn numbers(path: &Path) -> Result<(i64, i64), DeviceError> {
    let failed = |source| DeviceError::Sysfs { path: path.to_path_buf(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    text.trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("agent-device-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("dev")).unwrap();
            Self(root)
        }

        fn devices(&self, uevents: Uevents, patience: Duration) -> Devices {
            Devices { sysfs: self.0.join("sys"), nodes: self.0.join("dev"), uevents, patience, loader: None }
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const DISK: &str = "sys/devices/pci0000:00/0000:00:02.0/0000:01:01.0/virtio3/block/vda/dev";

    #[tokio::test]
    async fn a_disk_behind_a_bridge_is_found_when_it_comes() {
        let tree = Tree::new("late");
        tree.write("sys/devices/pci0000:00/0000:00:02.0/pci_bus/0000:01/x", "");
        let uevents = Uevents::default();
        let devices = tree.devices(uevents.clone(), Duration::from_secs(20));
        let address = Address::Pci("02/01".parse().unwrap());
        let waiting = devices.block(&address);
        let plugging = async {
            tree.write(DISK, "254:16\n");
            uevents.announce();
            tokio::task::yield_now().await;
            tree.write("dev/vda", "");
            uevents.announce();
        };
        let (found, ()) = tokio::join!(waiting, plugging);
        assert_eq!(found.unwrap(), Block { node: tree.0.join("dev/vda"), major: 254, minor: 16 });
    }

    #[tokio::test]
    async fn a_disk_that_never_comes_is_given_up() {
        let tree = Tree::new("never");
        let devices = tree.devices(Uevents::default(), Duration::from_millis(20));
        let error = devices.block(&Address::Pci("05".parse().unwrap())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
        assert!(error.to_string().contains("05"), "{error}");
    }

    #[tokio::test]
    async fn a_scsi_disk_is_scanned_for() {
        let tree = Tree::new("scsi");
        tree.write("sys/class/scsi_host/host0/scan", "");
        tree.write("sys/bus/scsi/devices/0:0:1:3/block/sda/dev", "8:0");
        tree.write("dev/sda", "");
        let devices = tree.devices(Uevents::default(), Duration::from_millis(20));
        let block = devices.block(&Address::Scsi { target: 1, lun: 3 }).await.unwrap();
        assert_eq!((block.major, block.minor), (8, 0));
        assert_eq!(fs::read_to_string(tree.0.join("sys/class/scsi_host/host0/scan")).unwrap(), "0 1 3");
    }

    #[tokio::test]
    async fn an_interface_is_found_by_slot() {
        let tree = Tree::new("net");
        tree.write("sys/devices/pci0000:00/0000:00:03.0/virtio1/net/eth0/address", "02:00:00:00:00:01");
        let devices = tree.devices(Uevents::default(), Duration::from_millis(20));
        assert_eq!(devices.network_interface(&"03".parse().unwrap()).await.unwrap(), "eth0");
    }

    #[tokio::test]
    async fn a_spec_gets_the_numbers_of_this_guest() {
        let tree = Tree::new("spec");
        tree.write("sys/class/block/pmem1/dev", "259:4");
        tree.write("dev/pmem1", "");
        let devices = tree.devices(Uevents::default(), Duration::from_millis(20));
        let request = agent::Device {
            type_: "nvdimm".into(),
            vm_path: "/dev/pmem1".into(),
            container_path: "/dev/data".into(),
            ..Default::default()
        };
        let mut spec = oci::Spec::new();
        let node = oci::LinuxDevice { Path: "/dev/data".into(), Type: "b".into(), Major: 7, ..Default::default() };
        spec.Linux.mut_or_insert_default().Devices.push(node);
        devices.resolve(&[request], &mut spec).await.unwrap();
        assert_eq!((spec.Linux.Devices[0].Major, spec.Linux.Devices[0].Minor), (259, 4));
    }
}
