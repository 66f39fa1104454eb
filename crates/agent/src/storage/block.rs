//! Disks.

use std::path::{Path, PathBuf};

use osc_agent_protocol::agent::Storage;

use super::{StorageError, Undo, mount};
use crate::device::{Address, Devices};

/// Driver options that would change what is on the disk. They are refused, not
/// ignored: an unencrypted volume must never stand in for an encrypted one.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("create_filesystem", "format the disk on the host before it is attached"),
    ("encryption_key", "use a volume the storage system encrypts"),
];

/// Waits for the disk and returns its node.
pub(super) async fn find(devices: &Devices, storage: &Storage, address: &Address) -> Result<PathBuf, StorageError> {
    refuse_unsupported(storage)?;
    let path = || PathBuf::from(&storage.mount_point);
    let block = devices.block(address).await.map_err(|source| StorageError::Disk { path: path(), source })?;
    Ok(block.node)
}

fn refuse_unsupported(storage: &Storage) -> Result<(), StorageError> {
    for option in &storage.driver_options {
        let name = option.split('=').next().unwrap_or_default();
        if let Some((_, cure)) = UNSUPPORTED.iter().find(|(known, _)| *known == name) {
            return Err(StorageError::Option {
                path: storage.mount_point.clone().into(),
                option: name.to_owned(),
                cure,
            });
        }
    }
    Ok(())
}

/// Mounts the disk at `node`.
pub(super) fn make(storage: &Storage, node: &Path, mount_point: &Path) -> Result<Undo, StorageError> {
    mount::mount(storage, &node.to_string_lossy(), mount_point)
}
