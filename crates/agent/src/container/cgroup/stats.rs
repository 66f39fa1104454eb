//! What a control group uses, in the terms of the agent protocol.

use std::{collections::HashMap, fs, io, path::Path};

use osc_agent_protocol::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats, PidsStats,
    StatsContainerResponse, ThrottlingData,
};

use super::{failed, flat_keyed};
use crate::container::Result;

/// Reads the statistics of the control group `dir`. Files of controllers that
/// do not exist count as zero.
///
/// # Errors
/// When the control group is gone.
pub fn read(dir: &Path) -> Result<StatsContainerResponse> {
    // Present in every control group, whatever the controllers.
    let path = dir.join("cpu.stat");
    let cpu = fs::read_to_string(&path).map_err(|source| failed("read", &path, source))?;
    let cgroup = CgroupStats {
        cpu_stats: Some(cpu_stats(&cpu)).into(),
        memory_stats: Some(memory_stats(dir)).into(),
        pids_stats: Some(pids_stats(dir)).into(),
        blkio_stats: Some(blkio_stats(&text(dir, "io.stat"))).into(),
        hugetlb_stats: hugetlb_stats(dir).unwrap_or_default(),
        ..CgroupStats::default()
    };
    Ok(StatsContainerResponse { cgroup_stats: Some(cgroup).into(), ..StatsContainerResponse::default() })
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// A single number; `max` is the largest there is.
fn number(dir: &Path, file: &str) -> u64 {
    match text(dir, file).trim() {
        "max" => u64::MAX,
        value => value.parse().unwrap_or(0),
    }
}

fn pairs(text: &str) -> HashMap<String, u64> {
    flat_keyed(text).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn cpu_stats(text: &str) -> CpuStats {
    let value = pairs(text);
    let value = |key: &str| value.get(key).copied().unwrap_or(0);
    // The file counts microseconds, the protocol nanoseconds.
    let nanoseconds = |key: &str| value(key).saturating_mul(1000);
    CpuStats {
        cpu_usage: Some(CpuUsage {
            total_usage: nanoseconds("usage_usec"),
            usage_in_kernelmode: nanoseconds("system_usec"),
            usage_in_usermode: nanoseconds("user_usec"),
            ..CpuUsage::default()
        })
        .into(),
        throttling_data: Some(ThrottlingData {
            periods: value("nr_periods"),
            throttled_periods: value("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
            ..ThrottlingData::default()
        })
        .into(),
        ..CpuStats::default()
    }
}

fn memory_stats(dir: &Path) -> MemoryStats {
    let stats = pairs(&text(dir, "memory.stat"));
    let data = |kind: &str| MemoryData {
        usage: number(dir, &format!("{kind}.current")),
        max_usage: number(dir, &format!("{kind}.peak")),
        failcnt: pairs(&text(dir, &format!("{kind}.events"))).get("max").copied().unwrap_or(0),
        limit: number(dir, &format!("{kind}.max")),
        ..MemoryData::default()
    };
    MemoryStats {
        cache: stats.get("file").copied().unwrap_or(0),
        usage: Some(data("memory")).into(),
        swap_usage: Some(data("memory.swap")).into(),
        use_hierarchy: true,
        stats,
        ..MemoryStats::default()
    }
}

fn pids_stats(dir: &Path) -> PidsStats {
    // Zero is how the protocol says "no limit" here.
    let limit = Some(number(dir, "pids.max")).filter(|limit| *limit != u64::MAX).unwrap_or(0);
    PidsStats { current: number(dir, "pids.current"), limit, ..PidsStats::default() }
}

/// `io.stat` has a line for each device: `8:0 rbytes=1 wbytes=2 rios=3 …`.
fn blkio_stats(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut stats.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut stats.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut stats.io_serviced_recursive, "Read"),
                "wios" => (&mut stats.io_serviced_recursive, "Write"),
                "dios" => (&mut stats.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            list.push(BlkioStatsEntry { major, minor, op: op.into(), value, ..BlkioStatsEntry::default() });
        }
    }
    stats
}

fn hugetlb_stats(dir: &Path) -> io::Result<HashMap<String, HugetlbStats>> {
    let mut sizes = HashMap::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(size) = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")?.strip_suffix(".current")) else {
            continue;
        };
        if size.contains('.') {
            // The reservation counters, `hugetlb.<size>.rsvd.current`.
            continue;
        }
        let failcnt = pairs(&text(dir, &format!("hugetlb.{size}.events"))).get("max").copied().unwrap_or(0);
        let usage = number(dir, &format!("hugetlb.{size}.current"));
        sizes.insert(size.to_owned(), HugetlbStats { usage, failcnt, ..HugetlbStats::default() });
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_times_are_nanoseconds() {
        let stats =
            cpu_stats("usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5\n");
        assert_eq!(stats.cpu_usage.total_usage, 30_000);
        assert_eq!(stats.cpu_usage.usage_in_kernelmode, 10_000);
        assert_eq!((stats.throttling_data.throttled_periods, stats.throttling_data.throttled_time), (2, 5_000));
    }

    #[test]
    fn block_devices_are_told_apart() {
        let stats = blkio_stats("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1 rbytes=9\nodd\n");
        let bytes: Vec<_> =
            stats.io_service_bytes_recursive.iter().map(|e| (e.major, e.minor, e.op.as_str(), e.value)).collect();
        assert_eq!(bytes, [(8, 0, "Read", 1), (8, 0, "Write", 2), (8, 0, "Discard", 0), (253, 1, "Read", 9)]);
        assert_eq!(stats.io_serviced_recursive.len(), 3);
    }

    #[test]
    fn a_control_group_without_controllers_counts_zero() {
        let dir = std::env::temp_dir().join(format!("stats-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cpu.stat"), "usage_usec 1\n").unwrap();
        fs::write(dir.join("memory.max"), "max\n").unwrap();
        let stats = read(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(stats.cgroup_stats.memory_stats.usage.limit, u64::MAX);
        assert_eq!(stats.cgroup_stats.pids_stats.limit, 0);
        assert!(read(&dir).is_err());
    }
}
