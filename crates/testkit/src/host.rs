//! A node of its own: a private containerd with our shim below a temporary root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use osc_node::{
    cri::Client,
    engine::{Engine, Kata},
};
use osc_runtime::{
    config::{DefaultPaths, default_toml},
    dirs::Dirs,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{command, command::Outcome, leftovers::Snapshot};

/// The image with a shell and the usual commands.
pub const BUSYBOX: &str = "localhost/busybox:latest";
/// How long one command against a sandbox may take, emulated and on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// One at a time: the machine is small, and what is left behind is looked for
/// in places all hosts share.
static ONE: Mutex<()> = Mutex::new(());

/// The right to be the one.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running private engine. [`Host::end`] proves that nothing stays behind;
/// a test that fails before it still has everything stopped on drop.
pub struct Host {
    /// Directory prefix of this node.
    pub root: PathBuf,
    /// Blocking access to asynchronous clients.
    pub tokio: Runtime,
    /// CRI client of the engine.
    pub cri: Client,
    engine: Engine,
    before: Snapshot,
    names: AtomicU32,
    ended: bool,
    _dir: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Host {
    /// Starts an engine with the default configuration.
    ///
    /// # Panics
    /// When `make build` has not been run, or the engine does not start.
    pub fn start() -> Self {
        Self::with_configuration(|text| text)
    }

    /// Starts an engine with an edited configuration of the shim.
    pub fn with_configuration(edit: impl FnOnce(String) -> String) -> Self {
        let one = alone();
        let dir = tempfile::Builder::new().prefix("osc-e2e-").tempdir_in("/tmp").unwrap();
        let root = dir.path().to_owned();
        let before = Snapshot::take(&root);
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let engine = Engine::new(Dirs::new(&root));
        let kata = Kata { shim: built("target/release/containerd-shim-kata-v2"), configuration: edit(configuration()) };
        let cri = tokio.block_on(engine.start(Some(&kata))).unwrap();
        for image in ["busybox", "hello-openshift"] {
            let archive = built(&format!("target/images/{image}.tar"));
            tokio.block_on(engine.import(&cri, &archive)).unwrap();
        }
        let host =
            Self { root, tokio, cri, engine, before, names: AtomicU32::new(0), ended: false, _dir: dir, _one: one };
        // `ctr` keeps to its own namespace, as somebody at a shell would.
        host.ctr(&["images", "import", built("target/images/busybox.tar").to_str().unwrap()]).ok();
        host
    }

    /// Configuration file the shim reads.
    pub fn configuration(&self) -> PathBuf {
        self.engine.paths().kata_config()
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// An identifier no other container of this host has.
    pub fn name(&self) -> String {
        format!("c{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// `ctr` against this engine.
    pub fn ctr_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.engine.paths().socket()).args(arguments);
        command
    }

    /// Runs `ctr` to its end.
    pub fn ctr(&self, arguments: &[&str]) -> Outcome {
        command::run(self.ctr_command(arguments), b"", LIMIT)
    }

    /// The words of `ctr run` that choose our shim, then `options`, the busybox
    /// image, `id` and the words of the container's process.
    pub fn run_command(&self, id: &str, options: &[&str], process: &[&str]) -> Command {
        self.run_command_with(&self.configuration(), id, options, process)
    }

    /// The same with another configuration of the shim.
    pub fn run_command_with(&self, configuration: &Path, id: &str, options: &[&str], process: &[&str]) -> Command {
        let shim = built("target/release/containerd-shim-kata-v2");
        let mut command = self.ctr_command(&["run", "--runtime"]);
        command.arg(shim).arg("--runtime-config-path").arg(configuration);
        command.args(options).args([BUSYBOX, id]).args(process);
        command
    }

    /// `ctr run --rm` of a busybox process in a sandbox of its own.
    pub fn run(&self, options: &[&str], process: &[&str]) -> Outcome {
        let options: Vec<&str> = ["--rm"].iter().chain(options).copied().collect();
        command::run(self.run_command(&self.name(), &options, process), b"", LIMIT)
    }

    /// Starts a detached busybox sandbox and gives its identifier.
    pub fn detach(&self, process: &[&str]) -> String {
        let id = self.name();
        command::run(self.run_command(&id, &["--detach"], process), b"", LIMIT).ok();
        id
    }

    /// Runs a process in a running container.
    pub fn exec(&self, id: &str, options: &[&str], process: &[&str]) -> Outcome {
        let exec = self.name();
        let mut command = self.ctr_command(&["tasks", "exec", "--exec-id", &exec]);
        command.args(options).arg(id).args(process);
        command::run(command, b"", LIMIT)
    }

    /// Kills and removes a detached sandbox.
    pub fn delete(&self, id: &str) {
        self.ctr(&["tasks", "delete", "--force", id]).ok();
        self.ctr(&["containers", "delete", id]).ok();
    }

    /// What a sandbox may leave behind, now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.root)
    }

    /// Stops the engine and fails the test if anything is left on the host.
    pub fn end(mut self) {
        self.stop();
        self.before.nothing_new(&self.root, Duration::from_secs(10));
    }

    fn stop(&mut self) {
        self.ended = true;
        self.tokio.block_on(self.engine.stop(true)).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.ended {
            eprintln!("{}", engine_log(&self.engine.paths().log()));
            if let Err(error) = self.tokio.block_on(self.engine.stop(true)) {
                eprintln!("cleaning up after a failed test: {error}");
            }
        }
    }
}

/// The last lines of the engine's log, where the shim's messages are too.
fn engine_log(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The shim's configuration for what `make build` made.
pub fn configuration() -> String {
    default_toml(&DefaultPaths {
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        kernel: built("target/guest/vmlinux"),
        initrd: built("target/guest/initrd.img"),
        virtiofsd: built("target/tools/bin/virtiofsd"),
    })
}

/// A file `make build` makes.
///
/// # Panics
/// When it is not there.
pub fn built(path: &str) -> PathBuf {
    let file = repository().join(path);
    assert!(file.exists(), "{} is missing: run `make build` first", file.display());
    file
}

/// Top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
