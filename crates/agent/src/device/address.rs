//! Addresses by which host and guest mean the same device.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use osc_agent_protocol::agent;

use super::DeviceError;

/// An address that does not follow its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct BadAddress {
    text: String,
    wanted: &'static str,
}

/// Where a block device is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// virtio-blk on PCI.
    Pci(PciPath),
    /// A disk of the virtio SCSI host, `target:lun`.
    Scsi {
        /// SCSI target.
        target: u32,
        /// Logical unit.
        lun: u32,
    },
    /// The node's name is known: `/dev/vdb`, `/dev/pmem0`, `/dev/vda1`.
    Node(PathBuf),
}

impl Address {
    /// The address in the `source` of a storage, or in the fields of a device,
    /// of driver `driver`; `None` for drivers that are not block devices.
    ///
    /// # Errors
    /// [`BadAddress`] when the text does not follow the driver's grammar.
    pub fn of_driver(driver: &str, text: &str) -> Result<Option<Self>, BadAddress> {
        Ok(Some(match driver {
            "blk" if !text.starts_with("/dev/") => Self::Pci(text.parse()?),
            "blk" | "mmioblk" | "nvdimm" => Self::node(text)?,
            "scsi" => Self::scsi(text)?,
            _ => return Ok(None),
        }))
    }

    /// The address of a device of a container.
    pub(super) fn of_device(device: &agent::Device) -> Result<Self, DeviceError> {
        let text = match device.type_.as_str() {
            "mmioblk" | "nvdimm" => &device.vm_path,
            _ => &device.id,
        };
        Self::of_driver(&device.type_, text)
            .map_err(|source| DeviceError::Address { id: device.id.clone(), source })?
            .ok_or_else(|| DeviceError::Unsupported(device.type_.clone()))
    }

    fn node(text: &str) -> Result<Self, BadAddress> {
        let name = text.strip_prefix("/dev/").unwrap_or_default();
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if plain { Ok(Self::Node(text.into())) } else { Err(bad(text, "a node directly below /dev")) }
    }

    fn scsi(text: &str) -> Result<Self, BadAddress> {
        text.split_once(':')
            .and_then(|(target, lun)| Some(Self::Scsi { target: target.parse().ok()?, lun: lun.parse().ok()? }))
            .ok_or_else(|| bad(text, "a SCSI address of the form target:lun"))
    }

    /// The sysfs directory `…/block/<name>` of the device, once the kernel has it.
    pub(super) fn block_directory(&self, sysfs: &Path) -> Option<PathBuf> {
        match self {
            Self::Pci(path) => only_entry(&path.virtio_child(sysfs, "block")?),
            Self::Scsi { target, lun } => {
                let suffix = format!(":0:{target}:{lun}");
                let device =
                    entries(&sysfs.join("bus/scsi/devices")).into_iter().find(|e| name(e).ends_with(&suffix))?;
                only_entry(&device.join("block"))
            }
            Self::Node(node) => {
                let directory = sysfs.join("class/block").join(node.file_name()?);
                directory.exists().then_some(directory)
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(path) => write!(f, "at PCI path {path}"),
            Self::Scsi { target, lun } => write!(f, "at SCSI address {target}:{lun}"),
            Self::Node(node) => write!(f, "{}", node.display()),
        }
    }
}

/// A way through PCI bridges from the root bus: hexadecimal `slot[.function]`
/// parts joined by `/`, so that `02/01` is slot 1 behind the bridge in slot 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciPath(Vec<Slot>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    device: u8,
    function: u8,
}

/// Root buses of extra host bridges have numbers no slot can have, so that in a
/// path of three parts such a number at the front names the bus.
const FIRST_EXTRA_BUS: u8 = 0x20;

impl PciPath {
    /// The directory of the device itself. Bridge numbers are the guest's own
    /// choice, so each bridge is asked for the bus behind it.
    fn directory(&self, sysfs: &Path) -> Option<PathBuf> {
        let (root, slots) = match self.0.as_slice() {
            [bus, rest @ ..] if rest.len() == 2 && bus.device >= FIRST_EXTRA_BUS => (bus.device, rest),
            slots => (0, slots),
        };
        let mut bus = format!("0000:{root:02x}");
        let mut directory = sysfs.join("devices").join(format!("pci{bus}"));
        for (depth, slot) in slots.iter().enumerate() {
            if depth > 0 {
                bus = name(&only_entry(&directory.join("pci_bus"))?);
            }
            directory.push(format!("{bus}:{:02x}.{}", slot.device, slot.function));
        }
        directory.exists().then_some(directory)
    }

    /// The directory `virtioN/<class>` of the device.
    fn virtio_child(&self, sysfs: &Path, class: &str) -> Option<PathBuf> {
        let virtio = entries(&self.directory(sysfs)?).into_iter().find(|e| name(e).starts_with("virtio"))?;
        Some(virtio.join(class))
    }

    /// Name of the network interface at this path, once the kernel has it.
    pub(super) fn network_interface(&self, sysfs: &Path) -> Option<String> {
        only_entry(&self.virtio_child(sysfs, "net")?).map(|e| name(&e))
    }

    /// A path from slot numbers alone, as `AddSwap` sends it.
    ///
    /// # Errors
    /// [`BadAddress`] when it is empty or a number is not a slot.
    pub fn of_slots(slots: &[u32]) -> Result<Self, BadAddress> {
        slots.iter().map(|slot| format!("{slot:02x}")).collect::<Vec<_>>().join("/").parse()
    }
}

impl FromStr for PciPath {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let parts: Option<Vec<_>> = text.split('/').map(slot).collect();
        let parts = parts.ok_or_else(|| bad(text, "a PCI path such as 02/01"))?;
        let extra_bus = parts.len() == 3 && parts[0].device >= FIRST_EXTRA_BUS;
        let slots = &parts[usize::from(extra_bus)..];
        if slots.iter().all(|slot| slot.device < FIRST_EXTRA_BUS) {
            Ok(Self(parts))
        } else {
            Err(bad(text, "a PCI path: slots go up to 1f"))
        }
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, slot) in self.0.iter().enumerate() {
            let separator = if depth == 0 { "" } else { "/" };
            write!(f, "{separator}{:02x}", slot.device)?;
            if slot.function != 0 {
                write!(f, ".{}", slot.function)?;
            }
        }
        Ok(())
    }
}

fn slot(text: &str) -> Option<Slot> {
    let (device, function) = text.split_once('.').unwrap_or((text, "0"));
    let device = u8::from_str_radix(device, 16).ok()?;
    let function = u8::from_str_radix(function, 16).ok().filter(|f| *f < 8)?;
    Some(Slot { device, function })
}

fn bad(text: &str, wanted: &'static str) -> BadAddress {
    BadAddress { text: text.to_owned(), wanted }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|list| list.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

fn only_entry(directory: &Path) -> Option<PathBuf> {
    entries(directory).into_iter().next()
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_paths_follow_the_grammar() {
        for (text, want) in [
            ("02/01", Some("02/01")),
            ("3", Some("03")),
            ("1f.7", Some("1f.7")),
            ("20/00/01", Some("20/00/01")),
            ("20", None),
            ("20/01", None),
            ("02/20", None),
            ("00/00/20", None),
            ("", None),
            ("/", None),
            ("02/", None),
            ("0g", None),
            ("01.8", None),
            ("../01", None),
        ] {
            assert_eq!(text.parse::<PciPath>().ok().map(|p| p.to_string()).as_deref(), want, "{text}");
        }
        assert_eq!(PciPath::of_slots(&[2, 17]).unwrap().to_string(), "02/11");
        assert!(PciPath::of_slots(&[]).is_err());
    }

    #[test]
    fn addresses_depend_on_the_driver() {
        let pci = |text: &str| Address::Pci(text.parse().unwrap());
        for (driver, text, want) in [
            ("blk", "02/01", Some(pci("02/01"))),
            ("blk", "/dev/vdb", Some(Address::Node("/dev/vdb".into()))),
            ("mmioblk", "/dev/vdb", Some(Address::Node("/dev/vdb".into()))),
            ("nvdimm", "/dev/pmem0", Some(Address::Node("/dev/pmem0".into()))),
            ("scsi", "0:12", Some(Address::Scsi { target: 0, lun: 12 })),
            ("local", "/x", None),
        ] {
            assert_eq!(Address::of_driver(driver, text).unwrap(), want, "{driver} {text}");
        }
        for (driver, text) in
            [("scsi", "1"), ("scsi", "a:b"), ("mmioblk", "/dev/../etc/passwd"), ("nvdimm", "pmem0"), ("blk", "")]
        {
            assert!(Address::of_driver(driver, text).is_err(), "{driver} {text}");
        }
    }
}
