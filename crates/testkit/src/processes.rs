//! Processes of this machine, found by what is on their command line.

use std::{fs, path::PathBuf};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Command line, words separated by blanks.
    pub command: String,
}

/// Every process whose command line has all of `words`, this one excluded.
pub fn with(words: &[&str]) -> Vec<Process> {
    let own = std::process::id() as i32;
    all().into_iter().filter(|p| p.pid != own && words.iter().all(|word| p.command.contains(word))).collect()
}

/// The same without those that make a template for sandboxes to come: a process of its
/// own, and the machine that boots for it.
pub fn of_sandboxes(words: &[&str]) -> Vec<Process> {
    let template = |process: &Process| ["sandbox-template,", " template {"].iter().any(|m| process.command.contains(m));
    with(words).into_iter().filter(|process| !template(process)).collect()
}

fn all() -> Vec<Process> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| read(entry.path())).collect()
}

fn read(path: PathBuf) -> Option<Process> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    // Zombies have an empty command line: they show as left-over children elsewhere.
    let command = String::from_utf8_lossy(&fs::read(path.join("cmdline")).ok()?).replace('\0', " ");
    (!command.is_empty()).then_some(Process { pid, command })
}

/// Sends SIGKILL; a process that has ended since it was found needs none.
pub fn kill_9(pid: i32) {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot kill process {pid}: {error}"),
    }
}

/// Proportional set size of a process, in KiB; `None` once it is gone.
pub fn pss_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Bytes a process has read from files and pipes; `None` once it is gone.
pub fn bytes_read(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar:")?.trim().parse().ok())
}
