//! Played daemons of all nodes: they adopt, work for a while, and are done. They ask the
//! API for what a real one asks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        events::{Event, EventType, Recorder, Reporter},
        watcher,
    },
};
use osc_machine_config::names;
use osc_objects::MachineConfig;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{note, value};

/// All of them.
pub(crate) struct Daemons {
    client: Client,
    work: Duration,
    stop: CancellationToken,
    nodes: Mutex<BTreeMap<String, Played>>,
    most_away: AtomicUsize,
}

/// One node.
#[derive(Default)]
struct Played {
    current: String,
    desired: String,
    busy: bool,
}

impl Daemons {
    pub(crate) fn new(client: Client, work: Duration, stop: CancellationToken) -> Self {
        Self { client, work, stop, nodes: Mutex::default(), most_away: AtomicUsize::new(0) }
    }

    /// Most nodes that were getting sandboxes at once.
    pub(crate) fn most_away(&self) -> usize {
        self.most_away.load(Ordering::Relaxed)
    }

    /// Plays until stopped.
    pub(crate) async fn play(self: Arc<Self>) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut events = std::pin::pin!(watcher(nodes, watcher::Config::default()).default_backoff());
        let mut running = JoinSet::new();
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                Some(_) = running.join_next() => continue,
                event = events.next() => event,
            };
            let Some(Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) = event else { continue };
            let name = node.name_any();
            self.known(|nodes| {
                let played = nodes.entry(name.clone()).or_default();
                played.desired = note(&node, names::DESIRED).to_owned();
                if !played.busy {
                    played.current = note(&node, names::CURRENT).to_owned();
                }
            });
            if self.begin(&name) {
                let daemons = Arc::clone(&self);
                running.spawn(async move { daemons.work(node).await });
            }
        }
    }

    /// Whether the daemon of a node was idle and has something to do.
    fn begin(&self, node: &str) -> bool {
        self.known(|nodes| {
            let Some(played) = nodes.get_mut(node) else { return false };
            let begins = !played.busy && (played.current.is_empty() || played.current != played.desired);
            played.busy |= begins;
            let kata = |played: &&Played| played.busy && played.desired.starts_with("rendered-kata-oc");
            let away = nodes.values().filter(kata).count();
            self.most_away.fetch_max(away, Ordering::Relaxed);
            begins
        })
    }

    fn known<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Played>) -> T) -> T {
        work(&mut self.nodes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works until the node is what it shall be.
    async fn work(&self, node: Node) {
        let name = node.name_any();
        loop {
            let target = self.known(|nodes| nodes[&name].desired.clone());
            let done = if target.is_empty() { self.adopt(&name).await } else { self.update(&node, &target).await };
            if let Err(error) = done {
                eprintln!("{name}: {error:#}");
            }
            let now = if target.is_empty() { names::BASELINE.to_owned() } else { target };
            self.known(|nodes| {
                let played = nodes.entry(name.clone()).or_default();
                if played.desired.is_empty() {
                    played.desired.clone_from(&now);
                }
                (played.current, played.busy) = (now, false);
            });
            if !self.begin(&name) {
                return;
            }
        }
    }

    async fn adopt(&self, name: &str) -> Result<()> {
        let baseline = [(names::CURRENT, names::BASELINE), (names::DESIRED, names::BASELINE), (names::STATE, "Done")];
        self.annotate(name, &baseline).await
    }

    async fn update(&self, node: &Node, target: &str) -> Result<()> {
        let name = node.name_any();
        let configs: Api<MachineConfig> = Api::all(self.client.clone());
        configs.get(target).await?;
        self.annotate(&name, &[(names::STATE, "Working"), (names::REASON, "")]).await?;
        tokio::time::sleep(self.work).await;
        self.annotate(&name, &[(names::CURRENT, target), (names::STATE, "Done"), (names::REASON, "")]).await?;
        let reporter = Reporter { controller: names::DAEMON.into(), instance: Some(name) };
        let event = Event {
            type_: EventType::Normal,
            reason: "NodeDone".into(),
            note: Some(format!("The node runs {target}")),
            action: "Update".into(),
            secondary: None,
        };
        let about = kube::Resource::object_ref(node, &());
        Ok(Recorder::new(self.client.clone(), reporter).publish(&event, &about).await?)
    }

    async fn annotate(&self, node: &str, notes: &[(&str, &str)]) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"annotations": value(notes)}}));
        nodes.patch_metadata(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// A node and its status, about as large as those of kubelets.
pub(crate) fn node(name: &str, at: usize) -> Result<(Node, Value)> {
    let node = json!({"metadata": {"name": name, "labels": {
            "node-role.kubernetes.io/worker": "", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64", "node.kubernetes.io/instance-type": "m5.4xlarge",
            "topology.kubernetes.io/region": "region-1", "topology.kubernetes.io/zone": format!("region-1{}", ["a", "b", "c"][at % 3]),
            "feature.node.kubernetes.io/runtime.kata": "true", "feature.node.kubernetes.io/cpu-cpuid.VMX": "true"},
        "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"podCIDR": format!("10.{}.{}.0/24", at / 256, at % 256), "providerID": format!("cloud:///region-1/{name}")}});
    let images: Vec<Value> = (0..30)
        .map(|image| json!({"names": [format!("registry.example/team/image-{image}@sha256:{:064x}", image * 7919)], "sizeBytes": 100_000_000 + image}))
        .collect();
    let mut status = conditions();
    status["images"] = json!(images);
    status["capacity"] = json!({"cpu": "16", "memory": "64Gi", "pods": "250", "ephemeral-storage": "120Gi"});
    status["allocatable"] = status["capacity"].clone();
    status["addresses"] = json!([{"type": "InternalIP", "address": format!("10.0.{}.{}", at / 256, at % 256)},
        {"type": "Hostname", "address": name}]);
    Ok((serde_json::from_value(node)?, json!({"status": status})))
}

/// Conditions as a kubelet reports them just now.
pub(crate) fn conditions() -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "lastHeartbeatTime": now, "reason": "Played",
            "message": "the kubelet reports what it always reports"})
    };
    let pressures = ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| condition(kind, "False"));
    json!({"conditions": pressures.into_iter().chain([condition("Ready", "True")]).collect::<Vec<_>>()})
}
