//! The process that becomes a container's program: `kata-agent init`.
//!
//! It starts inside the right pid namespace and control group with the control
//! socket as its standard input, is single-threaded and stays so. Steps, in the
//! order the kernel's rules force on them:
//!
//! ```text
//!   capture bind sources            in the agent's mount namespace
//!   user ─► ipc, uts, net, cgroup, mount namespaces
//!   root file system: mounts, devices, terminal; hooks; masks; read-only
//!   pivot_root ─► session, stdio ─► user ─► seccomp, capabilities
//!   Ready … start order ─► hooks ─► execve
//! ```
//!
//! Whatever fails is sent to the agent as kind and text.

mod devices;
mod error;
mod hooks;
mod identity;
mod masks;
mod mounts;
mod namespaces;
mod options;
mod program;
mod rootfs;
mod terminal;

use std::{
    convert::Infallible,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use nix::{
    sched::CloneFlags,
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::setsid,
};
use osc_agent_protocol::oci;

use self::{
    error::{SetupError, during},
    identity::Identity,
    program::Program,
    rootfs::RootFs,
    terminal::Terminal,
};
use super::{
    hooks::Stage,
    seccomp, sys,
    wire::{self, Control, Header, Tag, Task},
};

type Result<T, E = SetupError> = std::result::Result<T, E>;

/// Exit status of a process that never became its program.
const NOT_STARTED: u8 = 127;

/// Builds or joins a container as the agent says, then becomes its program.
/// Returns only when that failed.
pub fn main() -> ExitCode {
    let Ok(mut control) = sys::take_stdin().map(Control::new) else { return ExitCode::from(NOT_STARTED) };
    let Err(error) = run(&mut control);
    let reason = osc_agent_protocol::kind::chain(&error);
    // With the agent gone nobody is left to tell.
    let _ = control.send(Tag::Failed, &wire::encode_failure(error.kind(), &reason), &[]);
    ExitCode::from(NOT_STARTED)
}

fn run(control: &mut Control) -> Result<Infallible> {
    sys::close_others_on_exec().map_err(during("close", "inherited descriptors"))?;
    let request = control.receive().map_err(during("receive", "the request"))?;
    if request.tag != Tag::Request {
        return Err(during("receive", "the request")(io::Error::from(io::ErrorKind::InvalidData)));
    }
    let (header, spec) = wire::decode_request(&request.payload).map_err(during("decode", "the request"))?;
    umask(Mode::empty());
    identity::adjust_oom_score(spec.Process.OOMScoreAdj)?;
    identity::set_rlimits(&spec.Process.Rlimits)?;
    // Nobody in the container may look into us through /proc while we are in it.
    prctl::set_dumpable(false).map_err(during("protect", "the set-up process"))?;
    match header.task {
        Task::Build { unshare, ref join } => {
            let mut setup = Setup { control, header: &header, spec: &spec };
            setup.build(CloneFlags::from_bits_truncate(unshare), join, request.fds)
        }
        Task::Join { namespaces } => join(control, &spec, CloneFlags::from_bits_truncate(namespaces), request.fds),
    }
}

struct Setup<'a> {
    control: &'a mut Control,
    header: &'a Header,
    spec: &'a oci::Spec,
}

impl Setup<'_> {
    fn build(
        &mut self,
        unshare: CloneFlags,
        join: &[(std::path::PathBuf, i32)],
        stdio: Vec<OwnedFd>,
    ) -> Result<Infallible> {
        let process = &*self.spec.Process;
        let filter = self.filter()?;
        let sources = mounts::capture(&self.spec.Mounts)?;
        let rootfs = RootFs::capture(Path::new(&self.spec.Root.Path))?;
        namespaces::enter(self.control, unshare, join)?;
        if unshare.contains(CloneFlags::CLONE_NEWUTS) && !self.spec.Hostname.is_empty() {
            nix::unistd::sethostname(&self.spec.Hostname).map_err(during("set hostname", &self.spec.Hostname))?;
        }
        let stdio = self.populate(rootfs, sources, stdio)?;
        session(process, &stdio)?;
        let identity = Identity::new(process)?;
        let program = identity.assume(process)?;
        identity.restrict(process.NoNewPrivileges, filter.as_ref())?;
        self.control.send(Tag::Ready, &[], &[]).map_err(during("report", "to the agent"))?;
        self.control.wait_for_go().map_err(during("wait for", "the start order"))?;
        hooks::run_all(self.header, self.spec, Stage::StartContainer, "created")?;
        become_program(program, process.NoNewPrivileges, filter)
    }

    fn filter(&self) -> Result<Option<seccomp::Filter>> {
        self.spec.Linux.Seccomp.as_ref().map(seccomp::Filter::compile).transpose().map_err(SetupError::from)
    }

    /// Fills the root file system and makes it ours; returns the standard streams.
    fn populate(&mut self, rootfs: RootFs, sources: Vec<Option<OwnedFd>>, stdio: Vec<OwnedFd>) -> Result<Stdio> {
        let (spec, process) = (self.spec, &*self.spec.Process);
        rootfs.attach(Path::new(&spec.Root.Path))?;
        for (mount, source) in spec.Mounts.iter().zip(sources) {
            mounts::apply(&rootfs, mount, source)?;
        }
        if !mounts::dev_is_foreign(&spec.Mounts) {
            devices::create(&rootfs, &spec.Linux.Devices)?;
        }
        let stdio = if process.Terminal {
            let terminal = Terminal::open(&rootfs, &process.ConsoleSize)?;
            terminal.bind_console(&rootfs)?;
            terminal.hand_over(self.control)?
        } else {
            Stdio::Pipes(stdio)
        };
        if !Stage::Prestart.of(spec).is_empty() || !Stage::CreateRuntime.of(spec).is_empty() {
            self.control.ask(Tag::RunHooks).map_err(during("run", "hooks"))?;
        }
        hooks::run_all(self.header, spec, Stage::CreateContainer, "creating")?;
        program::make_cwd(&rootfs, &process.Cwd)?;
        set_sysctls(spec)?;
        masks::read_only(&rootfs, &spec.Linux.ReadonlyPaths)?;
        masks::mask(&rootfs, &spec.Linux.MaskedPaths)?;
        rootfs.enter(spec.Root.Readonly, &spec.Linux.RootfsPropagation)?;
        Ok(stdio)
    }
}

/// Joins the container whose first process comes last among `fds`.
fn join(control: &mut Control, spec: &oci::Spec, namespaces: CloneFlags, mut fds: Vec<OwnedFd>) -> Result<Infallible> {
    let process = &*spec.Process;
    let filter = spec.Linux.Seccomp.as_ref().map(seccomp::Filter::compile).transpose()?;
    let first = fds.pop().ok_or(io::ErrorKind::InvalidData).map_err(during("receive", "the process to join"))?;
    namespaces::join(first, namespaces)?;
    let stdio = if process.Terminal {
        Terminal::open(&RootFs::current()?, &process.ConsoleSize)?.hand_over(control)?
    } else {
        Stdio::Pipes(fds)
    };
    session(process, &stdio)?;
    let identity = Identity::new(process)?;
    let program = identity.assume(process)?;
    identity.restrict(process.NoNewPrivileges, filter.as_ref())?;
    become_program(program, process.NoNewPrivileges, filter)
}

/// The standard streams of the program.
enum Stdio {
    /// Input, output, error.
    Pipes(Vec<OwnedFd>),
    /// All three.
    Terminal(OwnedFd),
}

/// A session of its own, with its streams in place.
fn session(process: &oci::Process, stdio: &Stdio) -> Result<()> {
    setsid().map_err(during("start", "a session"))?;
    let streams = match stdio {
        Stdio::Terminal(slave) => [slave, slave, slave],
        Stdio::Pipes(ends) => ends
            .iter()
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| during("receive", "standard streams")(io::Error::from(io::ErrorKind::InvalidData)))?,
    };
    for (number, stream) in (0..).zip(streams) {
        sys::replace(stream.as_fd(), number).map_err(during("set up", "standard streams"))?;
        // So that the user may open /dev/stdout; not every kind of file can change hands.
        let _ = nix::unistd::fchown(stream, Some(process.User.UID.into()), None);
    }
    if let Stdio::Terminal(slave) = stdio {
        sys::control_terminal(slave.as_fd()).map_err(during("control", "the terminal"))?;
    }
    Ok(())
}

/// Kernel parameters; those of namespaces go by the namespaces of the writer, so
/// the agent's /proc will do.
fn set_sysctls(spec: &oci::Spec) -> Result<()> {
    for (name, value) in &spec.Linux.Sysctl {
        if name.split(['.', '/']).any(|part| part.is_empty()) {
            let reason = "words joined by dots";
            return Err(SetupError::Invalid { field: "Linux.Sysctl", value: name.clone(), reason });
        }
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(during("set kernel parameter", name))?;
    }
    Ok(())
}

fn become_program(program: Program, no_new_privileges: bool, filter: Option<seccomp::Filter>) -> Result<Infallible> {
    sys::reset_signals().map_err(during("reset", "signals"))?;
    umask(Mode::from_bits_truncate(0o022));
    if let Some(filter) = filter.filter(|_| no_new_privileges) {
        filter.install().map_err(during("install", "the seccomp filter"))?;
    }
    Err(program.execute())
}
