//! Kernel settings of a small guest.

use std::{fs, io};

use super::BootError;

const RESERVE: &str = "/proc/sys/vm/min_free_kbytes";

pub(super) fn apply() -> Vec<BootError> {
    let hostname = set_hostname().map_err(|source| BootError::Setting { setting: "the host name", source });
    let reserve = shrink_reserve().map_err(|source| BootError::Setting { setting: "vm.min_free_kbytes", source });
    [hostname, reserve].into_iter().filter_map(Result::err).collect()
}

fn set_hostname() -> io::Result<()> {
    match fs::read_to_string("/etc/hostname") {
        Ok(name) => Ok(nix::unistd::sethostname(name.trim())?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Huge-page support raises the reserve to tens of MiB, which a guest of one pod
/// loses from what it was given. Kernels without it are left as they are.
fn shrink_reserve() -> io::Result<()> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let current: u64 = fs::read_to_string(RESERVE)?.trim().parse().unwrap_or(0);
    let Some(wanted) = total_kib(&memory).map(reserve_kib) else { return Ok(()) };
    if current > wanted { fs::write(RESERVE, wanted.to_string()) } else { Ok(()) }
}

fn total_kib(meminfo: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

/// The kernel's own rule, four times the square root of the memory in KiB, with
/// a ceiling: interrupt-time allocations of a guest do not grow with its size.
fn reserve_kib(total: u64) -> u64 {
    (4 * total.isqrt()).clamp(512, 16384)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_grows_slowly() {
        for (total_mib, want) in [(64, 1024), (256, 2048), (2048, 5792), (65536, 16384), (0, 512)] {
            assert_eq!(reserve_kib(total_mib << 10), want, "{total_mib} MiB");
        }
    }

    #[test]
    fn total_memory_is_read_from_meminfo() {
        assert_eq!(total_kib("MemTotal:        2018148 kB\nMemFree: 1 kB\n"), Some(2_018_148));
        assert_eq!(total_kib("nonsense"), None);
    }
}
