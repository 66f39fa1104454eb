//! A node with CRI-O and a service manager that are played: they remember what they were
//! asked for.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use osc_machine_config::{
    daemon::{self, ActionError, Capabilities, Engine, NodeActions, Verb},
    names, rights,
};

use crate::kit::{Cluster, PATIENCE, note};

/// What daemon and test share of a node.
#[derive(Clone)]
pub struct Services {
    root: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Services {
    /// A node `n1` with its daemon, and another that nobody manages: one alone is never
    /// drained.
    pub async fn of(cluster: &mut Cluster) -> Self {
        let root = cluster.directory().join("n1");
        fs::create_dir_all(&root).unwrap();
        let services = Self { root: root.clone(), asked: Arc::default() };
        cluster.node("n1", "worker").await;
        cluster.node("n2", "other").await;
        let options = daemon::Options {
            root,
            engine: Some(Engine::Crio),
            retry: Duration::from_millis(50),
            ..daemon::Options::node("n1", Arc::new(services.clone()))
        };
        let run = daemon::run(cluster.client_of(rights::DAEMON_ACCOUNT), options, cluster.stopped());
        cluster.also(tokio::spawn(async move { run.await.expect("the daemon runs until stopped") }));
        services
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn put(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// Text of a file; none if it is not there.
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    /// Everything that was asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Waits until a file has this text, or is gone.
    pub async fn until_text(&self, path: &str, text: Option<&str>) {
        let begun = Instant::now();
        while self.text(path).as_deref() != text {
            assert!(begun.elapsed() < PATIENCE, "{path} is {:?}, expected {text:?}", self.text(path));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn note(&self, what: String) -> Result<(), ActionError> {
        self.asked.lock().unwrap().push(what);
        Ok(())
    }

    fn enabled(&self, unit: &str) -> PathBuf {
        self.at("enabled").join(unit)
    }
}

/// Waits until the daemon says `state`, for a reason with all of `words`.
pub async fn until_state(cluster: &Cluster, state: &str, words: &[&str]) -> String {
    let said = |node: &k8s_openapi::api::core::v1::Node| {
        let reason = note(node, names::REASON);
        note(node, names::STATE) == state && words.iter().all(|word| reason.contains(word))
    };
    note(&cluster.until(&cluster.nodes, "n1", said).await, names::REASON)
}

#[async_trait]
impl NodeActions for Services {
    fn capabilities(&self) -> Capabilities {
        Capabilities { units: true, reboot: true }
    }

    async fn engine(&self, verb: Verb) -> Result<(), ActionError> {
        self.note(format!("{verb:?} engine"))
    }

    async fn reload_units(&self) -> Result<(), ActionError> {
        self.note("Reload units".into())
    }

    async fn is_enabled(&self, unit: &str) -> Result<bool, ActionError> {
        Ok(self.enabled(unit).exists())
    }

    /// A unit named by a file below `broken` cannot be enabled.
    async fn enable(&self, unit: &str, enabled: Option<bool>) -> Result<(), ActionError> {
        let broken = Path::new("broken").join(unit);
        if enabled == Some(true) && self.root.join(broken).exists() {
            let command = format!("systemctl enable {unit}");
            return Err(ActionError::Command { command, output: "bad unit file setting".into() });
        }
        match enabled {
            Some(true) => {
                fs::create_dir_all(self.at("enabled")).unwrap();
                fs::write(self.enabled(unit), "").unwrap();
            }
            _ => drop(fs::remove_file(self.enabled(unit))),
        }
        self.note(format!("enable {unit} {enabled:?}"))
    }

    async fn restart_unit(&self, unit: &str) -> Result<(), ActionError> {
        self.note(format!("Restart {unit}"))
    }

    async fn reload_unit(&self, unit: &str) -> Result<(), ActionError> {
        self.note(format!("Reload {unit}"))
    }

    async fn update_trust(&self) -> Result<(), ActionError> {
        self.note("update trust".into())
    }

    async fn update_boot_loader(&self) -> Result<(), ActionError> {
        self.note("update boot loader".into())
    }

    async fn reboot(&self) -> Result<(), ActionError> {
        self.note("reboot".into())
    }
}
