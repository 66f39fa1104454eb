//! KataConfig: asks for sandboxes on a set of nodes. At most one exists.

mod legacy;
mod reason;
mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LabelSelector, schema};

pub use reason::{ConditionType, DegradedReason, InProgressReason};
pub use status::{KataConfigStatus, KataNodes};

/// Log levels that the container engine takes, quietest first.
pub const LOG_LEVELS: [&str; 7] = ["fatal", "panic", "error", "warn", "info", "debug", "trace"];

/// Where sandboxes are wanted and how.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kataconfiguration.openshift.io",
    version = "v1",
    kind = "KataConfig",
    plural = "kataconfigs",
    singular = "kataconfig",
    doc = "KataConfig installs the runtime of sandboxed containers on the nodes it selects.",
    derive = "PartialEq",
    status = "KataConfigStatus",
    printcolumn(
        name = "InProgress",
        type_ = "string",
        description = "Status of the current operation",
        json_path = ".status.conditions[?(@.type=='InProgress')].status"
    ),
    printcolumn(
        name = "Completed",
        type_ = "integer",
        description = "Nodes with sandboxed containers installed",
        json_path = ".status.kataNodes.readyNodeCount"
    ),
    printcolumn(
        name = "Total",
        type_ = "integer",
        description = "Nodes that should have sandboxed containers",
        json_path = ".status.kataNodes.nodeCount"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct KataConfigSpec {
    /// Workers to install on. Absent: all of them. Ignored where control plane and workers are one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kata_config_pool_selector: Option<LabelSelector>,
    /// Install only on nodes that are labelled `feature.node.kubernetes.io/runtime.kata=true`.
    #[schemars(default)]
    pub check_node_eligibility: bool,
    /// Log level of the container engine on these nodes.
    #[schemars(schema_with = "schema::log_level")]
    pub log_level: String,
    /// Also run pods in instances of a cloud.
    #[schemars(default)]
    pub enable_peer_pods: bool,
}

impl Default for KataConfigSpec {
    fn default() -> Self {
        Self {
            kata_config_pool_selector: None,
            check_node_eligibility: false,
            log_level: "info".into(),
            enable_peer_pods: false,
        }
    }
}

/// The definition, with the checks that types alone cannot express.
pub(crate) fn definition() -> CustomResourceDefinition {
    let mut crd = schema::spec_optional(KataConfig::crd());
    schema::add_rule(
        &mut crd,
        &["spec", "kataConfigPoolSelector", "matchExpressions", "[]"],
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "In and NotIn need values; Exists and DoesNotExist take none",
    );
    crd
}
