//! The containerd process: start it apart from us, find it again, end it.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use osc_runtime::{deadline::Deadline, dirs::ROOT_VARIABLE};
use tokio::process::{Child, Command};

use super::{
    error::{EngineError, io},
    paths::Paths,
};

/// How often a process is asked whether it is gone, where no event tells.
const POLL: Duration = Duration::from_millis(20);

/// Process id of this engine's containerd, if it runs. The process must carry
/// our configuration file on its command line: ids are reused.
pub fn find(paths: &Paths) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(paths.pid_file()).ok()?.trim().parse().ok()?;
    command_line(pid).contains(&paths.config().to_string_lossy().into_owned()).then_some(Pid::from_raw(pid))
}

/// Arguments of a process; empty when it is gone or a zombie.
pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|&b| b == 0).filter(|arg| !arg.is_empty()).map(|arg| String::from_utf8_lossy(arg).into()).collect()
}

/// All processes with `needle` among their arguments.
pub fn with_argument(needle: &str) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid: &i32| command_line(pid).iter().any(|argument| argument == needle))
        .map(Pid::from_raw)
        .collect()
}

/// Starts containerd in a session of its own, so that neither a closed terminal
/// nor Ctrl-C reaches it, and writes the pid file. Not every release obeys
/// `runtime_path`: the directory `shims` leads its search path too.
///
/// # Errors
/// When it, or `setsid`, cannot be executed.
pub async fn start(paths: &Paths, shims: Option<&Path>) -> Result<Child, EngineError> {
    let program = which("containerd").ok_or(EngineError::Missing { program: "containerd", package: "containerd" })?;
    let log_file = paths.log();
    let log = OpenOptions::new().create(true).append(true).open(&log_file).map_err(io("open", &log_file))?;
    let errors = log.try_clone().map_err(io("open", &log_file))?;
    // setsid(1) executes in place because a fresh child leads no group: the
    // child's id is containerd's id.
    let child = Command::new("setsid")
        .arg(&program)
        .arg("--config")
        .arg(paths.config())
        .env("PATH", search_path(shims))
        .env(ROOT_VARIABLE, paths.dirs().root())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .current_dir("/")
        .spawn()
        .map_err(io("execute", &program))?;
    let pid = child.id().map(|pid| pid.to_string()).unwrap_or_default();
    let file = paths.pid_file();
    tokio::fs::write(&file, pid).await.map_err(io("write", &file))?;
    Ok(child)
}

/// Ends a process that is not our child: `SIGTERM`, then `SIGKILL` when half of
/// the deadline has passed. Returns whether it is gone.
pub async fn end(pid: Pid, deadline: Deadline) -> bool {
    let polite = Deadline::after(deadline.left() / 2);
    for (signal, until) in [(Signal::SIGTERM, polite), (Signal::SIGKILL, deadline)] {
        if kill(pid, signal) == Err(Errno::ESRCH) || gone(pid, until).await {
            return true;
        }
    }
    false
}

/// Waits until a process is gone or only its zombie is left.
pub async fn gone(pid: Pid, deadline: Deadline) -> bool {
    loop {
        if command_line(pid.as_raw()).is_empty() {
            return true;
        }
        if deadline.passed() {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Number of the capability in capabilities(7).
pub const CAP_SYS_RESOURCE: u32 = 24;

/// Whether this process has a capability, and so has what it starts.
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << number) != 0)
}

/// Directories programs are searched in: `first`, ours, and those of the system
/// even when the caller's `PATH` leaves them out.
fn search_path(first: Option<&Path>) -> std::ffi::OsString {
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let first = first.map(Path::to_owned);
    std::env::join_paths(first.into_iter().chain(own).chain(system)).unwrap_or_default()
}

/// Finds a program in [`search_path`].
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path(None)).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The last lines of a log file, on one line.
pub fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(1500)))?;
        let mut bytes = Vec::new();
        file.take(1500).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_process_id_is_not_ours() {
        let dir = tempfile::tempdir().expect("tempdir");
        let paths = Paths::new(osc_runtime::dirs::Dirs::new(dir.path()));
        fs::create_dir_all(paths.dirs().run()).expect("mkdir");
        assert_eq!(find(&paths), None);
        fs::write(paths.pid_file(), std::process::id().to_string()).expect("write");
        assert_eq!(find(&paths), None);
    }

    #[tokio::test]
    async fn a_process_is_ended_and_seen_gone() {
        let mut child = Command::new("sleep").arg("1000").kill_on_drop(true).spawn().expect("spawn");
        let pid = Pid::from_raw(child.id().expect("running").cast_signed());
        assert!(end(pid, Deadline::after(Duration::from_secs(10))).await);
        child.wait().await.expect("reap");
    }
}
