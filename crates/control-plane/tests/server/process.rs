//! A control plane in a process of its own, which may be killed. The test starts itself as that process.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use kube::config::{KubeConfigOptions, Kubeconfig};
use osc_control_plane::{Config, ControlPlane};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::common::PATIENCE;

/// Set in the process that serves: where its state is.
const DIRECTORY: &str = "OSC_CONTROL_PLANE_TEST_DIR";
/// What the process says when it serves.
const SERVING: &str = "the control plane serves";

/// In a process started by [`Server::start`]: serves until its parent is gone. `false` in the test itself.
pub fn serves(configure: impl FnOnce(&mut Config)) -> bool {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return false };
    let mut config = Config::new(&directory);
    configure(&mut config);
    runtime().block_on(async {
        let plane = ControlPlane::open(config).await.expect("a control plane");
        let kubeconfig = plane.administrator().expect("a certificate");
        std::fs::write(kubeconfig_of(&directory), kubeconfig).expect("a file");
        println!("{SERVING}");
        // Ends with the parent, however that ends.
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await;
        assert_eq!(ended.expect("a pipe"), 0);
    });
    true
}

/// What both sides run on.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn kubeconfig_of(directory: &Path) -> PathBuf {
    directory.join("kubeconfig")
}

/// A serving process; killed when dropped.
pub struct Server {
    child: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts this program again as the server that `test` runs in such a process, and waits until it serves.
    /// Commands of `shell` come first, in the same process.
    pub async fn start(test: &str, directory: &Path, shell: &str) -> Self {
        let program = std::env::current_exe().expect("a path");
        let mut child = Command::new("sh")
            .args(["-c", &format!("{shell}\nexec \"$0\" \"$@\"")])
            .arg(program)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let serving = async {
            while let Some(line) = lines.next_line().await.expect("its output") {
                // The test harness writes to the same pipe.
                if line.ends_with(SERVING) {
                    return;
                }
            }
            panic!("the server of {test} ended");
        };
        timeout(PATIENCE, serving).await.expect("a server in time");
        Self { child, directory: directory.to_owned() }
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a dead process");
    }

    /// Where this process finds what the server finds at `path`: it may have mounts of its own.
    pub fn inside(&self, path: &Path) -> PathBuf {
        let pid = self.child.id().expect("a running server");
        Path::new("/proc").join(pid.to_string()).join("root").join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// How kube-rs reaches this server as the administrator.
    pub async fn config(&self) -> kube::Config {
        let config = Kubeconfig::read_from(kubeconfig_of(&self.directory)).expect("a kubeconfig");
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a configuration")
    }
}
