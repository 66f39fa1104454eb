//! What this machine is and has, and whether it is running short of it.

use std::fs;

use nix::sys::{statvfs::statvfs, utsname::uname};
use osc_agent_protocol::kind::chain;

use crate::{
    cri::Client,
    engine::{Engine, EngineError},
    pod::{machine_cpus, machine_memory},
};

/// Less available memory than this is pressure, in bytes.
const MEMORY_LOW: u64 = 100 << 20;
/// Less free disk than this part is pressure, and
const DISK_LOW: u64 = 10;
/// less than this, in bytes: a tenth of a large disk that others fill is plenty.
const DISK_ENOUGH: u64 = 2 << 30;
/// Less free process ids than this part is pressure.
const PROCESSES_LOW: u64 = 10;

/// The machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    state: std::path::PathBuf,
    pub(super) cpus: u64,
    pub(super) memory: u64,
    pub(super) disk: u64,
    pub(super) boot_id: String,
    pub(super) machine_id: String,
    pub(super) kernel: String,
    pub(super) os: String,
    pub(super) engine: String,
    pub(super) pod_cidr: String,
}

/// What the machine is running short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pressure {
    pub(super) memory: bool,
    pub(super) disk: bool,
    pub(super) processes: bool,
}

impl Machine {
    /// Asks the machine, and its engine what it is.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub(super) async fn look(engine: &Engine, client: &Client) -> Result<Self, EngineError> {
        let (name, version) = client.version().await?;
        let state = engine.paths().dirs().state();
        let (disk, _) = disk(&state);
        let line = |file: &str| fs::read_to_string(file).unwrap_or_default().trim().to_owned();
        let kernel = uname().map(|name| name.release().to_string_lossy().into_owned());
        Ok(Self {
            cpus: machine_cpus(),
            memory: machine_memory(),
            disk,
            state,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            machine_id: line("/etc/machine-id"),
            kernel: kernel.unwrap_or_default(),
            os: os(&line("/etc/os-release")),
            engine: format!("{name}://{}", version.trim_start_matches('v')),
            pod_cidr: format!("{}/24", engine.subnets()?.v4),
        })
    }

    /// In the words of the Go language, as everywhere in Kubernetes.
    pub(super) fn architecture(&self) -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    pub(super) fn pressure(&self) -> Pressure {
        let (disk, free) = disk(&self.state);
        Pressure {
            memory: available().is_some_and(|available| available < MEMORY_LOW),
            disk: free < (disk / DISK_LOW).min(DISK_ENOUGH),
            processes: processes().is_some_and(|(now, most)| now > most - most / PROCESSES_LOW),
        }
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self {
            state: "/".into(),
            cpus: 2,
            memory: 4 << 30,
            disk: 10 << 30,
            boot_id: "b".into(),
            machine_id: "m".into(),
            kernel: "6.1".into(),
            os: "Debian".into(),
            engine: "containerd://1".into(),
            pod_cidr: "10.128.1.0/24".into(),
        }
    }
}

/// Why the engine cannot start pods, if it cannot.
pub(super) async fn problem(engine: &Client) -> Option<String> {
    match engine.unmet_conditions().await {
        Ok(unmet) if unmet.is_empty() => None,
        Ok(unmet) => Some(format!("container runtime is not ready: {}", unmet.join("; "))),
        Err(error) => Some(format!("container runtime is down: {}", chain(&error))),
    }
}

/// Bytes of the file system of `dir`: all, and those that are free.
pub(super) fn disk(dir: &std::path::Path) -> (u64, u64) {
    statvfs(dir).map_or((0, 0), |found| {
        (found.blocks() * found.fragment_size(), found.blocks_available() * found.fragment_size())
    })
}

fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processes there are, and may be.
fn processes() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let now = text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    Some((now, most))
}

/// `PRETTY_NAME` of os-release(5).
fn os(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        assert!(available().is_some_and(|bytes| bytes > 0));
        assert!(processes().is_some_and(|(now, most)| now > 0 && now <= most));
        assert!(disk(std::path::Path::new("/")).0 > 0);
        assert_eq!(os("ID=x\nPRETTY_NAME=\"A B\"\n"), "A B");
    }
}
