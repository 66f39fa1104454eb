//! File systems the host asks the guest to mount, before a sandbox or a
//! container can use them.
//!
//! Every storage is known by its mount point. The first request for one makes
//! it, further ones hold another reference, and the last one to let go undoes it.
//! What belongs to the pod rather than to a container (`shared`, and memory or
//! local directories, which must outlive a restarted container) stays until the
//! sandbox ends.

mod block;
mod ephemeral;
mod error;
mod fs_group;
mod local;
mod mount;
mod options;
mod overlay;
mod watch;

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};
use osc_agent_protocol::{agent::Storage, names};
use tokio::task::spawn_blocking;

use crate::device::{Address, Devices};

pub use error::StorageError;
use watch::Watcher;

/// Storage drivers the agent serves, in the words of the protocol.
pub const DRIVERS: &[&str] = &[
    names::storage::BLK,
    names::storage::EPHEMERAL,
    names::storage::LOCAL,
    "mmioblk",
    "nvdimm",
    "overlayfs",
    names::storage::SCSI,
    names::storage::VIRTIO_FS,
    "watchable-bind",
];

/// All storages of a sandbox.
pub struct Storages {
    devices: Arc<Devices>,
    watcher: Watcher,
    slots: Mutex<HashMap<PathBuf, Slot>>,
}

/// One mount point. Its lock is held while the storage is made or undone, so that
/// a second request waits for the first and sees its outcome; requests for other
/// mount points go on.
type Slot = Arc<tokio::sync::Mutex<Held>>;

#[derive(Default)]
struct Held {
    references: usize,
    for_pod: bool,
    undo: Undo,
}

/// What takes a storage away again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Undo {
    /// Nothing was done that has to be undone.
    #[default]
    Nothing,
    /// Unmount.
    Unmount,
    /// Stop copying and unmount.
    Unwatch,
}

impl Storages {
    /// Storages on these devices.
    pub fn new(devices: Arc<Devices>) -> Self {
        Self { devices, watcher: Watcher::default(), slots: Mutex::default() }
    }

    /// Makes all of `storages` for the container `owner`, or for the sandbox, and
    /// returns the mount points now referenced. On failure none is.
    ///
    /// # Errors
    /// [`StorageError`] of the first storage that cannot be made.
    pub async fn add_all(&self, storages: &[Storage], owner: Option<&str>) -> Result<Vec<PathBuf>, StorageError> {
        let mut added = Vec::with_capacity(storages.len());
        for storage in storages {
            match self.add(storage, owner).await {
                Ok(mount_point) => added.push(mount_point),
                Err(error) => {
                    self.release_all(&added).await;
                    return Err(error);
                }
            }
        }
        Ok(added)
    }

    async fn add(&self, storage: &Storage, owner: Option<&str>) -> Result<PathBuf, StorageError> {
        let mount_point = checked(&storage.mount_point)?;
        let slot = self.slot(&mount_point);
        let mut held = slot.lock().await;
        if held.references == 0 {
            held.undo = self.make(storage, &mount_point, owner).await?;
            held.for_pod = storage.shared || belongs_to_pod(&storage.driver);
        }
        held.references += 1;
        drop(held);
        Ok(mount_point)
    }

    async fn make(&self, storage: &Storage, mount_point: &Path, owner: Option<&str>) -> Result<Undo, StorageError> {
        tracing::debug!(storage.driver = storage.driver, path = storage.mount_point, "making storage");
        if storage.driver == "watchable-bind" {
            return self.watcher.add(storage, mount_point).await;
        }
        let disk = match Address::of_driver(&storage.driver, &storage.source) {
            Ok(Some(address)) => Some(block::find(&self.devices, storage, &address).await?),
            Ok(None) => None,
            Err(source) => return Err(StorageError::Address { path: mount_point.into(), source }),
        };
        let (storage, mount_point, owner) = (storage.clone(), mount_point.to_path_buf(), owner.map(str::to_owned));
        // Mounting can wait for the host or a disk.
        spawn_blocking(move || make_blocking(&storage, &mount_point, disk.as_deref(), owner.as_deref()))
            .await
            .map_err(|_| StorageError::Died)?
    }

    /// Lets go of one reference to each; failures are logged, for there is nobody
    /// left who could use the storage.
    pub async fn release_all(&self, mount_points: &[PathBuf]) {
        for mount_point in mount_points.iter().rev() {
            if let Err(error) = self.release(mount_point).await {
                tracing::warn!(path = %mount_point.display(), error = osc_agent_protocol::kind::chain(&error), "storage stays mounted");
            }
        }
    }

    async fn release(&self, mount_point: &Path) -> Result<(), StorageError> {
        let slot = self.slot(mount_point);
        let mut held = slot.lock().await;
        held.references = held.references.saturating_sub(1);
        let unused = held.references == 0 && !held.for_pod;
        let result = if unused { self.undo(std::mem::take(&mut held.undo), mount_point).await } else { Ok(()) };
        // A pod's storage is still there: keep the next request from making it again.
        if held.for_pod {
            held.references = held.references.max(1);
        }
        drop(held);
        if unused {
            self.forget(mount_point, &slot);
        }
        result
    }

    async fn undo(&self, undo: Undo, mount_point: &Path) -> Result<(), StorageError> {
        if undo == Undo::Unwatch {
            self.watcher.remove(mount_point);
        }
        if undo == Undo::Nothing {
            return Ok(());
        }
        let path = mount_point.to_path_buf();
        spawn_blocking(move || unmount(&path)).await.map_err(|_| StorageError::Died)?
    }

    /// Undoes everything, whoever still references it. For the end of the sandbox.
    pub async fn clear(&self) {
        let mut slots: Vec<_> = self.slots().drain().collect();
        // Deeper mounts first: a volume may be mounted below another.
        slots.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (mount_point, slot) in slots {
            let undo = std::mem::take(&mut slot.lock().await.undo);
            if let Err(error) = self.undo(undo, &mount_point).await {
                tracing::warn!(path = %mount_point.display(), error = osc_agent_protocol::kind::chain(&error), "storage stays mounted");
            }
        }
    }

    /// Gives memory-backed storages that exist already new options, such as a size.
    ///
    /// # Errors
    /// [`StorageError`] of the first one that cannot be remounted.
    pub async fn remount_ephemeral(&self, storages: Vec<Storage>) -> Result<(), StorageError> {
        spawn_blocking(move || {
            storages
                .iter()
                .filter(|storage| storage.driver == names::storage::EPHEMERAL)
                .try_for_each(|storage| ephemeral::remount(storage, &checked(&storage.mount_point)?))
        })
        .await
        .map_err(|_| StorageError::Died)?
    }

    fn slot(&self, mount_point: &Path) -> Slot {
        Arc::clone(self.slots().entry(mount_point.to_path_buf()).or_default())
    }

    /// Drops the record of a mount point unless somebody waits for it.
    fn forget(&self, mount_point: &Path, slot: &Slot) {
        let mut slots = self.slots();
        // One count is the map's, one ours.
        if Arc::strong_count(slot) == 2 {
            slots.remove(mount_point);
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_blocking(
    storage: &Storage,
    mount_point: &Path,
    disk: Option<&Path>,
    owner: Option<&str>,
) -> Result<Undo, StorageError> {
    let undo = match (disk, storage.driver.as_str()) {
        (Some(node), _) => block::make(storage, node, mount_point)?,
        (None, names::storage::VIRTIO_FS) => mount::mount(storage, &storage.source, mount_point)?,
        (None, names::storage::EPHEMERAL) => ephemeral::make(storage, mount_point)?,
        (None, names::storage::LOCAL) => local::make(storage, mount_point)?,
        (None, "overlayfs") => overlay::make(storage, mount_point, owner)?,
        (None, driver) => return Err(StorageError::Unsupported { driver: driver.into() }),
    };
    if let Some(group) = storage.fs_group.as_ref()
        && let Err(error) = fs_group::apply(group, options::is_read_only(&storage.options), mount_point)
    {
        if undo != Undo::Nothing {
            let _ = umount2(mount_point, MntFlags::MNT_DETACH);
        }
        return Err(error);
    }
    Ok(undo)
}

/// Unmounts and removes the directory that was made for it. Detaches, because a
/// process that was just killed may still hold a file for a moment.
fn unmount(mount_point: &Path) -> Result<(), StorageError> {
    match umount2(mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // A container detaches its root file system itself.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(source) => return Err(StorageError::Unmount { path: mount_point.into(), source }),
    }
    // Not empty means it was there before and holds something of somebody's.
    let _ = std::fs::remove_dir(mount_point);
    Ok(())
}

fn belongs_to_pod(driver: &str) -> bool {
    matches!(driver, names::storage::EPHEMERAL | names::storage::LOCAL)
}

/// A mount point must be a clean absolute path: it is created and mounted over.
fn checked(path: &str) -> Result<PathBuf, StorageError> {
    let path = Path::new(path);
    let clean = path.is_absolute()
        && path.parent().is_some()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // Collecting the components drops a trailing slash, which would make two keys of one place.
    if clean { Ok(path.components().collect()) } else { Err(StorageError::MountPoint { path: path.into() }) }
}

#[cfg(test)]
mod tests;
