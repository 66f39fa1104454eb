//! A cluster of its own: `osc up` below a temporary root, asked with stock kubectl.

use std::{net::TcpListener, path::PathBuf, process::Command, sync::MutexGuard, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    command::{self, Outcome, until},
    host::{LIMIT, alone, built},
    leftovers::Snapshot,
    processes,
};

/// A running cluster. [`Cluster::end`] proves that nothing stays behind; a test that
/// fails before it still has everything stopped on drop.
pub struct Cluster {
    /// Directory prefix of the cluster.
    pub root: PathBuf,
    port: u16,
    options: Vec<String>,
    before: Snapshot,
    ended: bool,
    _dir: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts a cluster with sandboxes and the sample images.
    ///
    /// # Panics
    /// When `make build` has not been run, or the cluster does not come up.
    pub fn up() -> Self {
        Self::up_with(&["--sandboxes"])
    }

    /// The same with other words for `osc up`.
    ///
    /// # Panics
    /// As [`Self::up`].
    pub fn up_with(options: &[&str]) -> Self {
        let cluster = Self::prepared(options);
        cluster.again();
        cluster
    }

    /// A place for a cluster that has not been started.
    ///
    /// # Panics
    /// When `make build` has not been run.
    pub fn prepared(options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let one = alone();
        let dir = tempfile::Builder::new().prefix("osc-cluster-").tempdir_in("/tmp").unwrap();
        let root = dir.path().to_owned();
        let guest = root.join("var/lib/sandboxed-containers/guest");
        std::fs::create_dir_all(guest.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(built("target/guest"), guest).unwrap();
        // Free now; whoever takes it meanwhile makes the start fail with a clear word.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let before = Snapshot::take(&root);
        Self { root, port, options, before, ended: false, _dir: dir, _one: one }
    }

    /// `osc up`, the first time or after the process has ended.
    pub fn again(&self) {
        self.start().ok();
    }

    /// The same, whatever comes of it.
    pub fn start(&self) -> Outcome {
        command::run(self.start_command(), b"", 2 * LIMIT)
    }

    /// `osc up` with other words, from now on.
    pub fn up_again_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self.again();
    }

    /// The command that starts it.
    pub fn start_command(&self) -> Command {
        let mut command = self.osc_command(&["up", "--port", &self.port.to_string()]);
        command.args(&self.options);
        for image in ["busybox", "hello-openshift"] {
            command.arg("--image-archive").arg(built(&format!("target/images/{image}.tar")));
        }
        command
    }

    fn osc_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(built("target/release/osc"));
        command.args(arguments).env("SANDBOXED_CONTAINERS_ROOT", &self.root);
        command
    }

    /// Runs `osc` to its end.
    pub fn osc(&self, arguments: &[&str]) -> Outcome {
        command::run(self.osc_command(arguments), b"", 2 * LIMIT)
    }

    /// Runs `kubectl` with `input` to its end.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", self.root.join("kubeconfig")).env("HOME", &self.root);
        command::run(command, input.as_bytes(), 2 * LIMIT)
    }

    /// What `kubectl get` says about `what`.
    pub fn get(&self, what: &[&str]) -> Value {
        let arguments = [&["get", "--output", "json"], what].concat();
        serde_json::from_slice(&self.kubectl(&arguments, "").ok().stdout).unwrap()
    }

    /// The process that is the cluster.
    pub fn pid(&self) -> i32 {
        let status: Value = serde_json::from_slice(&self.osc(&["status", "--json"]).ok().stdout).unwrap();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }

    /// Processes of this cluster with `word` on the command line.
    pub fn processes(&self, word: &str) -> Vec<i32> {
        processes::of_sandboxes(&[word, self.root.to_str().unwrap()]).into_iter().map(|process| process.pid).collect()
    }

    /// Waits until `seen` holds, or fails the test.
    #[track_caller]
    pub fn eventually(&self, what: &str, mut seen: impl FnMut() -> bool) {
        let held = until(2 * LIMIT, &mut seen);
        assert!(held, "{what}: {}", self.kubectl(&["get", "pods,events", "--all-namespaces"], "").text());
    }

    /// Stops the cluster and fails the test if anything is left of it.
    pub fn end(mut self) {
        self.osc(&["down", "--purge"]).ok();
        self.ended = true;
        self.before.nothing_new(&self.root, Duration::from_secs(10));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.ended {
            let log = std::fs::read_to_string(self.root.join("var/lib/sandboxed-containers/control-plane.log"));
            let log = log.unwrap_or_default();
            let from = log.lines().count().saturating_sub(60);
            log.lines().skip(from).for_each(|line| eprintln!("{line}"));
            drop(self.osc(&["down", "--purge"]));
        }
    }
}
