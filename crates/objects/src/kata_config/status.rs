//! Status of a KataConfig, in its present form; older ones are read in `legacy`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::legacy;
use crate::{Condition, schema};

/// How far a KataConfig is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KataConfigStatus {
    /// RuntimeClasses that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtime_classes: Vec<String>,
    /// Nodes by what happens to them.
    pub kata_nodes: KataNodes,
    /// `InProgress` and `Degraded`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// A change was asked for that has not begun yet.
    pub waiting_for_mco_to_start: bool,

    /// Runtime class of releases before 1.5; a list in 1.5.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub runtime_class: Option<Value>,
    /// Node count of releases before 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub total_nodes_count: Option<Value>,
    /// Progress in releases before 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub installation_status: Option<Value>,
    /// Progress in releases before 1.5.
    #[serde(rename = "unInstallationStatus", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub uninstallation_status: Option<Value>,
    /// Never filled, in releases before 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub upgrade_status: Option<Value>,
    /// Bookkeeping of releases before 1.4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::anything")]
    pub prev_mcp_generation: Option<Value>,
}

impl KataConfigStatus {
    /// The status without fields of older releases; what they said is carried over.
    pub fn migrated(self, now: k8s_openapi::jiff::Timestamp) -> Self {
        legacy::migrate(self, now)
    }
}

/// Nodes by what happens to them. A node is in at most one list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KataNodes {
    /// Nodes that should run sandboxes.
    pub node_count: i64,
    /// Those that can.
    pub ready_node_count: i64,
    /// Can run sandboxes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub installed: Vec<String>,
    /// Are being changed so that they can.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub installing: Vec<String>,
    /// Their turn has not come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_to_install: Vec<String>,
    /// Could not be changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_to_install: Vec<String>,
    /// Are being changed back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uninstalling: Vec<String>,
    /// Will be changed back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_to_uninstall: Vec<String>,
    /// Could not be changed back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_to_uninstall: Vec<String>,
}
