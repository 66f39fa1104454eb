//! OCI limits as the files of the unified hierarchy spell them.

use std::{io, path::Path};

use osc_agent_protocol::oci;

use super::{failed, write};
use crate::container::Result;

/// A file and what to write into it.
type Setting = (String, String);

/// Writes all of `resources` that is set into the control group `dir`.
///
/// # Errors
/// When the kernel refuses a value. A file that does not exist is skipped: the
/// kernel lacks that controller, which is no reason not to run.
pub fn apply(dir: &Path, resources: &oci::LinuxResources) -> Result<()> {
    for (file, value) in settings(resources) {
        let path = dir.join(&file);
        match write(&path, &value) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && dir.exists() => {
                tracing::debug!(file, value, "limit skipped: no such controller");
            }
            Err(source) => return Err(failed("set limit in", &path, source)),
        }
    }
    Ok(())
}

fn settings(resources: &oci::LinuxResources) -> Vec<Setting> {
    let mut out = Vec::new();
    cpu(&resources.CPU, &mut out);
    memory(&resources.Memory, &mut out);
    block_io(&resources.BlockIO, &mut out);
    if resources.Pids.Limit != 0 {
        set(&mut out, "pids.max", limit(resources.Pids.Limit));
    }
    for page in &resources.HugepageLimits {
        set(&mut out, &format!("hugetlb.{}.max", page.Pagesize), page.Limit);
    }
    out
}

fn set(out: &mut Vec<Setting>, file: &str, value: impl ToString) {
    out.push((file.into(), value.to_string()));
}

/// Negative limits mean none.
fn limit(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn cpu(cpu: &oci::LinuxCPU, out: &mut Vec<Setting>) {
    if cpu.Shares != 0 {
        set(out, "cpu.weight", weight_from_shares(cpu.Shares));
    }
    if cpu.Quota != 0 || cpu.Period != 0 {
        let quota = if cpu.Quota > 0 { cpu.Quota.to_string() } else { "max".into() };
        let period = if cpu.Period == 0 { String::new() } else { format!(" {}", cpu.Period) };
        set(out, "cpu.max", format!("{quota}{period}"));
    }
    if !cpu.Cpus.is_empty() {
        set(out, "cpuset.cpus", &cpu.Cpus);
    }
    if !cpu.Mems.is_empty() {
        set(out, "cpuset.mems", &cpu.Mems);
    }
}

/// Shares range from 2 to 262144, weights from 1 to 10000; both ends meet.
fn weight_from_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn memory(memory: &oci::LinuxMemory, out: &mut Vec<Setting>) {
    // Swap counts memory too in the specification, but not in the file.
    if memory.Swap < 0 {
        set(out, "memory.swap.max", "max");
    } else if memory.Swap > 0 && memory.Limit > 0 {
        set(out, "memory.swap.max", (memory.Swap - memory.Limit).max(0));
    }
    if memory.Limit != 0 {
        set(out, "memory.max", limit(memory.Limit));
    }
    if memory.Reservation != 0 {
        set(out, "memory.low", limit(memory.Reservation));
    }
}

fn block_io(io: &oci::LinuxBlockIO, out: &mut Vec<Setting>) {
    if io.Weight != 0 {
        set(out, "io.bfq.weight", io.Weight);
    }
    let rates = [
        ("rbps", &io.ThrottleReadBpsDevice),
        ("wbps", &io.ThrottleWriteBpsDevice),
        ("riops", &io.ThrottleReadIOPSDevice),
        ("wiops", &io.ThrottleWriteIOPSDevice),
    ];
    for (key, devices) in rates {
        for device in devices {
            set(out, "io.max", format!("{}:{} {key}={}", device.Major, device.Minor, device.Rate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resources: oci::LinuxResources, want: &[(&str, &str)]) {
        let got = settings(&resources);
        let got: Vec<_> = got.iter().map(|(file, value)| (file.as_str(), value.as_str())).collect();
        assert_eq!(got, want, "{resources:?}");
    }

    #[test]
    fn processor_limits() {
        let cpu = |shares, quota, period| oci::LinuxResources {
            CPU: Some(oci::LinuxCPU { Shares: shares, Quota: quota, Period: period, ..oci::LinuxCPU::default() })
                .into(),
            ..oci::LinuxResources::default()
        };
        check(cpu(0, 0, 0), &[]);
        check(cpu(2, 0, 0), &[("cpu.weight", "1")]);
        check(cpu(1024, 0, 0), &[("cpu.weight", "39")]);
        check(cpu(262_144, 0, 0), &[("cpu.weight", "10000")]);
        check(cpu(0, 50_000, 100_000), &[("cpu.max", "50000 100000")]);
        check(cpu(0, -1, 100_000), &[("cpu.max", "max 100000")]);
        check(cpu(0, 50_000, 0), &[("cpu.max", "50000")]);
    }

    #[test]
    fn memory_limits() {
        let memory = |limit, swap, reservation| oci::LinuxResources {
            Memory: Some(oci::LinuxMemory {
                Limit: limit,
                Swap: swap,
                Reservation: reservation,
                ..oci::LinuxMemory::default()
            })
            .into(),
            ..oci::LinuxResources::default()
        };
        check(memory(1000, 0, 0), &[("memory.max", "1000")]);
        check(memory(1000, 1500, 0), &[("memory.swap.max", "500"), ("memory.max", "1000")]);
        check(memory(1000, 1000, 0), &[("memory.swap.max", "0"), ("memory.max", "1000")]);
        check(memory(-1, -1, 0), &[("memory.swap.max", "max"), ("memory.max", "max")]);
        check(memory(0, 0, 7), &[("memory.low", "7")]);
    }

    #[test]
    fn other_limits() {
        let resources = oci::LinuxResources {
            Pids: Some(oci::LinuxPids { Limit: -1, ..oci::LinuxPids::default() }).into(),
            HugepageLimits: vec![oci::LinuxHugepageLimit {
                Pagesize: "2MB".into(),
                Limit: 4,
                ..oci::LinuxHugepageLimit::default()
            }],
            BlockIO: Some(oci::LinuxBlockIO {
                ThrottleReadBpsDevice: vec![oci::LinuxThrottleDevice {
                    Major: 8,
                    Minor: 0,
                    Rate: 100,
                    ..oci::LinuxThrottleDevice::default()
                }],
                ..oci::LinuxBlockIO::default()
            })
            .into(),
            ..oci::LinuxResources::default()
        };
        check(resources, &[("io.max", "8:0 rbps=100"), ("pids.max", "max"), ("hugetlb.2MB.max", "4")]);
    }
}
