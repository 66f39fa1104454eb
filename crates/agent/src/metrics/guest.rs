//! The kernel of the guest, from `/proc`.

use std::collections::HashSet;

use nix::sys::statvfs::statvfs;

use super::{MetricsError, process::per_second, read, text::Families};

const CPU: [&str; 10] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
const NET: [&str; 16] = [
    "recv_bytes",
    "recv_packets",
    "recv_errs",
    "recv_drop",
    "recv_fifo",
    "recv_frame",
    "recv_compressed",
    "recv_multicast",
    "sent_bytes",
    "sent_packets",
    "sent_errs",
    "sent_drop",
    "sent_fifo",
    "sent_colls",
    "sent_carrier",
    "sent_compressed",
];
const DISK: [&str; 17] = [
    "reads",
    "merged",
    "sectors_read",
    "time_reading",
    "writes",
    "writes_merged",
    "sectors_written",
    "time_writing",
    "in_progress",
    "time_in_progress",
    "weighted_time_in_progress",
    "discards",
    "discards_merged",
    "sectors_discarded",
    "time_discarding",
    "flushes",
    "time_flushing",
];
/// File systems that hold data and are worth watching.
const FILE_SYSTEMS: [&str; 5] = ["ext4", "xfs", "btrfs", "vfat", "overlay"];

pub(super) fn collect(families: &mut Families) -> Result<(), MetricsError> {
    load(families, &read("/proc/loadavg")?);
    cpu_time(families, &read("/proc/stat")?);
    vm_stat(families, &read("/proc/vmstat")?);
    netdev(families, &read("/proc/net/dev")?);
    diskstat(families, &read("/proc/diskstats")?);
    meminfo(families, &read("/proc/meminfo")?);
    file_systems(families, &read("/proc/mounts")?);
    Ok(())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// `load1 load5 load15 running/all last`.
fn load(families: &mut Families, text: &str) {
    let fields: Vec<_> = text.split_whitespace().collect();
    let mut family = families.gauge("kata_guest_load", "Load averages of the guest");
    for (item, value) in ["load1", "load5", "load15"].iter().zip(&fields) {
        family.item(item, number(value).unwrap_or(0.0));
    }
    let (current, all) = fields.get(3).and_then(|f| f.split_once('/')).unwrap_or(("0", "0"));
    families
        .gauge("kata_guest_tasks", "Tasks of the guest: running, and all there are")
        .item("cur", number(current).unwrap_or(0.0))
        .item("max", number(all).unwrap_or(0.0));
}

fn cpu_time(families: &mut Families, text: &str) {
    let milliseconds = 1000.0 / per_second();
    let mut family = families.gauge("kata_guest_cpu_time", "Processor times of the guest in milliseconds");
    for line in text.lines().filter_map(|line| line.strip_prefix("cpu")) {
        let (cpu, times) = line.split_once(' ').unwrap_or((line, ""));
        let cpu = if cpu.is_empty() { "total" } else { cpu };
        for (item, ticks) in CPU.iter().zip(times.split_whitespace()) {
            family.add(&[("cpu", cpu), ("item", item)], number(ticks).unwrap_or(0.0) * milliseconds);
        }
    }
}

fn vm_stat(families: &mut Families, text: &str) {
    let mut family = families.gauge("kata_guest_vm_stat", "Virtual memory statistics of the guest");
    for (item, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        family.item(item, number(value).unwrap_or(0.0));
    }
}

fn netdev(families: &mut Families, text: &str) {
    let mut family = families.gauge("kata_guest_netdev_stat", "Network interfaces of the guest");
    for (interface, values) in text.lines().filter_map(|line| line.split_once(':')) {
        for (item, value) in NET.iter().zip(values.split_whitespace()) {
            family.add(&[("interface", interface.trim()), ("item", item)], number(value).unwrap_or(0.0));
        }
    }
}

fn diskstat(families: &mut Families, text: &str) {
    let mut family = families.gauge("kata_guest_diskstat", "Disks of the guest");
    for line in text.lines() {
        let mut fields = line.split_whitespace().skip(2);
        let Some(disk) = fields.next() else { continue };
        for (item, value) in DISK.iter().zip(fields) {
            family.add(&[("disk", disk), ("item", item)], number(value).unwrap_or(0.0));
        }
    }
}

fn meminfo(families: &mut Families, text: &str) {
    let mut family = families.gauge("kata_guest_meminfo", "Memory of the guest in bytes");
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let mut words = value.split_whitespace();
        let amount = words.next().and_then(number).unwrap_or(0.0);
        let unit = if words.next() == Some("kB") { 1024.0 } else { 1.0 };
        family.item(&meminfo_item(key), amount * unit);
    }
}

/// The kernel's name in the spelling dashboards know: `MemTotal` is `mem_total`,
/// `Active(anon)` is `active_anon`, and these have spellings of their own.
fn meminfo_item(key: &str) -> String {
    match key {
        "SReclaimable" => return "s_reclaimable".into(),
        "SUnreclaim" => return "s_unreclaim".into(),
        "KReclaimable" => return "k_reclaimable".into(),
        "AnonHugePages" => return "anon_hugepages".into(),
        "ShmemHugePages" => return "shmem_hugepages".into(),
        "HugePages_Total" => return "hugepages_total".into(),
        "HugePages_Free" => return "hugepages_free".into(),
        "HugePages_Rsvd" => return "hugepages_rsvd".into(),
        "HugePages_Surp" => return "hugepages_surp".into(),
        "DirectMap4k" => return "direct_map_4k".into(),
        "DirectMap4M" => return "direct_map_4M".into(),
        "DirectMap2M" => return "direct_map_2M".into(),
        "DirectMap1G" => return "direct_map_1G".into(),
        "Committed_AS" => return "committed_as".into(),
        "Percpu" => return "per_cpu".into(),
        _ => {}
    }
    let mut item = String::with_capacity(key.len() + 4);
    let mut previous = '_';
    for c in key.chars() {
        match c {
            '(' => item.push('_'),
            ')' => {}
            c => {
                if c.is_ascii_uppercase() && previous.is_ascii_lowercase() {
                    item.push('_');
                }
                item.push(c.to_ascii_lowercase());
            }
        }
        previous = c;
    }
    item
}

/// Writable file systems that hold data, each device once.
fn file_systems(families: &mut Families, text: &str) {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let [device, mount, kind, options, ..] = fields[..] else { continue };
        let writable = options.split(',').any(|option| option == "rw");
        if FILE_SYSTEMS.contains(&kind) && writable && seen.insert(device) {
            // One that cannot be asked any more is left out.
            if let Ok(stats) = statvfs(mount) {
                found.push((mount, device, stats));
            }
        }
    }
    type Amount = fn(&nix::sys::statvfs::Statvfs) -> [f64; 3];
    let bytes: Amount = |s| {
        let block = s.fragment_size() as f64;
        let used = s.blocks().saturating_sub(s.blocks_free());
        [s.blocks() as f64 * block, used as f64 * block, s.blocks_available() as f64 * block]
    };
    let inodes: Amount =
        |s| [s.files() as f64, s.files().saturating_sub(s.files_free()) as f64, s.files_available() as f64];
    for (name, help, amount) in [
        ("kata_guest_filesystem_bytes", "File systems of the guest in bytes", bytes),
        ("kata_guest_filesystem_inodes", "File systems of the guest in inodes", inodes),
    ] {
        let mut family = families.gauge(name, help);
        for (mount, device, stats) in &found {
            for (item, value) in ["total", "used", "available"].iter().zip(amount(stats)) {
                family.add(&[("mount", mount), ("device", device), ("item", item)], value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(collect: impl FnOnce(&mut Families)) -> String {
        let mut families = Families::default();
        collect(&mut families);
        families.into_text().lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    }

    type Collect = fn(&mut Families, &str);

    #[test]
    fn kernel_text_becomes_samples() {
        let table: &[(&str, Collect, &str)] = &[
            (
                "0.12 0.50 1.00 2/77 901\n",
                load,
                "kata_guest_load{item=\"load1\"} 0.12\nkata_guest_load{item=\"load5\"} 0.5\n\
                 kata_guest_load{item=\"load15\"} 1\nkata_guest_tasks{item=\"cur\"} 2\nkata_guest_tasks{item=\"max\"} 77",
            ),
            (
                "cpu  10 1\ncpu0 5 1\nintr 7\n",
                cpu_time,
                "kata_guest_cpu_time{cpu=\"total\",item=\"user\"} 100\nkata_guest_cpu_time{cpu=\"total\",item=\"nice\"} 10\n\
                 kata_guest_cpu_time{cpu=\"0\",item=\"user\"} 50\nkata_guest_cpu_time{cpu=\"0\",item=\"nice\"} 10",
            ),
            (
                "Inter-| Receive\n face |bytes\n  eth0: 7 8\n",
                netdev,
                "kata_guest_netdev_stat{interface=\"eth0\",item=\"recv_bytes\"} 7\n\
                 kata_guest_netdev_stat{interface=\"eth0\",item=\"recv_packets\"} 8",
            ),
            (
                " 254 0 vda 5 6\n",
                diskstat,
                "kata_guest_diskstat{disk=\"vda\",item=\"reads\"} 5\nkata_guest_diskstat{disk=\"vda\",item=\"merged\"} 6",
            ),
            (
                "MemTotal: 2 kB\nHugePages_Total: 3\n",
                meminfo,
                "kata_guest_meminfo{item=\"mem_total\"} 2048\nkata_guest_meminfo{item=\"hugepages_total\"} 3",
            ),
        ];
        for (input, collect, want) in table {
            assert_eq!(text(|families| collect(families, input)), *want, "{input}");
        }
    }

    #[test]
    fn memory_items_have_the_names_dashboards_use() {
        for (key, want) in [
            ("MemAvailable", "mem_available"),
            ("Active(anon)", "active_anon"),
            ("SwapCached", "swap_cached"),
            ("AnonPages", "anon_pages"),
            ("PageTables", "page_tables"),
            ("KernelStack", "kernel_stack"),
            ("VmallocTotal", "vmalloc_total"),
            ("HardwareCorrupted", "hardware_corrupted"),
            ("ShmemPmdMapped", "shmem_pmd_mapped"),
            ("CmaFree", "cma_free"),
            ("Hugepagesize", "hugepagesize"),
            ("Hugetlb", "hugetlb"),
            ("DirectMap2M", "direct_map_2M"),
            ("SReclaimable", "s_reclaimable"),
            ("Mlocked", "mlocked"),
        ] {
            assert_eq!(meminfo_item(key), want, "{key}");
        }
    }
}
