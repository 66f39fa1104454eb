//! Mount options as `mount(8)` spells them.

use nix::mount::MsFlags;

/// Options taken apart for the system call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Flags of the mount itself.
    pub flags: MsFlags,
    /// Propagation, which takes a call of its own.
    pub propagation: MsFlags,
    /// What is left for the file system, joined by commas.
    pub data: String,
}

enum Effect {
    Set(MsFlags),
    Clear(MsFlags),
    Propagate(MsFlags),
}

/// Takes `options` apart; each element may itself hold several joined by commas.
pub(super) fn parse(options: &[String]) -> Parsed {
    let mut parsed = Parsed { flags: MsFlags::empty(), propagation: MsFlags::empty(), data: String::new() };
    for option in options.iter().flat_map(|o| o.split(',')).filter(|o| !o.is_empty()) {
        match effect(option) {
            Some(Effect::Set(flag)) => parsed.flags |= flag,
            Some(Effect::Clear(flag)) => parsed.flags -= flag,
            Some(Effect::Propagate(flag)) => parsed.propagation |= flag,
            None => {
                if !parsed.data.is_empty() {
                    parsed.data.push(',');
                }
                parsed.data.push_str(option);
            }
        }
    }
    parsed
}

/// Whether the mount will refuse writes.
pub(super) fn is_read_only(options: &[String]) -> bool {
    parse(options).flags.contains(MsFlags::MS_RDONLY)
}

fn effect(option: &str) -> Option<Effect> {
    use Effect::{Clear, Propagate, Set};
    Some(match option {
        "defaults" => Set(MsFlags::empty()),
        "ro" => Set(MsFlags::MS_RDONLY),
        "rw" => Clear(MsFlags::MS_RDONLY),
        "nosuid" => Set(MsFlags::MS_NOSUID),
        "suid" => Clear(MsFlags::MS_NOSUID),
        "nodev" => Set(MsFlags::MS_NODEV),
        "dev" => Clear(MsFlags::MS_NODEV),
        "noexec" => Set(MsFlags::MS_NOEXEC),
        "exec" => Clear(MsFlags::MS_NOEXEC),
        "sync" => Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Set(MsFlags::MS_DIRSYNC),
        "remount" => Set(MsFlags::MS_REMOUNT),
        "mand" => Set(MsFlags::MS_MANDLOCK),
        "nomand" => Clear(MsFlags::MS_MANDLOCK),
        "noatime" => Set(MsFlags::MS_NOATIME),
        "atime" => Clear(MsFlags::MS_NOATIME),
        "nodiratime" => Set(MsFlags::MS_NODIRATIME),
        "diratime" => Clear(MsFlags::MS_NODIRATIME),
        "relatime" => Set(MsFlags::MS_RELATIME),
        "norelatime" => Clear(MsFlags::MS_RELATIME),
        "strictatime" => Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Clear(MsFlags::MS_STRICTATIME),
        "bind" => Set(MsFlags::MS_BIND),
        "rbind" => Set(MsFlags::MS_BIND.union(MsFlags::MS_REC)),
        "private" => Propagate(MsFlags::MS_PRIVATE),
        "rprivate" => Propagate(MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
        "shared" => Propagate(MsFlags::MS_SHARED),
        "rshared" => Propagate(MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
        "slave" => Propagate(MsFlags::MS_SLAVE),
        "rslave" => Propagate(MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
        "unbindable" => Propagate(MsFlags::MS_UNBINDABLE),
        "runbindable" => Propagate(MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_data() {
        let none = MsFlags::empty();
        for (options, flags, propagation, data) in [
            (&[][..], none, none, ""),
            (&["ro", "nodev"], MsFlags::MS_RDONLY | MsFlags::MS_NODEV, none, ""),
            (&["ro", "rw"], none, none, ""),
            (&["mode=1777", "noexec", "size=64m"], MsFlags::MS_NOEXEC, none, "mode=1777,size=64m"),
            (&["rbind", "rslave"], MsFlags::MS_BIND | MsFlags::MS_REC, MsFlags::MS_SLAVE | MsFlags::MS_REC, ""),
            (&["nosuid,dax,defaults"], MsFlags::MS_NOSUID, none, "dax"),
        ] {
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            assert_eq!(parse(&options), Parsed { flags, propagation, data: data.into() }, "{options:?}");
        }
    }
}
