//! Volumes that belong to a group of the pod.

use std::{
    fs,
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

use osc_agent_protocol::{agent::FSGroup, types::FSGroupChangePolicy};

use super::{StorageError, mount};

/// Mode bits the group gets on files.
const WRITABLE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
/// On directories in addition: search, and what is made inside keeps the group.
const DIRECTORY: u32 = 0o110;
const SET_GID: u32 = 0o2000;

/// Gives everything below `root` to the group.
pub(super) fn apply(group: &FSGroup, read_only: bool, root: &Path) -> Result<(), StorageError> {
    let on_mismatch = group.group_change_policy.enum_value() == Ok(FSGroupChangePolicy::OnRootMismatch);
    if on_mismatch && matches(group.group_id, read_only, root)? {
        return Ok(());
    }
    give(group.group_id, read_only, root)
}

fn matches(gid: u32, read_only: bool, root: &Path) -> Result<bool, StorageError> {
    let seen = fs::metadata(root).map_err(failed("read the mode of", root))?;
    let wanted = wanted(read_only, true);
    Ok(seen.gid() == gid && seen.mode() & wanted == wanted)
}

fn wanted(read_only: bool, directory: bool) -> u32 {
    let base = if read_only { READ_ONLY } else { WRITABLE };
    if directory { base | DIRECTORY | SET_GID } else { base }
}

/// Depth first with an explicit list: the tree is the workload's and may be deep.
fn give(gid: u32, read_only: bool, root: &Path) -> Result<(), StorageError> {
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let seen = fs::symlink_metadata(&path).map_err(failed("read the mode of", &path))?;
        lchown(&path, None, Some(gid)).map_err(failed("set the group of", &path))?;
        if seen.is_symlink() {
            continue;
        }
        mount::set_mode(&path, (seen.mode() & 0o7777) | wanted(read_only, seen.is_dir()))?;
        if seen.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed("list", &path))? {
                pending.push(entry.map_err(failed("list", &path))?.path());
            }
        }
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StorageError {
    let path = path.to_path_buf();
    move |source| StorageError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_volume_becomes_the_groups() {
        let root = std::env::temp_dir().join(format!("agent-fsgroup-{}", std::process::id()));
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "").unwrap();
        symlink("/etc/passwd", root.join("d/l")).unwrap();
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        let before = fs::metadata("/etc/passwd").unwrap().gid();

        let group = FSGroup { group_id: 4321, ..Default::default() };
        apply(&group, false, &root).unwrap();
        for (path, mode) in [(root.join("d"), 0o2775), (root.join("d/f"), 0o660)] {
            let seen = fs::metadata(&path).unwrap();
            assert_eq!((seen.gid(), seen.mode() & 0o7777), (4321, mode), "{}", path.display());
        }
        assert_eq!(fs::metadata("/etc/passwd").unwrap().gid(), before, "links are not followed");

        // A root that matches already keeps the rest as it is.
        std::os::unix::fs::chown(root.join("d/f"), None, Some(1)).unwrap();
        let policy = FSGroupChangePolicy::OnRootMismatch.into();
        apply(&FSGroup { group_change_policy: policy, ..group.clone() }, false, &root).unwrap();
        assert_eq!(fs::metadata(root.join("d/f")).unwrap().gid(), 1);
        apply(&group, true, &root).unwrap();
        assert_eq!(fs::metadata(root.join("d/f")).unwrap().gid(), 4321);
        fs::remove_dir_all(&root).unwrap();
    }
}
