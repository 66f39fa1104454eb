//! Which versions processes of this machine use.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Those of `versions`, directories in `dir`, that some process was started from
/// or has on its command line. The shim and virtiofsd are the former, QEMU with
/// the guest's files is the latter.
pub(super) fn used(dir: &Path, versions: &[String]) -> BTreeSet<String> {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let needles: Vec<(PathBuf, &String)> = versions.iter().map(|version| (dir.join(version), version)).collect();
    let mut found = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !process.file_name().as_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let exe = fs::read_link(process.path().join("exe")).unwrap_or_default(); // it may just have ended
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        for (needle, version) in &needles {
            if exe.starts_with(needle) || contains(&arguments, needle.as_os_str().as_bytes()) {
                found.insert((*version).clone());
            }
        }
    }
    found
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    let ends = |rest: &[u8]| rest.get(needle.len()).is_none_or(|next| !next.is_ascii_alphanumeric());
    text.windows(needle.len()).enumerate().any(|(at, window)| window == needle && ends(&text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_not_taken_for_a_longer_one() {
        assert!(contains(b"-kernel\0/opt/v1/vmlinux\0", b"/opt/v1"));
        assert!(contains(b"/opt/v10 /opt/v1", b"/opt/v1"));
        assert!(!contains(b"/opt/v10/vmlinux", b"/opt/v1"));
        assert!(!contains(b"", b"/opt/v1"));
    }
}
