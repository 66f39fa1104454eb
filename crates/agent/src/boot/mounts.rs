//! The file systems a guest lives on.

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

use super::BootError;

struct Entry {
    fstype: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// In order: later ones live inside earlier ones. Control groups are always
/// version 2; the command line of our guests keeps the old controllers off.
const TABLE: &[Entry] = &[
    Entry { fstype: "proc", target: "/proc", flags: QUIET, data: "" },
    Entry { fstype: "sysfs", target: "/sys", flags: QUIET, data: "" },
    Entry { fstype: "devtmpfs", target: "/dev", flags: MsFlags::MS_NOSUID, data: "mode=755" },
    Entry {
        fstype: "tmpfs",
        target: "/dev/shm",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=1777",
    },
    Entry {
        fstype: "devpts",
        target: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        data: "gid=5,mode=620,ptmxmode=666",
    },
    Entry { fstype: "tmpfs", target: "/run", flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), data: "mode=755" },
    Entry { fstype: "cgroup2", target: "/sys/fs/cgroup", flags: QUIET, data: "nsdelegate" },
];

pub(super) fn mount_all() -> Vec<BootError> {
    let failures = TABLE.iter().filter_map(|entry| mount_one(entry).err()).collect();
    link_run();
    failures
}

fn mount_one(entry: &Entry) -> Result<(), BootError> {
    let attempt = || {
        mount(
            Some(entry.fstype),
            entry.target,
            Some(entry.fstype),
            entry.flags,
            Some(entry.data).filter(|d| !d.is_empty()),
        )
    };
    let result = match attempt() {
        // Creating the directory only when it is missing saves a system call each.
        Err(Errno::ENOENT) => fs::create_dir_all(entry.target).map_err(|e| errno(&e)).and_then(|()| attempt()),
        other => other,
    };
    match result {
        // Mounted by the kernel or by an initramfs before us.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(source) => Err(BootError::Mount { fstype: entry.fstype, target: entry.target.into(), source }),
    }
}

/// `/var/run` is where the contract puts the sandbox's namespaces; it must not
/// be a second, unrelated directory. Images that have it are left alone.
fn link_run() {
    if !Path::new("/var/run").exists() {
        let _ = fs::create_dir_all("/var");
        let _ = std::os::unix::fs::symlink("/run", "/var/run");
    }
    // Opening the plain node would allocate from a devpts instance found by path
    // lookup; the link makes that explicit, as programs in the guest expect.
    let _ = fs::remove_file("/dev/ptmx");
    let _ = std::os::unix::fs::symlink("pts/ptmx", "/dev/ptmx");
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
