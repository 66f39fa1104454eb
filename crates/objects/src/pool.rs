//! MachineConfigPool: nodes that share one configuration.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConditionStatus, LabelSelector};

/// Which nodes, which configurations, how many at once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "machineconfiguration.openshift.io",
    version = "v1",
    kind = "MachineConfigPool",
    doc = "Nodes that share one configuration.",
    plural = "machineconfigpools",
    singular = "machineconfigpool",
    shortname = "mcp",
    derive = "PartialEq",
    status = "MachineConfigPoolStatus",
    printcolumn(name = "Config", type_ = "string", json_path = ".status.configuration.name"),
    printcolumn(
        name = "Updated",
        type_ = "string",
        description = "When all the machines in the pool are updated to the current config",
        json_path = ".status.conditions[?(@.type==\"Updated\")].status"
    ),
    printcolumn(
        name = "Updating",
        type_ = "string",
        description = "When at least one of machine is not either not updated or is in the process of updating",
        json_path = ".status.conditions[?(@.type==\"Updating\")].status"
    ),
    printcolumn(
        name = "Degraded",
        type_ = "string",
        description = "When progress is blocked on updating one or more nodes, or rendering failed",
        json_path = ".status.conditions[?(@.type==\"Degraded\")].status"
    ),
    printcolumn(name = "MachineCount", type_ = "number", json_path = ".status.machineCount"),
    printcolumn(name = "ReadyMachineCount", type_ = "number", json_path = ".status.readyMachineCount"),
    printcolumn(name = "UpdatedMachineCount", type_ = "number", json_path = ".status.updatedMachineCount"),
    printcolumn(name = "DegradedMachineCount", type_ = "number", json_path = ".status.degradedMachineCount"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineConfigPoolSpec {
    /// MachineConfigs of the pool. Absent or empty selects none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_config_selector: Option<LabelSelector>,
    /// Nodes of the pool. Absent or empty selects none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// No further node is started while true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Nodes that may be unavailable at once: number or percentage, default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::int_or_string")]
    pub max_unavailable: Option<IntOrString>,
    /// Target, written by the renderer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<PoolConfiguration>,
}

/// A rendered configuration and what it was rendered from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolConfiguration {
    /// Kind of the rendered object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// API version of the rendered object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Name of the rendered MachineConfig.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Inputs, in the order in which they were merged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<ObjectRef>,
}

/// Reference of an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// API version of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// How far a pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineConfigPoolStatus {
    /// Generation of the specification that this status is about.
    pub observed_generation: i64,
    /// Last configuration that all nodes reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<PoolConfiguration>,
    /// Nodes of the pool.
    pub machine_count: i32,
    /// Nodes that have the target.
    pub updated_machine_count: i32,
    /// Nodes that have the target and are ready.
    pub ready_machine_count: i32,
    /// Nodes that are not available.
    pub unavailable_machine_count: i32,
    /// Nodes on which an update failed.
    pub degraded_machine_count: i32,
    /// See [`PoolCondition`].
    pub conditions: Vec<PoolCondition>,
    /// Certificates of the node bootstrap service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cert_expirys: Vec<CertExpiry>,
}

/// One condition of a pool: `Updated`, `Updating`, `NodeDegraded`, `RenderDegraded`, `Degraded`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCondition {
    /// Which condition this is.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// When `status` changed last.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::optional_time")]
    pub last_transition_time: Option<Time>,
    /// One word for programs.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertExpiry {
    /// Bundle that holds it.
    pub bundle: String,
    /// Its subject.
    pub subject: String,
    /// Its end.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::optional_time")]
    pub expiry: Option<Time>,
}

impl MachineConfigPool {
    /// The condition of a type, if it was ever published.
    pub fn condition(&self, type_: &str) -> Option<&PoolCondition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether a condition is True.
    pub fn is(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == ConditionStatus::True)
    }

    /// Name of the rendered configuration that nodes should have; `None` before the first rendering.
    pub fn target(&self) -> Option<&str> {
        self.spec.configuration.as_ref().map(|target| target.name.as_str()).filter(|name| !name.is_empty())
    }
}
