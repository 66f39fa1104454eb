//! ContainerRuntimeConfig and KubeletConfig: settings that become machine configuration.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{LabelSelector, PoolCondition};

/// Settings of the container engine for the pools it selects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "machineconfiguration.openshift.io",
    version = "v1",
    kind = "ContainerRuntimeConfig",
    doc = "Settings of the container engine for pools of nodes.",
    plural = "containerruntimeconfigs",
    singular = "containerruntimeconfig",
    shortname = "ctrcfg",
    derive = "PartialEq",
    status = "TuningStatus",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerRuntimeConfigSpec {
    /// Pools, by their labels. Absent or empty selects none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_config_pool_selector: Option<LabelSelector>,
    /// The settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_runtime_config: Option<ContainerRuntimeSettings>,
}

/// Settings of the container engine. Absent ones are left alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerRuntimeSettings {
    /// Processes in one container; 0 for no limit, else at least 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// `fatal`, `panic`, `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_log_level")]
    pub log_level: Option<String>,
    /// Largest log of one container; negative for no limit, else above 8192 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::int_or_string")]
    pub log_size_max: Option<Quantity>,
    /// Largest writable layer of one container.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::int_or_string")]
    pub overlay_size: Option<Quantity>,
    /// `crun` or `runc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_runtime: Option<String>,
}

/// Settings of the kubelet for the pools it selects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "machineconfiguration.openshift.io",
    version = "v1",
    kind = "KubeletConfig",
    doc = "Settings of the kubelet for pools of nodes.",
    plural = "kubeletconfigs",
    singular = "kubeletconfig",
    derive = "PartialEq",
    status = "TuningStatus",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeletConfigSpec {
    /// Pools, by their labels. Absent or empty selects none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_config_pool_selector: Option<LabelSelector>,
    /// The kubelet's own configuration, kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::raw_object")]
    pub kubelet_config: Option<Value>,
    /// Reserve resources for the system by the size of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_sizing_reserved: Option<bool>,
    /// Verbosity, 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<i32>,
    /// TLS settings, kept as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::raw_object")]
    pub tls_security_profile: Option<Value>,
}

/// What became of the settings. The last condition is the current one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TuningStatus {
    /// Generation of the specification that this status is about.
    pub observed_generation: i64,
    /// `Success` or `Failure`, appended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PoolCondition>,
}
