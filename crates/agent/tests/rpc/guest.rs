//! An agent in namespaces of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use osc_agent_protocol::{
    agent::{CreateContainerRequest, ReadStreamRequest},
    agent_ttrpc::AgentServiceClient,
    health_ttrpc::HealthClient,
    oci,
};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
};
use ttrpc::{Code, r#async::Client, context::Context};

pub type Agent = AgentServiceClient;

/// How long anything may take; far more than it does on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Mounts are private, `/run` is empty, and the first process of the pid
/// namespace is a shell, because an agent in that place would take the machine for
/// its own. The shell tells the agent's pid as the outside sees it and leaves with
/// the agent's status.
const SET_UP: &str = r#"
mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/run || exit 99
mkdir -p /run/root/bin /run/root/etc /run/root/proc && cp "$BUSYBOX" /run/root/bin/busybox || exit 98
for name in sh cat sleep true hostname grep readlink; do ln -s busybox /run/root/bin/$name; done
touch /run/root/etc/words
ip link set lo up
"$AGENT" &
trap 'kill $!' TERM
wait $!; status=$?
[ $status -gt 128 ] && { wait $!; status=$?; }
exit $status
"#;

pub struct Guest {
    directory: PathBuf,
    shell: Mutex<Child>,
    /// The first process of the namespace, seen from here.
    first: Pid,
}

impl Guest {
    /// Starts an agent and waits until it answers.
    pub async fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("agent-rpc-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let shell = Command::new("unshare")
            .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", SET_UP])
            .env("AGENT", env!("CARGO_BIN_EXE_kata-agent"))
            .env("BUSYBOX", busybox())
            .env("KATA_AGENT_SERVER_ADDR", format!("unix://{}", directory.join("agent.sock").display()))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let outer = shell.id().unwrap();
        let children = PathBuf::from(format!("/proc/{outer}/task/{outer}/children"));
        let first = std::cell::Cell::new(0);
        until(async || {
            first.set(fs::read_to_string(&children).unwrap_or_default().trim().parse().unwrap_or(0));
            first.get() != 0
        })
        .await;
        let guest = Self { directory, shell: Mutex::new(shell), first: Pid::from_raw(first.get()) };
        until(async || Client::connect(&guest.address()).await.is_ok()).await;
        guest
    }

    fn address(&self) -> String {
        format!("unix://{}", self.directory.join("agent.sock").display())
    }

    pub async fn agent(&self) -> Agent {
        AgentServiceClient::new(Client::connect(&self.address()).await.unwrap())
    }

    pub async fn health(&self) -> HealthClient {
        HealthClient::new(Client::connect(&self.address()).await.unwrap())
    }

    /// Everything a process writes to standard output.
    pub async fn output(&self, agent: &Agent, container: &str, exec: &str) -> String {
        let request = ReadStreamRequest {
            container_id: container.into(),
            exec_id: exec.into(),
            len: 32 << 10,
            ..Default::default()
        };
        let mut text = Vec::new();
        loop {
            let data = agent.read_stdout(context(), &request).await.unwrap().data;
            if data.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend(data);
        }
    }

    /// Asks the agent to end, by way of the shell that started it, and waits until
    /// it has taken everything down.
    pub async fn end(&self) {
        kill(self.first, Signal::SIGTERM).unwrap();
        assert!(self.ended().await.success());
    }

    /// Waits for the agent to end.
    pub async fn ended(&self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.shell.lock().await.wait()).await.unwrap().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Ends everything in the namespace; gone already when the agent has left.
        let _ = kill(self.first, Signal::SIGKILL);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn busybox() -> &'static Path {
    let found = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    found.expect("busybox-static is installed")
}

/// Containers made so far: names repeat between tests, control groups must not.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A container that runs `args` on the test's root file system.
pub fn container(id: &str, args: &[&str]) -> CreateContainerRequest {
    let namespace = |kind: &str| oci::LinuxNamespace { Type: kind.into(), ..Default::default() };
    let proc =
        oci::Mount { destination: "/proc".into(), source: "proc".into(), type_: "proc".into(), ..Default::default() };
    let linux = oci::Linux {
        Namespaces: ["ipc", "uts", "mount"].map(namespace).to_vec(),
        CgroupsPath: format!("/agent-rpc-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)),
        ..Default::default()
    };
    let spec = oci::Spec {
        Version: "1.0.2".into(),
        Process: Some(process(args)).into(),
        Root: Some(oci::Root { Path: "/run/root".into(), ..Default::default() }).into(),
        Mounts: vec![proc],
        Linux: Some(linux).into(),
        ..Default::default()
    };
    CreateContainerRequest { container_id: id.into(), exec_id: id.into(), OCI: Some(spec).into(), ..Default::default() }
}

pub fn process(args: &[&str]) -> oci::Process {
    oci::Process {
        Args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        Env: vec!["PATH=/bin".into()],
        Cwd: "/".into(),
        ..Default::default()
    }
}

pub fn context() -> Context {
    ttrpc::context::with_duration(PATIENCE)
}

pub fn is_code<T>(result: &ttrpc::Result<T>, code: Code) -> bool {
    matches!(result, Err(ttrpc::Error::RpcStatus(status)) if status.code() == code)
}

/// Waits until `holds` does.
pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}
