//! MachineConfig: a piece of a node's configuration.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a node should be like, or a part of it. Parts for one role are merged by name.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "machineconfiguration.openshift.io",
    version = "v1",
    kind = "MachineConfig",
    doc = "A part of the configuration of nodes with one role.",
    plural = "machineconfigs",
    singular = "machineconfig",
    shortname = "mc",
    derive = "PartialEq",
    printcolumn(
        name = "GeneratedByController",
        type_ = "string",
        description = "Version of the controller that generated the machine config",
        json_path = ".metadata.annotations.machineconfiguration\\.openshift\\.io/generated-by-controller-version"
    ),
    printcolumn(
        name = "IgnitionVersion",
        type_ = "string",
        description = "Version of the Ignition configuration",
        json_path = ".spec.config.ignition.version"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineConfigSpec {
    /// Ignition configuration, kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::raw_object")]
    pub config: Option<Value>,
    /// Operating system image.
    #[serde(rename = "osImageURL", skip_serializing_if = "String::is_empty")]
    pub os_image_url: String,
    /// Image with the packages of extensions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base_o_s_extensions_container_image: String,
    /// Kernel arguments to add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_arguments: Option<Vec<String>>,
    /// Extensions to install.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Vec<String>>,
    /// Whether FIPS mode is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fips: Option<bool>,
    /// Kernel to run: empty, `default`, `realtime` or `64k-pages`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel_type: String,
}
