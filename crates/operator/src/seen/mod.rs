//! What is seen of the cluster in one pass: plain data, read fresh every time.
//!
//! Decisions are made from this and nothing else, so a pass never acts on what an
//! older pass believed. Watches only say *when* to look ([`crate::triggers`]).

mod read;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use osc_objects::{
    KataConfig, MachineConfigPool,
    names::{kata, machine, machine::NodeState, role},
};

pub(crate) use read::{Reader, scc};

/// One look at the cluster.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When it was.
    pub now: Timestamp,
    /// All KataConfigs.
    pub configs: Vec<KataConfig>,
    /// All nodes.
    pub nodes: Vec<NodeSeen>,
    /// Whether the machine-config API is served.
    pub machine_api: bool,
    /// All pools by name.
    pub pools: BTreeMap<String, MachineConfigPool>,
    /// MachineConfigs of this operator that exist.
    pub own_configs: Vec<OwnConfig>,
    /// Rendered configurations that ask for the extension or the image, as far as nodes and
    /// pools of a converged cluster name them.
    pub kata_rendered: BTreeSet<String>,
    /// Names of all RuntimeClasses.
    pub runtime_classes: BTreeSet<String>,
    /// Log level in the ContainerRuntimeConfig; `None` without one.
    pub log_level: Option<String>,
    /// Feature gates; empty without their ConfigMap.
    pub gates: BTreeMap<String, String>,
    /// The layered image's ConfigMap.
    pub layered_image: Option<BTreeMap<String, String>>,
    /// Pods in sandboxes; asked for only when a KataConfig is being deleted.
    pub pods: PodsSeen,
    /// The monitor's security context constraints.
    pub scc: Constraints,
    /// Whether the monitor exists.
    pub monitor: bool,
    /// Whether the dashboard waits to be copied to the console.
    pub dashboard_to_copy: bool,
    /// Since when nodes are being emptied.
    pub draining: BTreeMap<String, Timestamp>,
}

/// A MachineConfig of this operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnConfig {
    /// Its name.
    pub name: String,
    /// The role it is for.
    pub role: String,
}

/// Security context constraints of the monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Constraints {
    /// There is no such API.
    #[default]
    NoApi,
    /// They do not exist.
    Absent,
    /// They are those of release 1.2, under which no monitor of today starts.
    Outdated,
    /// They exist.
    Present,
}

/// Pods in sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodsSeen {
    /// Nobody asked.
    #[default]
    Unknown,
    /// They could not be listed.
    Failed(String),
    /// Those that have not ended.
    Listed(Vec<PodSeen>),
}

/// A pod that has not ended and names a runtime class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The runtime class.
    pub class: String,
}

/// What matters of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it appeared.
    pub created: Option<Timestamp>,
    /// Configuration it has; `None` until somebody manages it.
    pub current: Option<String>,
    /// Configuration it was told to have.
    pub desired: Option<String>,
    /// What its daemon does.
    pub state: Option<NodeState>,
    /// Why it is in a bad state.
    pub reason: String,
    /// Whether it waits to be emptied.
    pub draining: bool,
}

impl NodeSeen {
    /// Whether it has a label, whatever its value.
    pub fn has(&self, label: &str) -> bool {
        self.labels.contains_key(label)
    }

    /// Whether the control plane runs here.
    pub fn is_control_plane(&self) -> bool {
        self.has(role::MASTER_LABEL) || self.has(role::CONTROL_PLANE_LABEL)
    }

    /// Whether it is a worker that could run sandboxes at all.
    pub fn is_worker(&self) -> bool {
        self.has(role::WORKER_LABEL) && self.labels.get("kubernetes.io/os").is_none_or(|os| os == "linux")
    }

    /// Whether it belongs to the pool of sandboxes.
    pub fn is_kata(&self) -> bool {
        self.has(kata::ROLE_LABEL)
    }
}

impl<K: Resource<DynamicType = ()>> From<&K> for NodeSeen {
    /// From the node, or from its metadata: nothing else is looked at.
    fn from(node: &K) -> Self {
        let note = |key: &str| node.annotations().get(key).filter(|value| !value.is_empty()).cloned();
        let wanted_drain = note(machine::DESIRED_DRAIN).filter(|drain| drain.starts_with("drain-"));
        Self {
            name: node.name_any(),
            labels: node.labels().clone(),
            created: node.creation_timestamp().map(|time| time.0),
            current: note(machine::CURRENT_CONFIG),
            desired: note(machine::DESIRED_CONFIG),
            state: note(machine::STATE).and_then(|state| NodeState::parse(&state)),
            reason: note(machine::REASON).unwrap_or_default(),
            draining: wanted_drain.is_some() && wanted_drain != note(machine::LAST_APPLIED_DRAIN),
        }
    }
}
