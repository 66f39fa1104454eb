//! What is read about an OpenShift cluster. The platform owns these definitions.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the cluster runs; the object is called `cluster`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "config.openshift.io",
    version = "v1",
    kind = "Infrastructure",
    doc = "Where the cluster runs.",
    plural = "infrastructures",
    derive = "PartialEq",
    status = "InfrastructureStatus"
)]
#[serde(default)]
pub struct InfrastructureSpec {}

/// Observed infrastructure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InfrastructureStatus {
    /// The platform, if it is known.
    pub platform_status: Option<PlatformStatus>,
}

/// The platform.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlatformStatus {
    /// For example `AWS`, `Azure`, `GCP`, `None`.
    #[serde(rename = "type")]
    pub type_: String,
}

/// Version of the cluster; the object is called `version`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "config.openshift.io",
    version = "v1",
    kind = "ClusterVersion",
    doc = "Version of the cluster.",
    plural = "clusterversions",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterVersionSpec {
    /// Identity of the cluster.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
}
