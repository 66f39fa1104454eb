//! What a decision asks for.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::DaemonSet, node::v1::RuntimeClass};
use osc_objects::{ContainerRuntimeConfig, KataConfigStatus, MachineConfig, MachineConfigPool};
use serde_json::Value;

/// One write. Each may be repeated: what is there already, or gone already, is fine.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create a MachineConfig.
    CreateConfig(Box<MachineConfig>),
    /// Delete a MachineConfig.
    DeleteConfig(String),
    /// Create a pool.
    CreatePool(Box<MachineConfigPool>),
    /// Delete a pool.
    DeletePool(String),
    /// Give a node the role label.
    Label(String),
    /// Take the role label from a node.
    Unlabel(String),
    /// Create the object with the log level.
    CreateLogLevel(Box<ContainerRuntimeConfig>),
    /// Change the log level in it.
    SetLogLevel(String),
    /// Delete it.
    DeleteLogLevel,
    /// Create a RuntimeClass; one that exists keeps its administrator's changes.
    CreateRuntimeClass(Box<RuntimeClass>),
    /// Create the monitor's constraints.
    CreateScc(Box<Value>),
    /// Bring those of an old release up to date.
    RepairScc,
    /// Delete them.
    DeleteScc,
    /// Create the monitor or bring it up to date.
    ApplyMonitor(Box<DaemonSet>),
    /// Delete the monitor.
    DeleteMonitor,
    /// Copy the dashboard to where the console looks.
    CopyDashboard,
    /// Let the KataConfig go.
    RemoveFinalizer,
}

impl Write {
    /// Whether it is about the label of one node: such writes may happen in any order.
    pub fn is_label(&self) -> bool {
        matches!(self, Self::Label(_) | Self::Unlabel(_))
    }
}

/// What to do about one KataConfig. The order is: finalizer, status, writes. The status is
/// first because it records the intent: a restart between two writes goes on from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the KataConfig.
    pub config: String,
    /// Whether the finalizer has to be added before anything else.
    pub add_finalizer: bool,
    /// New status.
    pub status: KataConfigStatus,
    /// Writes, in order.
    pub writes: Vec<Write>,
    /// Look again after this time even when nothing happens.
    pub again: Duration,
}
