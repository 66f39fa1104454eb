//! Directories and files of the sandbox.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use osc_agent_protocol::names;

use super::{Result, SandboxError};

const RESOLVER: &str = "/etc/resolv.conf";

/// Starts with an empty run directory. What is still mounted there belongs to an
/// earlier sandbox and is detached first: deleting must never reach through a
/// mount into files of the host.
pub(super) fn recreate() -> Result<()> {
    let root = Path::new(names::GUEST_RUN_DIR);
    let failed = |action| move |source| SandboxError::File { action, path: root.into(), source };
    if root.exists() {
        for mount_point in mounts_below(root).map_err(failed("list the mounts of"))?.into_iter().rev() {
            let detached = umount2(&mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            detached.map_err(|errno| SandboxError::File {
                action: "detach",
                path: mount_point,
                source: errno.into(),
            })?;
        }
        fs::remove_dir_all(root).map_err(failed("clear"))?;
    }
    fs::create_dir_all(names::GUEST_SANDBOX_DIR).map_err(failed("make"))
}

/// Mount points below `root` and `root` itself, in the order they were mounted.
pub(crate) fn mounts_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(mount_point).filter(|path| path.starts_with(root)).collect())
}

/// The fifth field of a line of `mountinfo`, in which blanks are written in octal.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?.as_bytes();
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escape = rest.get(1..4).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match escape.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// Writes the resolver configuration and shows it where programs look for it.
pub(super) fn set_resolver(lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = Path::new(names::GUEST_SANDBOX_DIR).join("resolv.conf");
    let failed = |action, source| SandboxError::File { action, path: path.clone(), source };
    fs::write(&path, lines.join("\n") + "\n").map_err(|source| failed("write", source))?;
    if !Path::new(RESOLVER).exists() {
        return Ok(());
    }
    mount(Some(&path), RESOLVER, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| failed("bind over /etc/resolv.conf", errno.into()))
}

/// Takes the resolver configuration away again.
pub(super) fn unset_resolver() {
    // Not mounted when the sandbox had no resolver.
    let _ = umount2(RESOLVER, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        for (line, want) in [
            ("36 35 98:0 / /run/x rw,noatime - ext4 /dev/root rw", Some("/run/x")),
            (r"36 35 98:0 / /run/a\040b\134c rw - t t rw", Some(r"/run/a b\c")),
            (r"36 35 98:0 / /run/a\04 rw - t t rw", Some(r"/run/a\04")),
            ("36 35 98:0 /", None),
        ] {
            assert_eq!(mount_point(line), want.map(PathBuf::from), "{line}");
        }
    }
}
