//! The QEMU process: started in the right place, always reaped.
//!
//! A thread of its own enters the pod's network namespace, spawns QEMU and then
//! waits for it to end. That keeps every other thread where it is, needs no
//! code between fork and exec, and reaps QEMU even when nobody asks for it.

use std::{
    ffi::{CString, OsStr},
    fmt, fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CloneFlags, setns},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal, kill},
        stat::Mode,
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use tokio::sync::{oneshot, watch};

use super::error::BootError;

/// The waiting thread calls little and recurses nowhere.
const STACK: usize = 128 << 10;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Somebody else reaped it.
    Lost,
}

impl Exit {
    /// What an operator does about a machine that ended like this at start.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Signal(libc::SIGKILL) => {
                "killed from outside, most often for memory: raise the pod's memory limit or RuntimeClass overhead"
            }
            Self::Signal(libc::SIGSYS) => "stopped by its own system call filter: relax seccompsandbox",
            Self::Signal(_) => "crashed: try another QEMU or accelerator = \"tcg\"",
            Self::Code(_) | Self::Lost => {
                "it gives the reason below; a refused option comes from machine_type, machine_accelerators, \
                 cpu_features, default_memory or hugepages in the configuration"
            }
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match Signal::try_from(*signal) {
                Ok(signal) => write!(f, "signal {signal}"),
                Err(_) => write!(f, "signal {signal}"),
            },
            Self::Lost => f.write_str("exit status lost"),
        }
    }
}

/// What to start, where, and with which descriptors.
pub(super) struct Launch {
    pub binary: PathBuf,
    pub args: Vec<String>,
    /// Kept under their numbers in the new process.
    pub inherited: Vec<OwnedFd>,
    /// Standard output and standard error.
    pub output: OwnedFd,
    pub netns: Option<PathBuf>,
    pub selinux_label: Option<String>,
}

/// A child process that is killed when dropped and reaped in any case.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// True once the process identifier may belong to somebody else.
    reaped: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts the process and calls `place` with its identifier at once, before
    /// it has touched much memory.
    pub async fn spawn(
        launch: Launch,
        place: impl FnOnce(i32) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, BootError> {
        let (started, start) = oneshot::channel();
        let (ended, exit) = watch::channel(None);
        let reaped = Arc::new(Mutex::new(false));
        let binary = launch.binary.clone();
        let thread = {
            let reaped = reaped.clone();
            move || {
                let spawned = start_child(launch, place);
                let pid = spawned.as_ref().ok().copied();
                // The receiver is gone when the caller was cancelled: then nobody will ever stop the child.
                if started.send(spawned).is_err() {
                    let _ = pid.map(|pid| kill(pid, Signal::SIGKILL));
                }
                if let Some(pid) = pid {
                    ended.send_replace(Some(reap(pid, &reaped)));
                }
            }
        };
        thread::Builder::new()
            .name("qemu".into())
            .stack_size(STACK)
            .spawn(thread)
            .map_err(|source| BootError::Spawn { binary, cure: "the host is out of threads or memory", source })?;
        let pid = start.await.expect("the thread answers before it ends")?;
        Ok(Self { pid, reaped, exit })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Becomes `Some` once the process is gone.
    pub fn exited(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    /// Sends SIGKILL, never to a process that merely inherited the number.
    pub fn kill(&self) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_child(launch: Launch, place: impl FnOnce(i32) -> io::Result<()>) -> Result<Pid, BootError> {
    if let Some(path) = &launch.netns {
        enter_netns(path).map_err(|source| BootError::Netns { path: path.clone(), source })?;
    }
    let binary = launch.binary.clone();
    let failed = |cure, source| BootError::Spawn { binary: binary.clone(), cure, source };
    if let Some(label) = &launch.selinux_label {
        let cure = "the SELinux policy lacks the process label, or disable_selinux is wanted";
        fs::write("/proc/thread-self/attr/exec", label).map_err(|source| failed(cure, source))?;
    }
    let pid = match spawn_child(&launch) {
        Ok(pid) => pid,
        Err(Errno::ENOENT) => {
            let cure = "install QEMU (package qemu-system-x86) or set hypervisor.qemu.path";
            return Err(BootError::Missing { what: "QEMU", path: binary, cure });
        }
        Err(errno) => return Err(failed("check that it is an executable for this host", errno.into())),
    };
    if let Err(source) = place(pid.as_raw()) {
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
        return Err(BootError::Place { pid: pid.as_raw(), source });
    }
    Ok(pid)
}

fn enter_netns(path: &Path) -> io::Result<()> {
    Ok(setns(fs::File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}

fn spawn_child(launch: &Launch) -> Result<Pid, Errno> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty())?;
    actions.add_dup2(launch.output.as_raw_fd(), 1)?;
    actions.add_dup2(launch.output.as_raw_fd(), 2)?;
    for fd in &launch.inherited {
        // Onto itself: clears close-on-exec in the child only (glibc 2.29).
        actions.add_dup2(fd.as_raw_fd(), fd.as_raw_fd())?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    let binary = c_string(launch.binary.as_os_str())?;
    let mut args = vec![binary.clone()];
    for arg in &launch.args {
        args.push(c_string(OsStr::new(arg))?);
    }
    posix_spawn(binary.as_c_str(), &actions, &attributes, &args, &[] as &[CString])
}

fn c_string(text: &OsStr) -> Result<CString, Errno> {
    CString::new(text.as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Waits for the end first and collects it under the lock, so that `kill` can
/// never hit a recycled identifier.
fn reap(pid: Pid, reaped: &Mutex<bool>) -> Exit {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    *reaped = true;
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal as i32),
        _ => Exit::Lost,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, process::Command};

    use nix::unistd::pipe;

    use super::*;

    fn launch(binary: &str, args: &[&str], output: OwnedFd) -> Launch {
        Launch {
            binary: binary.into(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            inherited: Vec::new(),
            output,
            netns: None,
            selinux_label: None,
        }
    }

    async fn ended(process: &Process) -> Exit {
        let mut exit = process.exited();
        let exit = exit.wait_for(Option::is_some).await.unwrap();
        (*exit).unwrap()
    }

    #[tokio::test]
    async fn exits_are_told_apart() {
        for (script, want) in [("exit 3", Exit::Code(3)), ("kill -9 $$", Exit::Signal(9))] {
            let (_reader, writer) = pipe().unwrap();
            let process = Process::spawn(launch("/bin/sh", &["-c", script], writer), |_| Ok(())).await.unwrap();
            assert_eq!(ended(&process).await, want, "{script}");
        }
    }

    #[tokio::test]
    async fn a_missing_binary_is_named_with_the_cure() {
        let (_reader, writer) = pipe().unwrap();
        let error = Process::spawn(launch("/no/such/qemu", &[], writer), |_| Ok(())).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/qemu is not there: install QEMU"), "{error}");
    }

    #[tokio::test]
    async fn only_named_descriptors_are_inherited() {
        let (reader, writer) = pipe().unwrap();
        let (kept, other) = (fs::File::open("/dev/null").unwrap(), fs::File::open("/dev/null").unwrap());
        let (kept_number, other_number) = (kept.as_raw_fd(), other.as_raw_fd());
        let script =
            format!("for n in {kept_number} {other_number}; do [ -e /proc/$$/fd/$n ] && echo $n; done; exit 0");
        let mut launch = launch("/bin/sh", &["-c", &script], writer);
        launch.inherited.push(kept.into());
        let process = Process::spawn(launch, |_| Ok(())).await.unwrap();
        assert_eq!(ended(&process).await, Exit::Code(0));
        let mut text = String::new();
        fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text.trim(), kept_number.to_string());
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed_and_reaped() {
        let (_reader, writer) = pipe().unwrap();
        let process = Process::spawn(launch("/bin/sleep", &["1000"], writer), |_| Ok(())).await.unwrap();
        let mut exit = process.exited();
        let pid = process.pid();
        drop(process);
        assert_eq!(*exit.wait_for(Option::is_some).await.unwrap(), Some(Exit::Signal(9)));
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn a_process_without_a_place_does_not_stay() {
        let (_reader, writer) = pipe().unwrap();
        let refuse = |_| Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let error = Process::spawn(launch("/bin/sleep", &["1000"], writer), refuse).await.unwrap_err();
        let BootError::Place { pid, .. } = error else { panic!("{error}") };
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn the_process_runs_in_the_network_namespace_of_the_pod() {
        let name = format!("qemu-test-{}", std::process::id());
        let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success());
        ip(&["netns", "add", &name]);
        let (reader, writer) = pipe().unwrap();
        let mut launch = launch("/bin/readlink", &["/proc/self/ns/net"], writer);
        launch.netns = Some(format!("/run/netns/{name}").into());
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let process = Process::spawn(launch, |_| Ok(())).await.unwrap();
        assert_eq!(ended(&process).await, Exit::Code(0));
        ip(&["netns", "delete", &name]);
        let mut text = String::new();
        fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("net:["), "{text}");
        assert_ne!(Path::new(text.trim()), own);
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), own);
    }
}
