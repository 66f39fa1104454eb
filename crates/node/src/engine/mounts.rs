//! Mounts below a directory.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mount points at or below `dir` that this thread sees, deepest first. The kernel's
/// list is read, so that no path is followed.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|at| at.starts_with(dir))
        .collect();
    found.reverse(); // later mounts lie on earlier ones
    found
}

/// Detaches everything mounted at or below `dir`.
///
/// # Errors
/// The first refusal; the rest is tried all the same.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for at in below(dir) {
        let refused = umount2(&at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).err();
        if let (Ok(()), Some(errno)) = (&result, refused) {
            result = Err(errno.into());
        }
    }
    result
}

/// Undoes the kernel's octal escapes (proc(5), `mountinfo`).
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match code {
            Some(byte) if first == b'\\' => {
                path.push(byte);
                rest = &tail[3..];
            }
            _ => {
                path.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

/// Whether an overlay can be mounted with its upper directory in `dir`; not so
/// when `dir` is itself on an overlay.
pub fn overlay_works(dir: &Path) -> bool {
    let probe = dir.join(".overlay-probe");
    let works = || -> io::Result<()> {
        for part in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(probe.join(part))?;
        }
        let at = |part: &str| probe.join(part).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        let merged = probe.join("merged");
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        Ok(umount2(&merged, MntFlags::MNT_DETACH)?)
    };
    let result = works();
    let _ = fs::remove_dir_all(&probe); // an empty directory tree; the next probe reuses it
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        for (field, want) in [("/a", "/a"), (r"/a\040b", "/a b"), (r"/a\134b", r"/a\b"), (r"/a\9", r"/a\9")] {
            assert_eq!(unescape(field), PathBuf::from(want), "{field}");
        }
    }

    #[test]
    fn stacked_mounts_are_all_undone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let inner = dir.path().join("with space");
        fs::create_dir(&inner).expect("mkdir");
        for _ in 0..2 {
            mount(Some("tmpfs"), &inner, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
        }
        assert_eq!(below(dir.path()).len(), 2);
        unmount_below(dir.path()).expect("unmount");
        assert!(below(dir.path()).is_empty());
    }

    #[test]
    fn the_overlay_probe_leaves_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        overlay_works(dir.path());
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
        assert!(below(dir.path()).is_empty());
    }
}
