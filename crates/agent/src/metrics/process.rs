//! The agent's own process, from `/proc/self`.

use std::fs;

use super::{MetricsError, read, text::Families};

/// Items of `/proc/self/status`, in the units of that file (kB and counts).
const STATUS: [&str; 18] = [
    "vmpeak",
    "vmsize",
    "vmlck",
    "vmpin",
    "vmhwm",
    "vmrss",
    "rssanon",
    "rssfile",
    "rssshmem",
    "vmdata",
    "vmstk",
    "vmexe",
    "vmlib",
    "vmpte",
    "vmswap",
    "hugetlbpages",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
];

/// What of `/proc/self/stat` is used. Times are in clock ticks.
#[derive(Debug, PartialEq)]
struct Stat {
    utime: f64,
    stime: f64,
    cutime: f64,
    cstime: f64,
    threads: f64,
    start: f64,
    vsize: f64,
    rss_pages: f64,
}

pub(super) fn collect(families: &mut Families) -> Result<(), MetricsError> {
    let ticks = per_second();
    let page = page_size();
    if let Some(stat) = parse_stat(&read("/proc/self/stat")?) {
        let cpu = (stat.utime + stat.stime) / ticks;
        families.gauge("kata_agent_threads", "Threads of the agent").add(&[], stat.threads);
        families.gauge("kata_agent_total_time", "Processor time of the agent in seconds").add(&[], cpu);
        families.gauge("kata_agent_total_vm", "Virtual memory of the agent in bytes").add(&[], stat.vsize);
        families.gauge("kata_agent_total_rss", "Resident memory of the agent in bytes").add(&[], stat.rss_pages * page);
        families
            .gauge("kata_agent_proc_stat", "Times of the agent in clock ticks")
            .item("utime", stat.utime)
            .item("stime", stat.stime)
            .item("cutime", stat.cutime)
            .item("cstime", stat.cstime);
        families.counter("kata_agent_process_cpu_seconds_total", "Processor time of the agent").add(&[], cpu);
        let resident = stat.rss_pages * page;
        families.gauge("kata_agent_process_resident_memory_bytes", "Resident memory").add(&[], resident);
        families.gauge("kata_agent_process_virtual_memory_bytes", "Virtual memory").add(&[], stat.vsize);
        let start = boot_time(&read("/proc/stat")?) + stat.start / ticks;
        families.gauge("kata_agent_process_start_time_seconds", "Start since the epoch").add(&[], start);
    }
    collect_io(families)?;
    collect_status(families)?;
    collect_descriptors(families);
    Ok(())
}

fn collect_io(families: &mut Families) -> Result<(), MetricsError> {
    let text = read("/proc/self/io")?;
    let mut family = families.gauge("kata_agent_io_stat", "Input and output of the agent in bytes and calls");
    for (item, value) in text.lines().filter_map(pair) {
        family.item(&item, value);
    }
    Ok(())
}

fn collect_status(families: &mut Families) -> Result<(), MetricsError> {
    let text = read("/proc/self/status")?;
    let mut family = families.gauge("kata_agent_proc_status", "Status of the agent as the kernel gives it");
    for (item, value) in text.lines().filter_map(pair) {
        if STATUS.contains(&item.as_str()) {
            family.item(&item, value);
        }
    }
    Ok(())
}

fn collect_descriptors(families: &mut Families) {
    // Counting opens one itself.
    let open = fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1));
    families.gauge("kata_agent_process_open_fds", "Open file descriptors").add(&[], open as f64);
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    families.gauge("kata_agent_process_max_fds", "Most file descriptors").add(&[], limit as f64);
}

/// `Key:   number [unit]`, the key in small letters.
fn pair(line: &str) -> Option<(String, f64)> {
    let (key, value) = line.split_once(':')?;
    Some((key.trim().to_ascii_lowercase(), value.split_whitespace().next()?.parse().ok()?))
}

/// The command's name is in parentheses and may hold anything, blanks included.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<f64> = text.rsplit_once(')')?.1.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        utime: field(14)?,
        stime: field(15)?,
        cutime: field(16)?,
        cstime: field(17)?,
        threads: field(20)?,
        start: field(22)?,
        vsize: field(23)?,
        rss_pages: field(24)?,
    })
}

fn boot_time(stat: &str) -> f64 {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0.0)
}

/// Clock ticks a second; the kernel has used 100 towards programs ever since.
pub(super) fn per_second() -> f64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

fn page_size() -> f64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_hold_anything() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 5 0 99 1000000 250 1844 1 1";
        let want = Stat {
            utime: 11.0,
            stime: 12.0,
            cutime: 13.0,
            cstime: 14.0,
            threads: 5.0,
            start: 99.0,
            vsize: 1_000_000.0,
            rss_pages: 250.0,
        };
        assert_eq!(parse_stat(stat), Some(want));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn pairs_lose_their_unit() {
        assert_eq!(pair("VmRSS:\t    5012 kB"), Some(("vmrss".into(), 5012.0)));
        assert_eq!(pair("Name:\tagent"), None);
    }
}
