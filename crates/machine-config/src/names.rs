//! Names the Machine Config Operator made well known: annotations, labels, places.

pub use osc_objects::names::machine::{
    BUILT_IN_LABEL as BUILT_IN, CURRENT_CONFIG as CURRENT, DESIRED_CONFIG as DESIRED, DESIRED_DRAIN, DESIRED_IMAGE,
    GENERATED_BY, LAST_APPLIED_DRAIN as APPLIED_DRAIN, POOL_LABEL_PREFIX as POOL_PREFIX,
    POST_CONFIG_ACTION as POST_ACTION, REASON, RELEASE_IMAGE_VERSION as RELEASE,
    REQUIRED_FOR_UPGRADE_LABEL as REQUIRED, ROLE_LABEL as ROLE, STATE, UPDATE_TAINT as TAINT,
};

/// `HighlyAvailable` or `SingleReplica`; the latter is never drained.
pub const TOPOLOGY: &str = "machineconfiguration.openshift.io/controlPlaneTopology";
/// On rendered configurations with somebody's own image.
pub const OS_IMAGE_OVERRIDDEN: &str = "machineconfiguration.openshift.io/os-image-url-overridden";
/// Number in the name of a generated configuration, on the object it comes from.
pub const SUFFIX: &str = "machineconfiguration.openshift.io/mc-name-suffix";
/// Prefix of role labels of nodes.
pub const NODE_ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// Label with the zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Configuration of a node nobody has configured yet; no object has this name.
pub const BASELINE: &str = "baseline";

/// What we call ourselves in events and as owner of fields.
pub const CONTROLLER: &str = "machine-config-controller";
/// The same for the daemon.
pub const DAEMON: &str = "machine-config-daemon";

/// Version written to [`GENERATED_BY`]. Objects of another version are not used,
/// so it changes only when what we generate does.
pub const CONTROLLER_VERSION: &str = "osc-1";
