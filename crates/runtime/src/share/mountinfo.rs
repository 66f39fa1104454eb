//! The mounts this thread sees (`/proc/thread-self/mountinfo`, proc(5)).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountEntry {
    pub point: PathBuf,
    pub fs: String,
    /// Options of the file system, comma-separated.
    pub super_options: String,
}

/// All mounts, parents before what is mounted on them.
pub(super) fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

/// The mounts at or below `path`, which must be canonical.
pub(super) fn mounts_below(path: &Path) -> io::Result<Vec<MountEntry>> {
    Ok(mounts()?.into_iter().filter(|mount| mount.point.starts_with(path)).collect())
}

/// Lines: `id parent major:minor root point options [optional…] - fs source super`.
fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let point = PathBuf::from(OsString::from_vec(unescape(fields.get(4)?)));
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let word = |n: usize| fields.get(n).map(|field| String::from_utf8_lossy(&unescape(field)).into_owned());
    Some(MountEntry { point, fs: word(dash + 1)?, super_options: word(dash + 3).unwrap_or_default() })
}

/// Blanks, line ends and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, tail) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = b"22 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n\
            36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n\
            40 22 0:44 / /a\\134b rw - tmpfs tmpfs rw,size=64k\n\
            broken\n";
        let entry = |point: &str, fs: &str, options: &str| MountEntry {
            point: point.into(),
            fs: fs.into(),
            super_options: options.into(),
        };
        assert_eq!(
            parse(text),
            [
                entry("/proc", "proc", "rw"),
                entry("/mnt 2", "ext3", "rw,errors=continue"),
                entry("/a\\b", "tmpfs", "rw,size=64k"),
            ]
        );
    }
}
