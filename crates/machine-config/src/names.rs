//! Names the Machine Config Operator made well known: annotations, labels, places.

/// Label that says which pool a MachineConfig is for.
pub const ROLE: &str = "machineconfiguration.openshift.io/role";
/// What the node runs; written by the daemon.
pub const CURRENT: &str = "machineconfiguration.openshift.io/currentConfig";
/// What the node shall run; written by the controller when the node's turn comes.
pub const DESIRED: &str = "machineconfiguration.openshift.io/desiredConfig";
/// State of the daemon.
pub const STATE: &str = "machineconfiguration.openshift.io/state";
/// Why the daemon does not get on.
pub const REASON: &str = "machineconfiguration.openshift.io/reason";
/// `Rebooting` from before a reboot until after it.
pub const POST_ACTION: &str = "machineconfiguration.openshift.io/post-config-action";
/// Drain or uncordon the daemon asks for.
pub const DESIRED_DRAIN: &str = "machineconfiguration.openshift.io/desiredDrain";
/// The last such request that was carried out.
pub const APPLIED_DRAIN: &str = "machineconfiguration.openshift.io/lastAppliedDrain";
/// Image layering, which we do not do; its presence keeps a node from being updated.
pub const DESIRED_IMAGE: &str = "machineconfiguration.openshift.io/desiredImage";
/// `HighlyAvailable` or `SingleReplica`; the latter is never drained.
pub const TOPOLOGY: &str = "machineconfiguration.openshift.io/controlPlaneTopology";
/// Who rendered or generated a MachineConfig.
pub const GENERATED_BY: &str = "machineconfiguration.openshift.io/generated-by-controller-version";
/// Release a MachineConfig was rendered for.
pub const RELEASE: &str = "machineconfiguration.openshift.io/release-image-version";
/// On rendered configurations with somebody's own image.
pub const OS_IMAGE_OVERRIDDEN: &str = "machineconfiguration.openshift.io/os-image-url-overridden";
/// Number in the name of a generated configuration, on the object it comes from.
pub const SUFFIX: &str = "machineconfiguration.openshift.io/mc-name-suffix";
/// On the two pools that always exist.
pub const BUILT_IN: &str = "machineconfiguration.openshift.io/mco-built-in";
/// Prefix of the label that names a pool.
pub const POOL_PREFIX: &str = "pools.operator.machineconfiguration.openshift.io/";
/// On pools an upgrade of the cluster waits for.
pub const REQUIRED: &str = "operator.machineconfiguration.openshift.io/required-for-upgrade";
/// Prefix of role labels of nodes.
pub const NODE_ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// Label with the zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Taint of nodes that are still to be updated.
pub const TAINT: &str = "UpdateInProgress";
/// Configuration of a node nobody has configured yet; no object has this name.
pub const BASELINE: &str = "baseline";

/// What we call ourselves in events and as owner of fields.
pub const CONTROLLER: &str = "machine-config-controller";
/// The same for the daemon.
pub const DAEMON: &str = "machine-config-daemon";

/// Version written to [`GENERATED_BY`]. Objects of another version are not used,
/// so it changes only when what we generate does.
pub const CONTROLLER_VERSION: &str = "osc-1";
