//! Overlay file systems of the guest.

use std::path::Path;

use osc_agent_protocol::{agent::Storage, names};

use super::{StorageError, Undo, mount};

/// Asks for a writable layer in the container's own directory.
const WRITABLE: &str = "io.katacontainers.fs-opt.overlay-rw";
/// Driver option naming a directory to make first.
const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory=";

/// Mounts the layers the options name.
pub(super) fn make(storage: &Storage, mount_point: &Path, owner: Option<&str>) -> Result<Undo, StorageError> {
    for directory in storage.driver_options.iter().filter_map(|o| o.strip_prefix(CREATE_DIRECTORY)) {
        mount::make_directory(&super::checked(directory)?)?;
    }
    let mut storage = storage.clone();
    if storage.options.iter().any(|option| option == WRITABLE) {
        storage.options.retain(|option| option != WRITABLE);
        storage.options.extend(writable_layer(mount_point, owner)?);
    }
    if storage.fstype.is_empty() {
        storage.fstype = "overlay".into();
    }
    mount::mount(&storage, &storage.source, mount_point)
}

fn writable_layer(mount_point: &Path, owner: Option<&str>) -> Result<[String; 2], StorageError> {
    let owner = owner.ok_or_else(|| StorageError::Option {
        path: mount_point.into(),
        option: WRITABLE.into(),
        cure: "only a container's storage has a writable layer",
    })?;
    let base = Path::new(names::GUEST_RUN_DIR).join(owner);
    let (upper, work) = (base.join("fs"), base.join("work"));
    mount::make_directory(&upper)?;
    mount::make_directory(&work)?;
    Ok([format!("upperdir={}", upper.display()), format!("workdir={}", work.display())])
}
