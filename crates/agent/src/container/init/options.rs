//! Mount options as people write them.

use nix::mount::MsFlags;

use crate::container::sys::{MountAttr, attr};

/// The options of one mount, sorted by whom they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// For `mount(2)`, when a new file system is mounted.
    pub flags: u64,
    /// For the mount itself, when an existing tree is bound.
    pub attr: MountAttr,
    /// For the mount and everything below it.
    pub recursive_attr: MountAttr,
    /// Set when an existing tree is bound; whether with everything below it.
    pub bind: Option<bool>,
    /// How mounts travel; whether that goes for everything below too.
    pub propagation: Option<(MsFlags, bool)>,
    /// For the file system, joined by commas.
    pub data: String,
}

/// Option, `mount(2)` flag, mount attributes to set, mount attributes to clear.
type Row = (&'static str, MsFlags, u64, u64);

const SET: [Row; 14] = [
    ("ro", MsFlags::MS_RDONLY, attr::RDONLY, 0),
    ("nosuid", MsFlags::MS_NOSUID, attr::NOSUID, 0),
    ("nodev", MsFlags::MS_NODEV, attr::NODEV, 0),
    ("noexec", MsFlags::MS_NOEXEC, attr::NOEXEC, 0),
    ("noatime", MsFlags::MS_NOATIME, attr::NOATIME, attr::ATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME, attr::NODIRATIME, 0),
    ("relatime", MsFlags::MS_RELATIME, 0, attr::ATIME),
    ("strictatime", MsFlags::MS_STRICTATIME, attr::STRICTATIME, attr::ATIME),
    ("sync", MsFlags::MS_SYNCHRONOUS, 0, 0),
    ("dirsync", MsFlags::MS_DIRSYNC, 0, 0),
    ("mand", MsFlags::MS_MANDLOCK, 0, 0),
    ("silent", MsFlags::MS_SILENT, 0, 0),
    ("lazytime", MsFlags::MS_LAZYTIME, 0, 0),
    ("nosymfollow", MsFlags::from_bits_retain(256), attr::NOSYMFOLLOW, 0),
];

/// Options that take one of the above back. A bound tree keeps the restrictions
/// of its source, so they say nothing there.
const CLEAR: [(&str, MsFlags); 14] = [
    ("rw", MsFlags::MS_RDONLY),
    ("suid", MsFlags::MS_NOSUID),
    ("dev", MsFlags::MS_NODEV),
    ("exec", MsFlags::MS_NOEXEC),
    ("atime", MsFlags::MS_NOATIME),
    ("diratime", MsFlags::MS_NODIRATIME),
    ("norelatime", MsFlags::MS_RELATIME),
    ("nostrictatime", MsFlags::MS_STRICTATIME),
    ("async", MsFlags::MS_SYNCHRONOUS),
    ("nomand", MsFlags::MS_MANDLOCK),
    ("loud", MsFlags::MS_SILENT),
    ("nolazytime", MsFlags::MS_LAZYTIME),
    ("symfollow", MsFlags::from_bits_retain(256)),
    ("defaults", MsFlags::empty()),
];

/// The propagation `name` stands for, and whether it is recursive.
pub fn propagation(name: &str) -> Option<(MsFlags, bool)> {
    let recursive = name.starts_with('r');
    let flag = match name.strip_prefix('r').unwrap_or(name) {
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "private" => MsFlags::MS_PRIVATE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some((flag, recursive))
}

impl Options {
    /// Sorts `options`; those nobody knows are for the file system.
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let mut out = Self::default();
        let mut data = Vec::new();
        for option in options {
            if !out.take(option) {
                data.push(option);
            }
        }
        out.data = data.join(",");
        out
    }

    fn take(&mut self, option: &str) -> bool {
        let row = |name: &str| SET.into_iter().find(|row| row.0 == name);
        if let Some((_, flag, set, clear)) = row(option) {
            self.flags |= flag.bits();
            self.attr = merge(self.attr, set, clear);
        } else if let Some((_, flag)) = CLEAR.into_iter().find(|(name, _)| *name == option) {
            self.flags &= !flag.bits();
        } else if let Some(propagation) = propagation(option) {
            self.propagation = Some(propagation);
        } else if let Some((_, _, set, clear)) = option.strip_prefix('r').and_then(row) {
            self.recursive_attr = merge(self.recursive_attr, set, clear);
        } else {
            match option {
                "bind" => self.bind = self.bind.or(Some(false)),
                "rbind" => self.bind = Some(true),
                // Asked of container engines, not of the kernel; nothing to copy in a fresh guest.
                "tmpcopyup" | "notmpcopyup" => {}
                _ => return false,
            }
        }
        true
    }
}

fn merge(to: MountAttr, set: u64, clear: u64) -> MountAttr {
    MountAttr::new((to.set & !clear) | set, to.clear | clear, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_whom_they_are_for() {
        let got = Options::parse(["nosuid", "noexec", "mode=755", "size=64k", "rw"]);
        assert_eq!(got.flags, (MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC).bits());
        assert_eq!((got.data.as_str(), got.bind, got.propagation), ("mode=755,size=64k", None, None));

        let got = Options::parse(["rbind", "rprivate", "ro"]);
        assert_eq!(got.attr, MountAttr::new(attr::RDONLY, 0, 0));
        assert_eq!((got.bind, got.propagation), (Some(true), Some((MsFlags::MS_PRIVATE, true))));
        assert!(got.data.is_empty());
    }

    #[test]
    fn recursive_forms_are_not_taken_for_others() {
        let got = Options::parse(["rro", "relatime", "rw", "bind"]);
        assert_eq!(got.recursive_attr, MountAttr::new(attr::RDONLY, 0, 0));
        assert_eq!(got.attr, MountAttr::new(0, attr::ATIME, 0));
        assert_eq!(got.bind, Some(false));
    }

    #[test]
    fn the_last_access_time_mode_wins() {
        assert_eq!(Options::parse(["noatime", "strictatime"]).attr.set, attr::STRICTATIME);
        assert_eq!(Options::parse(["ro", "rw"]).flags, 0);
    }
}
