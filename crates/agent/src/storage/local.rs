//! Plain directories of the guest.

use std::path::Path;

use osc_agent_protocol::agent::Storage;

use super::{StorageError, Undo, mount};

/// Makes the directory with the mode and group its options name. It goes away
/// with the guest.
pub(super) fn make(storage: &Storage, mount_point: &Path) -> Result<Undo, StorageError> {
    mount::make_directory(mount_point)?;
    if let Some(mode) = octal(storage, mount_point)? {
        mount::set_mode(mount_point, mode)?;
    }
    if let Some(gid) = group(&storage.options, mount_point)? {
        mount::give_to_group(mount_point, gid)?;
    }
    Ok(Undo::Nothing)
}

fn octal(storage: &Storage, mount_point: &Path) -> Result<Option<u32>, StorageError> {
    let Some(text) = storage.options.iter().find_map(|o| o.strip_prefix("mode=")) else { return Ok(None) };
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Some).ok_or_else(|| StorageError::Option {
        path: mount_point.into(),
        option: format!("mode={text}"),
        cure: "give an octal mode",
    })
}

/// The group named by the option `fsgid=`.
pub(super) fn group(options: &[String], mount_point: &Path) -> Result<Option<u32>, StorageError> {
    let Some(text) = options.iter().find_map(|o| o.strip_prefix("fsgid=")) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| StorageError::Option {
        path: mount_point.into(),
        option: format!("fsgid={text}"),
        cure: "give a numeric group",
    })
}
