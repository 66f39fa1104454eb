//! A host process as `/proc` shows it (proc(5): `status`, `stat`, `io`, `fd`,
//! `net/dev`).

use std::{fs, io, path::PathBuf};

use super::Text;

/// Which families a process gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Process only.
    Process,
    /// And the interfaces of its network namespace.
    WithNetwork,
}

/// A process read through `/proc`.
#[derive(Debug)]
pub struct Process {
    proc: PathBuf,
}

/// Items of `status` that are exported; sizes become bytes.
const STATUS: [&str; 19] = [
    "VmPeak",
    "VmSize",
    "VmLck",
    "VmPin",
    "VmHWM",
    "VmRSS",
    "RssAnon",
    "RssFile",
    "RssShmem",
    "VmData",
    "VmStk",
    "VmExe",
    "VmLib",
    "VmPTE",
    "VmPMD",
    "VmSwap",
    "HugetlbPages",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
];

/// Columns of `net/dev` after the interface name.
const NETDEV: [&str; 16] = [
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

impl Process {
    /// The process `pid`.
    pub fn new(pid: u32) -> Self {
        Self { proc: PathBuf::from(format!("/proc/{pid}")) }
    }

    /// Writes the families `<prefix>_threads`, `_fds`, `_proc_status`, `_proc_stat`,
    /// `_io_stat` and, when asked, `_netdev`.
    ///
    /// # Errors
    /// When the process is gone; `text` then has nothing of it.
    pub fn render(&self, text: &mut Text, prefix: &str, extent: Extent) -> io::Result<()> {
        let status = fs::read_to_string(self.proc.join("status"))?;
        let stat = fs::read_to_string(self.proc.join("stat"))?;
        let io = fs::read_to_string(self.proc.join("io"))?;
        let fds = fs::read_dir(self.proc.join("fd"))?.count();

        let threads = field(&status, "Threads").unwrap_or_default();
        text.single(&format!("{prefix}_threads"), "gauge", "Threads of the process.", threads);
        text.single(&format!("{prefix}_fds"), "gauge", "Open file descriptors of the process.", fds);

        let name = format!("{prefix}_proc_status");
        text.family(&name, "gauge", "From /proc/<pid>/status, sizes in bytes.");
        for item in STATUS {
            if let Some(value) = field(&status, item) {
                text.sample(&name, &[("item", &item.to_ascii_lowercase())], value);
            }
        }
        let name = format!("{prefix}_proc_stat");
        text.family(&name, "gauge", "From /proc/<pid>/stat, clock ticks.");
        for (item, value) in ["utime", "stime", "cutime", "cstime"].into_iter().zip(ticks(&stat)) {
            text.sample(&name, &[("item", item)], value);
        }
        let name = format!("{prefix}_io_stat");
        text.family(&name, "gauge", "From /proc/<pid>/io.");
        for item in ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"] {
            if let Some(value) = field(&io, item) {
                text.sample(&name, &[("item", &item.replace('_', ""))], value);
            }
        }
        if extent == Extent::WithNetwork {
            self.network(text, prefix)?;
        }
        Ok(())
    }

    /// Writes the standard `process_*` families.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn render_standard(&self, text: &mut Text) -> io::Result<()> {
        let status = fs::read_to_string(self.proc.join("status"))?;
        let stat = fs::read_to_string(self.proc.join("stat"))?;
        let limits = fs::read_to_string(self.proc.join("limits"))?;
        let fds = fs::read_dir(self.proc.join("fd"))?.count();
        let [user, system, ..] = ticks(&stat);
        let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let started = after_name(&stat).nth(19).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default() / hertz;
        let max_fds = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<u64>().ok());
        let seconds = (user + system) as f64 / hertz;
        text.single("process_cpu_seconds_total", "counter", "Processor time used.", seconds);
        text.single("process_open_fds", "gauge", "Open file descriptors.", fds);
        text.single("process_max_fds", "gauge", "Limit of open file descriptors.", max_fds.unwrap_or_default());
        let resident = field(&status, "VmRSS").unwrap_or_default();
        text.single("process_resident_memory_bytes", "gauge", "Resident memory.", resident);
        let size = field(&status, "VmSize").unwrap_or_default();
        text.single("process_virtual_memory_bytes", "gauge", "Virtual memory.", size);
        let start = boot_time()? + started;
        text.single("process_start_time_seconds", "gauge", "Start, as Unix time.", start);
        Ok(())
    }

    fn network(&self, text: &mut Text, prefix: &str) -> io::Result<()> {
        let name = format!("{prefix}_netdev");
        let devices = fs::read_to_string(self.proc.join("net/dev"))?;
        text.family(&name, "gauge", "From /proc/<pid>/net/dev.");
        for line in devices.lines() {
            let Some((interface, counters)) = line.split_once(':') else { continue };
            for (item, value) in NETDEV.iter().zip(counters.split_whitespace()) {
                text.sample(&name, &[("interface", interface.trim()), ("item", item)], value);
            }
        }
        Ok(())
    }
}

/// The value of `name: value [kB]`, in bytes when it has a unit.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut words = rest.split_whitespace();
    let value: u64 = words.next()?.parse().ok()?;
    Some(if words.next() == Some("kB") { value * 1024 } else { value })
}

/// Fields of `stat` after the command name, which may itself hold spaces and
/// brackets: the first one here is field 3 of proc(5).
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// utime, stime, cutime, cstime: fields 14 to 17.
fn ticks(stat: &str) -> [u64; 4] {
    let mut fields = after_name(stat).skip(11).map(|field| field.parse().unwrap_or_default());
    std::array::from_fn(|_| fields.next().unwrap_or_default())
}

fn boot_time() -> io::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    Ok(stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_odd_command_names() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 11 12 13 14 20 0 1 0 999 1 1";
        assert_eq!(ticks(stat), [11, 12, 13, 14]);
        assert_eq!(after_name(stat).nth(19), Some("999"));
        assert_eq!(field("VmRSS:\t  12 kB\nThreads:\t3\n", "VmRSS"), Some(12288));
        assert_eq!(field("VmRSS:\t  12 kB\nThreads:\t3\n", "Threads"), Some(3));
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmR"), None);
    }

    #[test]
    fn this_process_has_every_family() {
        let mut text = Text::default();
        let me = Process::new(std::process::id());
        me.render(&mut text, "kata_shim", Extent::WithNetwork).unwrap();
        me.render_standard(&mut text).unwrap();
        let text = text.finish();
        for start in [
            "kata_shim_threads ",
            "kata_shim_fds ",
            "kata_shim_proc_status{item=\"vmrss\"} ",
            "kata_shim_proc_stat{item=\"utime\"} ",
            "kata_shim_io_stat{item=\"cancelledwritebytes\"} ",
            "kata_shim_netdev{interface=\"lo\",item=\"recv_bytes\"} ",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(start)), "{start} in\n{text}");
        }
    }

    #[test]
    fn a_process_that_is_gone_leaves_no_half_family() {
        let mut text = Text::default();
        assert!(Process::new(u32::MAX).render(&mut text, "x", Extent::Process).is_err());
        assert_eq!(text.finish(), "");
    }
}
