//! Resource usage as engines read it: the metrics of control groups version 1 or
//! 2, whichever the host has, from what the guest counted in whichever it has.

use std::collections::HashMap;

use containerd_shim_protos::{cgroups::metrics as v1, cgroups_v2::metrics as v2};
use osc_agent_protocol::agent::{
    BlkioStatsEntry, CgroupStats, MemoryData, NetworkStats, StatsContainerResponse, ThrottlingData,
};
use osc_runtime::sandbox::CgroupVersion;
use protobuf::{Message, MessageField, well_known_types::any::Any};

/// `answer` of the agent in the form of the host's control groups.
pub(super) fn metrics(answer: StatsContainerResponse, host: CgroupVersion) -> Any {
    let group = answer.cgroup_stats.unwrap_or_default();
    let (type_url, value) = match host {
        CgroupVersion::V1 => ("io.containerd.cgroups.v1.Metrics", encode(&version_1(&group, &answer.network_stats))),
        CgroupVersion::V2 => ("io.containerd.cgroups.v2.Metrics", encode(&version_2(&group, &answer.network_stats))),
    };
    Any { type_url: type_url.to_owned(), value, ..Any::default() }
}

fn encode(message: &impl Message) -> Vec<u8> {
    message.write_to_bytes().expect("messages without required fields can be encoded")
}

/// Looks a counter up under the name of either version; absent ones are 0.
struct Counters<'a>(&'a HashMap<String, u64>);

impl Counters<'_> {
    fn any(&self, names: &[&str]) -> u64 {
        names.iter().find_map(|name| self.0.get(*name)).copied().unwrap_or_default()
    }
}

fn version_1(group: &CgroupStats, network: &[NetworkStats]) -> v1::Metrics {
    let cpu = group.cpu_stats.get_or_default();
    let usage = cpu.cpu_usage.get_or_default();
    let pids = group.pids_stats.get_or_default();
    v1::Metrics {
        hugetlb: group
            .hugetlb_stats
            .iter()
            .map(|(pagesize, stat)| v1::HugetlbStat {
                usage: stat.usage,
                max: stat.max_usage,
                failcnt: stat.failcnt,
                pagesize: pagesize.clone(),
                ..Default::default()
            })
            .collect(),
        pids: MessageField::some(v1::PidsStat { current: pids.current, limit: pids.limit, ..Default::default() }),
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(v1::CPUUsage {
                total: usage.total_usage,
                kernel: usage.usage_in_kernelmode,
                user: usage.usage_in_usermode,
                per_cpu: usage.percpu_usage.clone(),
                ..Default::default()
            }),
            throttling: MessageField::some(throttle(cpu.throttling_data.get_or_default())),
            ..Default::default()
        }),
        memory: MessageField::some(memory_1(group)),
        blkio: MessageField::some(blkio_1(group)),
        network: network
            .iter()
            .map(|n| v1::NetworkStat {
                name: n.name.clone(),
                rx_bytes: n.rx_bytes,
                rx_packets: n.rx_packets,
                rx_errors: n.rx_errors,
                rx_dropped: n.rx_dropped,
                tx_bytes: n.tx_bytes,
                tx_packets: n.tx_packets,
                tx_errors: n.tx_errors,
                tx_dropped: n.tx_dropped,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn throttle(data: &ThrottlingData) -> v1::Throttle {
    v1::Throttle {
        periods: data.periods,
        throttled_periods: data.throttled_periods,
        throttled_time: data.throttled_time,
        ..Default::default()
    }
}

fn memory_1(group: &CgroupStats) -> v1::MemoryStat {
    let memory = group.memory_stats.get_or_default();
    let counters = Counters(&memory.stats);
    let entry = |data: &MemoryData| {
        MessageField::some(v1::MemoryEntry {
            limit: data.limit,
            usage: data.usage,
            max: data.max_usage,
            failcnt: data.failcnt,
            ..Default::default()
        })
    };
    let cache = if memory.cache > 0 { memory.cache } else { counters.any(&["cache", "file"]) };
    let rss = counters.any(&["rss", "anon"]);
    let huge = counters.any(&["rss_huge", "anon_thp"]);
    let mapped = counters.any(&["mapped_file", "file_mapped"]);
    let dirty = counters.any(&["dirty", "file_dirty"]);
    let writeback = counters.any(&["writeback", "file_writeback"]);
    let (faults, major) = (counters.any(&["pgfault"]), counters.any(&["pgmajfault"]));
    let [inactive_anon, active_anon, inactive_file, active_file, unevictable] =
        ["inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"]
            .map(|name| counters.any(&[name]));
    let total = |name: &str, own: u64| memory.stats.get(&format!("total_{name}")).copied().unwrap_or(own);
    v1::MemoryStat {
        cache,
        rss,
        rss_huge: huge,
        mapped_file: mapped,
        dirty,
        writeback,
        pg_pg_in: counters.any(&["pgpgin"]),
        pg_pg_out: counters.any(&["pgpgout"]),
        pg_fault: faults,
        pg_maj_fault: major,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        hierarchical_memory_limit: counters.any(&["hierarchical_memory_limit"]),
        hierarchical_swap_limit: counters.any(&["hierarchical_memsw_limit"]),
        // A container's group has no children of its own, so the sums are the same.
        total_cache: total("cache", cache),
        total_rss: total("rss", rss),
        total_rss_huge: total("rss_huge", huge),
        total_mapped_file: total("mapped_file", mapped),
        total_dirty: total("dirty", dirty),
        total_writeback: total("writeback", writeback),
        total_pg_pg_in: total("pgpgin", 0),
        total_pg_pg_out: total("pgpgout", 0),
        total_pg_fault: total("pgfault", faults),
        total_pg_maj_fault: total("pgmajfault", major),
        total_inactive_anon: total("inactive_anon", inactive_anon),
        total_active_anon: total("active_anon", active_anon),
        total_inactive_file: total("inactive_file", inactive_file),
        total_active_file: total("active_file", active_file),
        total_unevictable: total("unevictable", unevictable),
        usage: entry(memory.usage.get_or_default()),
        swap: entry(memory.swap_usage.get_or_default()),
        kernel: entry(memory.kernel_usage.get_or_default()),
        ..Default::default()
    }
}

fn blkio_1(group: &CgroupStats) -> v1::BlkIOStat {
    let io = group.blkio_stats.get_or_default();
    let entries = |list: &[BlkioStatsEntry]| {
        list.iter()
            .map(|e| v1::BlkIOEntry {
                op: e.op.clone(),
                major: e.major,
                minor: e.minor,
                value: e.value,
                ..Default::default()
            })
            .collect()
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: entries(&io.io_service_bytes_recursive),
        io_serviced_recursive: entries(&io.io_serviced_recursive),
        io_queued_recursive: entries(&io.io_queued_recursive),
        io_service_time_recursive: entries(&io.io_service_time_recursive),
        io_wait_time_recursive: entries(&io.io_wait_time_recursive),
        io_merged_recursive: entries(&io.io_merged_recursive),
        io_time_recursive: entries(&io.io_time_recursive),
        sectors_recursive: entries(&io.sectors_recursive),
        ..Default::default()
    }
}

fn version_2(group: &CgroupStats, network: &[NetworkStats]) -> v2::Metrics {
    let cpu = group.cpu_stats.get_or_default();
    let usage = cpu.cpu_usage.get_or_default();
    let throttling = cpu.throttling_data.get_or_default();
    let pids = group.pids_stats.get_or_default();
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat { current: pids.current, limit: pids.limit, ..Default::default() }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: usage.total_usage / 1000,
            user_usec: usage.usage_in_usermode / 1000,
            system_usec: usage.usage_in_kernelmode / 1000,
            nr_periods: throttling.periods,
            nr_throttled: throttling.throttled_periods,
            throttled_usec: throttling.throttled_time / 1000,
            ..Default::default()
        }),
        memory: MessageField::some(memory_2(group)),
        io: MessageField::some(io_2(group)),
        hugetlb: group
            .hugetlb_stats
            .iter()
            .map(|(pagesize, stat)| v2::HugeTlbStat {
                current: stat.usage,
                max: stat.max_usage,
                failcnt: stat.failcnt,
                pagesize: pagesize.clone(),
                ..Default::default()
            })
            .collect(),
        network: network
            .iter()
            .map(|n| v2::NetworkStat {
                name: n.name.clone(),
                rx_bytes: n.rx_bytes,
                rx_packets: n.rx_packets,
                rx_errors: n.rx_errors,
                rx_dropped: n.rx_dropped,
                tx_bytes: n.tx_bytes,
                tx_packets: n.tx_packets,
                tx_errors: n.tx_errors,
                tx_dropped: n.tx_dropped,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn memory_2(group: &CgroupStats) -> v2::MemoryStat {
    let memory = group.memory_stats.get_or_default();
    let counters = Counters(&memory.stats);
    let (usage, swap) = (memory.usage.get_or_default(), memory.swap_usage.get_or_default());
    v2::MemoryStat {
        anon: counters.any(&["anon", "total_rss", "rss"]),
        file: counters.any(&["file", "total_cache", "cache"]),
        kernel_stack: counters.any(&["kernel_stack"]),
        slab: counters.any(&["slab"]),
        sock: counters.any(&["sock"]),
        shmem: counters.any(&["shmem"]),
        file_mapped: counters.any(&["file_mapped", "total_mapped_file", "mapped_file"]),
        file_dirty: counters.any(&["file_dirty", "total_dirty", "dirty"]),
        file_writeback: counters.any(&["file_writeback", "total_writeback", "writeback"]),
        anon_thp: counters.any(&["anon_thp", "total_rss_huge", "rss_huge"]),
        inactive_anon: counters.any(&["total_inactive_anon", "inactive_anon"]),
        active_anon: counters.any(&["total_active_anon", "active_anon"]),
        inactive_file: counters.any(&["total_inactive_file", "inactive_file"]),
        active_file: counters.any(&["total_active_file", "active_file"]),
        unevictable: counters.any(&["total_unevictable", "unevictable"]),
        slab_reclaimable: counters.any(&["slab_reclaimable"]),
        slab_unreclaimable: counters.any(&["slab_unreclaimable"]),
        pgfault: counters.any(&["total_pgfault", "pgfault"]),
        pgmajfault: counters.any(&["total_pgmajfault", "pgmajfault"]),
        usage: usage.usage,
        usage_limit: usage.limit,
        swap_usage: swap.usage,
        swap_limit: swap.limit,
        max_usage: usage.max_usage,
        swap_max_usage: swap.max_usage,
        ..Default::default()
    }
}

/// Version 2 has one entry a device where version 1 has one an operation.
fn io_2(group: &CgroupStats) -> v2::IOStat {
    let io = group.blkio_stats.get_or_default();
    let mut devices: Vec<v2::IOEntry> = Vec::new();
    let lists = [(&io.io_service_bytes_recursive, true), (&io.io_serviced_recursive, false)];
    for (entry, bytes) in lists.into_iter().flat_map(|(list, bytes)| list.iter().map(move |entry| (entry, bytes))) {
        let known = devices.iter().position(|d| (d.major, d.minor) == (entry.major, entry.minor));
        let at = known.unwrap_or_else(|| {
            devices.push(v2::IOEntry { major: entry.major, minor: entry.minor, ..Default::default() });
            devices.len() - 1
        });
        let device = &mut devices[at];
        match (entry.op.to_ascii_lowercase().as_str(), bytes) {
            ("read" | "rbytes", true) => device.rbytes = entry.value,
            ("write" | "wbytes", true) => device.wbytes = entry.value,
            ("read" | "rios", false) => device.rios = entry.value,
            ("write" | "wios", false) => device.wios = entry.value,
            _ => {}
        }
    }
    v2::IOStat { usage: devices, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use osc_agent_protocol::agent::{BlkioStats, CpuStats, CpuUsage, MemoryStats};

    use super::*;

    fn answer(stats: &[(&str, u64)]) -> StatsContainerResponse {
        let entry = |op: &str, value| BlkioStatsEntry { major: 8, op: op.into(), value, ..Default::default() };
        let group = CgroupStats {
            cpu_stats: MessageField::some(CpuStats {
                cpu_usage: MessageField::some(CpuUsage {
                    total_usage: 5_000,
                    usage_in_kernelmode: 2_000,
                    usage_in_usermode: 3_000,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            memory_stats: MessageField::some(MemoryStats {
                usage: MessageField::some(MemoryData { usage: 100, limit: 200, ..Default::default() }),
                stats: stats.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
                ..Default::default()
            }),
            blkio_stats: MessageField::some(BlkioStats {
                io_service_bytes_recursive: vec![entry("Read", 10), entry("Write", 20)],
                io_serviced_recursive: vec![entry("read", 1)],
                ..Default::default()
            }),
            ..Default::default()
        };
        StatsContainerResponse { cgroup_stats: MessageField::some(group), ..Default::default() }
    }

    #[test]
    fn a_guest_of_either_version_fits_a_host_of_either_version() {
        let guests = [&[("inactive_file", 7), ("anon", 9)][..], &[("total_inactive_file", 7), ("rss", 9)]];
        for stats in guests {
            let any = metrics(answer(stats), CgroupVersion::V1);
            assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
            let seen = v1::Metrics::parse_from_bytes(&any.value).unwrap();
            assert_eq!((seen.memory.total_inactive_file, seen.memory.rss), (7, 9), "{stats:?}");
            assert_eq!((seen.memory.usage.usage, seen.memory.usage.limit), (100, 200));
            assert_eq!((seen.cpu.usage.total, seen.cpu.usage.kernel, seen.cpu.usage.user), (5_000, 2_000, 3_000));
            assert_eq!(seen.blkio.io_service_bytes_recursive.len(), 2);

            let any = metrics(answer(stats), CgroupVersion::V2);
            assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
            let seen = v2::Metrics::parse_from_bytes(&any.value).unwrap();
            assert_eq!((seen.memory.inactive_file, seen.memory.anon, seen.memory.usage), (7, 9, 100), "{stats:?}");
            assert_eq!((seen.cpu.usage_usec, seen.cpu.system_usec, seen.cpu.user_usec), (5, 2, 3));
            let device = &seen.io.usage[0];
            assert_eq!((seen.io.usage.len(), device.rbytes, device.wbytes, device.rios), (1, 10, 20, 1));
        }
    }
}
