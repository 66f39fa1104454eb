//! Swap on disks the host adds.

use std::{ffi::CString, os::unix::ffi::OsStrExt, path::Path};

use super::{GuestError, Result, blocking, failed};
use crate::device::{Address, Devices, PciPath};

/// Swaps to the disk behind these PCI slots.
///
/// # Errors
/// [`GuestError`] when the disk does not appear or holds no swap area.
pub async fn add(devices: &Devices, slots: &[u32]) -> Result<()> {
    let path = PciPath::of_slots(slots).map_err(GuestError::Address)?;
    let block = devices.block(&Address::Pci(path)).await.map_err(GuestError::Disk)?;
    swap_on(block.node.as_os_str().as_bytes()).await
}

/// Swaps to a device whose node is known.
///
/// # Errors
/// [`GuestError`] when the path is not below `/dev` or holds no swap area.
pub async fn add_path(path: &str) -> Result<()> {
    let device = Path::new(path).strip_prefix("/dev").is_ok_and(|rest| {
        rest.components().next().is_some() && rest.components().all(|c| matches!(c, std::path::Component::Normal(_)))
    });
    if !device {
        return Err(GuestError::Invalid { field: "path", value: path.into(), wanted: "give a node below /dev" });
    }
    swap_on(path.as_bytes()).await
}

async fn swap_on(path: &[u8]) -> Result<()> {
    let path = CString::new(path).map_err(|_| GuestError::Invalid {
        field: "path",
        value: String::from_utf8_lossy(path).into_owned(),
        wanted: "paths have no zero bytes",
    })?;
    blocking(move || {
        let shown = path.to_string_lossy().into_owned();
        crate::sys::swap_on(&path).map_err(|errno| failed("swap to", Path::new(&shown))(errno.into()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_devices_are_swapped_to() {
        for path in ["", "/etc/passwd", "/dev", "/dev/../etc/passwd", "dev/vda", "/dev/a\0b"] {
            assert!(matches!(add_path(path).await, Err(GuestError::Invalid { .. })), "{path:?}");
        }
        let error = add_path("/dev/null").await.unwrap_err();
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
}
