//! The machine itself: processor, memory, disk, devices, kernel.

use std::{fs, path::Path};

use nix::{
    sys::statvfs::statvfs,
    unistd::{Uid, geteuid},
};
use osc_runtime::{config::Config, dirs::Dirs};

use super::finding::Finding;
use crate::output::bytes;

/// Room for the guest image, its packages and a few container images.
const DISK_WANTED: u64 = 2 << 30;
/// Below this, not even the guest image fits.
const DISK_NEEDED: u64 = 256 << 20;
/// What the host processes of a sandbox take beside the guest's memory.
const HOST_SHARE: u64 = 128 << 20;

/// Sandboxes need namespaces, mounts and devices.
pub fn privileges() -> Finding {
    match geteuid() {
        user if user == Uid::from_raw(0) => Finding::ok("privileges", "root"),
        user => Finding::missing("privileges", format!("user {user}"), "run as root"),
    }
}

/// Guest images are built for one architecture.
pub fn architecture() -> Finding {
    match std::env::consts::ARCH {
        "x86_64" => Finding::ok("architecture", "x86_64"),
        other => Finding::missing("architecture", other, "use an x86_64 machine: there is no guest image for others"),
    }
}

/// Memory for one sandbox of the configured size.
pub fn memory(config: Option<&Config>) -> Finding {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    judge_memory(&meminfo, config.map_or(0, |config| config.hypervisor.memory.bytes()))
}

fn judge_memory(meminfo: &str, sandbox: u64) -> Finding {
    let name = "memory";
    let kib =
        meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
    let Some(available) = kib.map(|kib: u64| kib * 1024) else {
        return Finding::warning(name, "unknown", "mount /proc");
    };
    let found = format!("{} available", bytes(available));
    // Guest memory is taken page by page as the guest touches it, so a small
    // pod runs where its configured size does not fit.
    if available < HOST_SHARE * 2 {
        Finding::missing(name, found, "free some memory: one sandbox takes at least 256 MiB")
    } else if available < sandbox + HOST_SHARE {
        let cure = format!("free some memory or lower default_memory, now {}", bytes(sandbox));
        Finding::warning(name, found, cure)
    } else {
        Finding::ok(name, found)
    }
}

/// Space below the state directory.
pub fn disk(dirs: &Dirs) -> Finding {
    let state = dirs.state();
    // The directory is made by the first use.
    let existing = state.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match statvfs(existing) {
        Ok(status) => judge_disk(&state, status.blocks_available() * status.fragment_size()),
        Err(errno) => {
            Finding::missing("disk", format!("{}: {errno}", existing.display()), "use a readable file system")
        }
    }
}

fn judge_disk(state: &Path, free: u64) -> Finding {
    let found = format!("{} free for {}", bytes(free), state.display());
    let cure = "free some space, or move everything with --root";
    match free {
        _ if free < DISK_NEEDED => Finding::missing("disk", found, cure),
        _ if free < DISK_WANTED => Finding::warning("disk", found, cure),
        _ => Finding::ok("disk", found),
    }
}

/// Control groups to account sandboxes in.
pub fn cgroups() -> Finding {
    judge_cgroups(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn judge_cgroups(mountinfo: &str) -> Finding {
    let name = "cgroups";
    // Fields: … root mount-point options … - type source super-options
    let mounts: Vec<(&str, &str, &str)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            Some((before.split(' ').nth(4)?, after.next()?, after.nth(1)?))
        })
        .collect();
    if mounts.iter().any(|(point, kind, _)| *kind == "cgroup2" && *point == "/sys/fs/cgroup") {
        return Finding::ok(name, "version 2");
    }
    let has =
        |wanted: &&str| mounts.iter().any(|(_, kind, has)| *kind == "cgroup" && has.split(',').any(|o| o == *wanted));
    let lacking: Vec<_> = ["cpu", "memory", "pids"].into_iter().filter(|controller| !has(controller)).collect();
    if lacking.is_empty() {
        return Finding::ok(name, "version 1");
    }
    let cure = "mount cgroup2 on /sys/fs/cgroup, or the version 1 controllers below it (package cgroupfs-mount does)";
    Finding::missing(name, format!("no controller {}", lacking.join(", ")), cure)
}

/// How host and guest talk. Without the kernel's device, our own serves.
pub fn vsock() -> Finding {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock") {
        Ok(_) => Finding::ok("vsock", "kernel, /dev/vhost-vsock"),
        Err(_) => Finding::ok("vsock", "user space, for lack of /dev/vhost-vsock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn memory_is_compared_with_one_sandbox() {
        for (mib, want) in
            [(100_u64, Verdict::Missing), (1000, Verdict::Warning), (2100, Verdict::Warning), (4000, Verdict::Ok)]
        {
            let meminfo = format!("MemTotal: 1 kB\nMemAvailable: {} kB\n", mib * 1024);
            assert_eq!(judge_memory(&meminfo, 2048 << 20).verdict, want, "{mib}");
        }
        assert_eq!(judge_memory("", 0).verdict, Verdict::Warning);
    }

    #[test]
    fn disk_space_has_two_limits() {
        for (free, want) in [(1 << 20, Verdict::Missing), (1 << 30, Verdict::Warning), (1 << 40, Verdict::Ok)] {
            assert_eq!(judge_disk(Path::new("/s"), free).verdict, want, "{free}");
        }
    }

    #[test]
    fn either_cgroup_version_will_do() {
        let v1 =
            |controller: &str| format!("33 31 0:30 / /sys/fs/cgroup/x rw,relatime - cgroup cgroup rw,{controller}\n");
        let unused = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n".to_owned();
        for (mounts, want) in [
            ("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n".to_owned(), "version 2"),
            (v1("cpu,cpuacct") + &v1("memory") + &v1("pids") + &unused, "version 1"),
            (v1("cpuacct") + &v1("memory") + &unused, "no controller cpu, pids"),
            (String::new(), "no controller cpu, memory, pids"),
        ] {
            assert_eq!(judge_cgroups(&mounts).found, want, "{mounts}");
        }
    }
}
