//! MachineConfiguration: what nodes do after a file, unit or key changed.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// Settings of machine configuration as a whole. Only the object `cluster` counts.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "operator.openshift.io",
    version = "v1",
    kind = "MachineConfiguration",
    doc = "Settings of machine configuration as a whole.",
    plural = "machineconfigurations",
    singular = "machineconfiguration",
    derive = "PartialEq",
    status = "MachineConfigurationStatus",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineConfigurationSpec {
    /// What changes ask for, over and above the built-in table.
    pub node_disruption_policy: NodeDisruptionPolicy,
}

/// What became of the settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineConfigurationStatus {
    /// Generation of the specification that this status is about.
    pub observed_generation: i64,
    /// `Degraded`: whether the settings cannot be used.
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What nodes go by.
    pub node_disruption_policy_status: NodeDisruptionPolicyStatus,
}

/// What nodes go by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeDisruptionPolicyStatus {
    /// The built-in table with the entries of the specification over it. `Special` stands
    /// for what has no name of its own.
    #[schemars(schema_with = "crate::schema::policy_in_effect")]
    pub cluster_policies: NodeDisruptionPolicy,
}

/// Entries by what changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeDisruptionPolicy {
    /// Files and directories; the longest path that covers a file decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FilePolicy>,
    /// Units.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitPolicy>,
    /// SSH keys of user `core`.
    #[serde(skip_serializing_if = "KeyPolicy::is_empty")]
    pub sshkey: KeyPolicy,
}

/// What the change of a file asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FilePolicy {
    /// Absolute path of the file, or of a directory with everything below it.
    pub path: String,
    /// What is done, in order.
    pub actions: Vec<PolicyAction>,
}

/// What the change of a unit asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitPolicy {
    /// Full name of the unit.
    pub name: String,
    /// What is done, in order.
    pub actions: Vec<PolicyAction>,
}

/// What a change of SSH keys asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyPolicy {
    /// What is done, in order.
    pub actions: Vec<PolicyAction>,
}

impl KeyPolicy {
    fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// One thing to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAction {
    /// `None`, `Drain`, `Reload`, `Restart`, `DaemonReload` or `Reboot`; in a status also
    /// `Special`.
    #[serde(rename = "type")]
    #[schemars(schema_with = "crate::schema::policy_action")]
    pub kind: String,
    /// Which service is reloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<PolicyService>,
    /// Which service is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<PolicyService>,
}

/// A service of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyService {
    /// Full name of its unit.
    pub service_name: String,
}
