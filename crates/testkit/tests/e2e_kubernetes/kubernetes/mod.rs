//! A real Kubernetes below a temporary root: etcd, API server, controller manager and
//! scheduler as processes, and nodes whose kubelets are real.
//!
//! ```text
//!  kubectl, operator, controller ─► API server ─► etcd
//!                                     ▲
//!        controller manager, scheduler┤
//!            kubelet, daemon of a node┴─► containerd ─► runc, our shim
//! ```
//!
//! `scripts/kubernetes-build` makes the programs; `make e2e-kubernetes` runs it first.

mod access;
mod control_plane;
pub mod node;
mod part;
mod view;

use std::{
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use osc_machine_config::payload::{self, Part as File};
use osc_node::engine::Parts;
use osc_testkit::{
    command::{self, until},
    host::{built, repository},
    kubectl::Kubectl,
    leftovers::Snapshot,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::{
    access::Access,
    node::{Node, Settings},
    part::Part,
};

/// How long anything may take here: an emulated machine boots, two cores do it all.
pub const LIMIT: Duration = Duration::from_secs(120);

/// One at a time: the machine is small.
static ONE: Mutex<()> = Mutex::new(());

/// A running Kubernetes. [`Kubernetes::end`] proves that nothing stays behind.
pub struct Kubernetes {
    /// Prefix of all directories.
    pub root: PathBuf,
    /// Access of the administrator.
    pub kubeconfig: PathBuf,
    /// Address of this machine.
    pub address: String,
    access: Access,
    programs: PathBuf,
    /// Stopped in this order.
    nodes: Vec<Node>,
    parts: Vec<Part>,
    before: Snapshot,
    _dir: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Kubernetes {
    /// Starts the control plane; returns when it answers.
    pub fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let programs = programs();
        let dir = tempfile::Builder::new().prefix("osc-kubernetes-").tempdir_in("/tmp").unwrap();
        let root = dir.path().to_owned();
        let before = Snapshot::take(&root);
        let port = free_port();
        let access = Access::new(&root.join("pki"), format!("https://127.0.0.1:{port}"));
        let kubeconfig = root.join("kubeconfig");
        access.administrator(&kubeconfig);
        let (nodes, parts, address) = (Vec::new(), Vec::new(), address());
        let mut cluster =
            Self { root, kubeconfig, address, access, programs, nodes, parts, before, _dir: dir, _one: one };
        cluster.control_plane(port);
        cluster
    }

    /// The administrator's client.
    pub fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(&self.kubeconfig)
    }

    /// Adds a worker; returns when it is ready. `daemon` is the access of our daemon.
    pub fn add_node(&mut self, name: &str, daemon: &Path) {
        let kubelet = self.access.kubeconfig(&format!("system:node:{name}"), Some("system:nodes"));
        self.nodes.push(Node::start(Settings {
            name: name.into(),
            root: self.root.join(name),
            address: self.address.clone(),
            port: free_port(),
            program: self.programs.join("kubelet"),
            authority: self.access.authority(),
            kubelet,
            daemon: daemon.into(),
            payload: self.payload(),
            logs: self.logs(),
        }));
        let kubectl = self.kubectl();
        let seen = until(LIMIT, || kubectl.run(&format!("get node {name}"), &[]).code == 0);
        assert!(seen, "the kubelet of {name} does not register:\n{}", self.tails());
        // What an installer of Kubernetes does: a kubelet may not.
        kubectl.says(&format!("label node {name} node-role.kubernetes.io/worker="), "", "labeled");
        kubectl.ok(&format!("wait node/{name} --for=condition=Ready --timeout=60s"));
    }

    /// Directory prefix of a node.
    pub fn node_root(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Runs a program beside the cluster, with the access of `kubeconfig`.
    pub fn run(&mut self, name: &str, program: &str, arguments: &[String], kubeconfig: &Path) {
        let environment = [("KUBECONFIG", kubeconfig)];
        self.parts.push(Part::start(name, &built(program), arguments, &environment, &self.logs()));
    }

    /// Ends a program that was started by [`Self::run`], at once.
    pub fn kill(&mut self, name: &str) {
        let before = self.parts.len();
        self.parts.retain(|part| part.name() != name);
        assert_eq!(self.parts.len() + 1, before, "no program {name}");
    }

    /// Access of a service account: a token of its own, and so its rights exactly.
    pub fn account(&self, namespace: &str, name: &str) -> PathBuf {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": 7200}});
        let answer = self.kubectl().with(&format!("create --raw {path} -f -"), &wanted.to_string()).ok();
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        self.access.account(name, answer["status"]["token"].as_str().unwrap())
    }

    /// The last lines of all logs.
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for log in std::fs::read_dir(self.logs()).unwrap().flatten() {
            let lines = std::fs::read_to_string(log.path()).unwrap_or_default();
            let from = lines.lines().count().saturating_sub(15);
            text += &format!("--- {}\n", log.file_name().to_string_lossy());
            lines.lines().skip(from).for_each(|line| text += &format!("{line}\n"));
        }
        text
    }

    /// Stops everything and fails the test if anything is left.
    pub fn end(mut self) {
        for node in &mut self.nodes {
            node.end().unwrap();
        }
        self.parts.iter_mut().rev().for_each(Part::end);
        self.parts.clear();
        self.before.nothing_new(&self.root, Duration::from_secs(20));
    }

    fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Packs what `make build` made, as nodes get it.
    fn payload(&self) -> PathBuf {
        let out = self.root.join("payload");
        if !out.exists() {
            pack(&out);
        }
        out
    }
}

/// Where `scripts/kubernetes-build` has put the programs.
fn programs() -> PathBuf {
    let built = command::run(Command::new(repository().join("scripts/kubernetes-build")), b"", LIMIT).ok();
    built.text().into()
}

/// A port that is free now; whoever takes it meanwhile makes a start fail with a clear word.
pub fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

/// The address by which this machine reaches others; nothing is sent.
fn address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("203.0.113.1:9").expect("a route: kubelets refuse loopback addresses");
    socket.local_addr().unwrap().ip().to_string()
}

fn pack(out: &Path) {
    let place = Path::new(payload::PLACE);
    let placed = Parts {
        shim: place.join(payload::SHIM),
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        virtiofsd: place.join("bin/virtiofsd"),
        kernel: place.join("guest/vmlinux"),
        initrd: place.join("guest/initrd.img"),
    };
    let configuration = out.with_extension("toml");
    std::fs::write(&configuration, placed.configuration()).unwrap();
    let file = |from: PathBuf, name: &str, executable, placed| File { from, name: name.into(), executable, placed };
    let files = [
        file(built("target/release/containerd-shim-kata-v2"), payload::SHIM, true, false),
        file(built("target/tools/bin/virtiofsd"), "bin/virtiofsd", true, false),
        file(built("target/guest/vmlinux"), "guest/vmlinux", false, false),
        file(built("target/guest/initrd.img"), "guest/initrd.img", false, false),
        file(configuration, payload::CONFIGURATION, false, true),
    ];
    payload::pack(out, &files).unwrap();
}
