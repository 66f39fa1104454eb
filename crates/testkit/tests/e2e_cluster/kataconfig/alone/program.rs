//! One of our programs as a process beside the cluster, with the rights of its account.

use std::{fs, path::PathBuf, process::Command};

use kube::config::{KubeConfigOptions, Kubeconfig};
use osc_objects::names::NAMESPACE;
use osc_testkit::{
    cluster::Cluster,
    command::{Background, until},
    host::{LIMIT, built},
};
use serde_json::json;

use super::{super::kills::Point, gate::Gate};
use crate::node_root::NodeRoot;

/// How much of what it said is shown when a test fails.
const TAIL: usize = 12;

/// More lives than any step takes.
const MOST: usize = 60;

/// A program that can be killed and started again.
pub struct Program {
    gate: Gate,
    program: &'static str,
    arguments: Vec<String>,
    /// As the program finds it.
    kubeconfig: PathBuf,
    running: Option<Background>,
}

impl Program {
    /// The operator.
    pub fn operator(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.root.join("operator.kubeconfig");
        let arguments = &["run", "--identity=one"];
        Self::start(cluster, "osc-operator", "controller-manager", arguments, (kubeconfig.clone(), kubeconfig))
    }

    /// The machine-config controller.
    pub fn controller(cluster: &Cluster) -> Self {
        let (program, kubeconfig) = ("machine-config-controller", cluster.root.join("controller.kubeconfig"));
        Self::start(cluster, program, program, &["--identity=one"], (kubeconfig.clone(), kubeconfig))
    }

    /// The machine-config daemon of a node.
    pub fn daemon(cluster: &Cluster, node: &str, root: &NodeRoot) -> Self {
        let program = "machine-config-daemon";
        let root = &root.node.root;
        let arguments = ["--node", node, "--root", root.to_str().unwrap(), "--payload", "/payload"];
        Self::start(cluster, program, program, &arguments, (root.join("run/kubeconfig"), "/run/kubeconfig".into()))
    }

    fn start(
        cluster: &Cluster,
        program: &'static str,
        account: &str,
        arguments: &[&str],
        (kubeconfig, inside): (PathBuf, PathBuf),
    ) -> Self {
        let administrator = Kubeconfig::read_from(cluster.root.join("kubeconfig")).unwrap();
        // The gate shows no certificate, but who trusts nobody looks for what the machine trusts.
        let authority = administrator.clusters[0].cluster.as_ref().unwrap().certificate_authority_data.clone();
        let gate = Gate::to(access(cluster, administrator, account));
        let access = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "gate", "cluster": {
                "server": format!("http://{}", gate.address),
                "certificate-authority-data": authority,
            }}],
            "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
            "users": [{"name": "gate", "user": {}}],
            "current-context": "gate",
        });
        fs::write(&kubeconfig, access.to_string()).unwrap();
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        let mut started = Self { gate, program, arguments, kubeconfig: inside, running: None };
        started.restart(usize::MAX);
        started
    }

    /// Kills it if it runs, and starts it, from now on with so many writes to make.
    fn restart(&mut self, writes: usize) {
        self.running = None;
        self.gate.let_pass(writes);
        let mut command = Command::new(built(&format!("target/release/{}", self.program)));
        command.args(&self.arguments).env("KUBECONFIG", &self.kubeconfig);
        self.running = Some(Background::start(command));
    }

    /// Lets it live for one write at a time, and no longer than until the next of `points`
    /// is seen, until `done`; how often it was killed.
    #[track_caller]
    pub fn cut(&mut self, what: &str, points: Vec<Point<'_>>, done: impl Fn() -> bool) -> usize {
        let mut points = points.into_iter().peekable();
        let mut killed = 0;
        loop {
            self.restart(1);
            let mut finished = false;
            let seen = until(2 * LIMIT, || {
                let ends = self.gate.is_knocked_at() || points.next_if(|(_, seen)| seen()).is_some();
                finished = !ends && points.peek().is_none() && done();
                ends || finished
            });
            assert!(seen, "{what}: {} does nothing any more", self.program);
            killed += 1;
            assert!(killed < MOST, "{what}: {} begins again and again", self.program);
            if finished {
                // Also when nothing was left to do: a write may have come to the gate since.
                self.restart(usize::MAX);
                return killed;
            }
        }
    }

    fn shown(&self) -> String {
        self.running.as_ref().map(Background::shown).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = self.shown();
            let lines: Vec<&str> = shown.lines().collect();
            eprintln!("--- {}\n{}", self.program, lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
    }
}

/// Access to the cluster as one of our accounts.
fn access(cluster: &Cluster, administrator: Kubeconfig, account: &str) -> kube::Config {
    let token = cluster.kubectl(&["create", "token", account, "--namespace", NAMESPACE, "--duration=2h"], "").ok();
    let options = KubeConfigOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut config = runtime.block_on(kube::Config::from_custom_kubeconfig(administrator, &options)).unwrap();
    config.auth_info = kube::config::AuthInfo { token: Some(token.text().into()), ..Default::default() };
    config
}
