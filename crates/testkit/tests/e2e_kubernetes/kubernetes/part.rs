//! Programs of the cluster, each with a log of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use osc_testkit::command::until;

/// How long a program may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(15);
/// How much of a log is shown when a test fails.
const TAIL: usize = 12;

/// A running program. It is killed when dropped, and by the kernel when the thread
/// that started it ends, however that happens.
pub struct Part {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Part {
    /// Starts `program`; what it prints goes to a file in `logs`.
    pub fn start(name: &str, program: &Path, arguments: &[String], environment: &[(&str, &Path)], logs: &Path) -> Self {
        fs::create_dir_all(logs).unwrap();
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        // setpriv(1) executes in place: the child's id is the program's.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        command.envs(environment.iter().copied()).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { name: name.into(), child, log }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fails the test if it has ended.
    pub fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended with {status}:\n{}", self.name, self.tail());
        }
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Asks it to end, and ends it if it does not.
    pub fn end(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            return;
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        if !until(FAREWELL, || self.child.try_wait().unwrap().is_some()) {
            eprintln!("{} did not end by itself:\n{}", self.name, self.tail());
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.tail());
        }
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
