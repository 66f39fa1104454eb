//! Well-known names that other software relies on.

/// Namespace of the operator; manifests and dashboards expect exactly this one.
pub const NAMESPACE: &str = "openshift-sandboxed-containers-operator";

/// Names around KataConfig and what is made from it.
pub mod kata {
    /// Finalizer of a KataConfig.
    pub const FINALIZER: &str = "kataconfiguration.openshift.io/finalizer";
    /// Pool of the nodes that run sandboxes.
    pub const POOL: &str = "kata-oc";
    /// Role label of such a node; its value is empty.
    pub const ROLE_LABEL: &str = "node-role.kubernetes.io/kata-oc";
    /// Set to `true` by node feature discovery, or by our prober, where sandboxes can run.
    pub const ELIGIBLE_LABEL: &str = "feature.node.kubernetes.io/runtime.kata";
    /// MachineConfig that asks for the extension.
    pub const EXTENSION_CONFIG: &str = "50-enable-sandboxed-containers-extension";
    /// MachineConfig that asks for a layered operating system image instead.
    pub const IMAGE_CONFIG: &str = "50-enable-sandboxed-containers-image";
    /// ContainerRuntimeConfig that carries the log level.
    pub const LOG_LEVEL_CONFIG: &str = "kata-crio-config";
    /// RuntimeClass, handler and runtime of ordinary sandboxes.
    pub const RUNTIME_CLASS: &str = "kata";
    /// RuntimeClass of peer pods.
    pub const REMOTE_RUNTIME_CLASS: &str = "kata-remote";
    /// Label on MachineConfigs: name of the KataConfig they were made for.
    pub const APP_LABEL: &str = "app";
    /// DaemonSet, container label and ServiceMonitor of the monitor.
    pub const MONITOR: &str = "openshift-sandboxed-containers-monitor";
    /// Security context constraints of the monitor.
    pub const SCC: &str = "sandboxed-containers-operator-scc";
    /// ConfigMap with feature gates, in the operator's namespace.
    pub const FEATURE_GATES: &str = "osc-feature-gates";
    /// ConfigMap with the layered image, in the operator's namespace.
    pub const LAYERED_IMAGE: &str = "layered-image-deploy-cm";
    /// ConfigMap with the dashboard, copied to [`DASHBOARD_NAMESPACE`].
    pub const DASHBOARD: &str = "grafana-dashboard-sandboxed-containers";
    /// Where the console looks for dashboards.
    pub const DASHBOARD_NAMESPACE: &str = "openshift-config-managed";
    /// CPU that a sandbox costs beside its containers: default overhead of the RuntimeClass.
    pub const OVERHEAD_CPU: &str = "250m";
    /// Memory that a sandbox costs beside its containers: default overhead of the RuntimeClass.
    pub const OVERHEAD_MEMORY: &str = "320Mi";
}

/// Names of roles and pools.
pub mod role {
    /// Role label of a worker; its value is empty.
    pub const WORKER_LABEL: &str = "node-role.kubernetes.io/worker";
    /// Role label of a control-plane node; its value is empty.
    pub const MASTER_LABEL: &str = "node-role.kubernetes.io/master";
    /// Role label of a control-plane node on current Kubernetes.
    pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
    /// Built-in pool of workers.
    pub const WORKER: &str = "worker";
    /// Built-in pool of control-plane nodes.
    pub const MASTER: &str = "master";
}

/// Annotations, labels and values shared with whoever configures machines.
pub mod machine {
    /// API group of the machine-config objects.
    pub const GROUP: &str = "machineconfiguration.openshift.io";
    /// The MachineConfiguration that counts.
    pub const CONFIGURATION: &str = "cluster";
    /// Label of a MachineConfig: the role, that is the pool, it is for.
    pub const ROLE_LABEL: &str = "machineconfiguration.openshift.io/role";
    /// Label of the built-in pools; its value is empty.
    pub const BUILT_IN_LABEL: &str = "machineconfiguration.openshift.io/mco-built-in";
    /// Prefix of the label that a pool carries about itself.
    pub const POOL_LABEL_PREFIX: &str = "pools.operator.machineconfiguration.openshift.io/";
    /// Label of the pool that an upgrade of the platform needs.
    pub const REQUIRED_FOR_UPGRADE_LABEL: &str = "operator.machineconfiguration.openshift.io/required-for-upgrade";
    /// Node annotation: configuration applied and verified.
    pub const CURRENT_CONFIG: &str = "machineconfiguration.openshift.io/currentConfig";
    /// Node annotation: configuration wanted, set when the node's turn comes.
    pub const DESIRED_CONFIG: &str = "machineconfiguration.openshift.io/desiredConfig";
    /// Node annotation: see [`NodeState`].
    pub const STATE: &str = "machineconfiguration.openshift.io/state";
    /// Node annotation: why a node is Degraded or Unreconcilable.
    pub const REASON: &str = "machineconfiguration.openshift.io/reason";
    /// Node annotation: `Rebooting` while the node does.
    pub const POST_CONFIG_ACTION: &str = "machineconfiguration.openshift.io/post-config-action";
    /// Node annotation: drain that the node asks for.
    pub const DESIRED_DRAIN: &str = "machineconfiguration.openshift.io/desiredDrain";
    /// Node annotation: last drain that succeeded.
    pub const LAST_APPLIED_DRAIN: &str = "machineconfiguration.openshift.io/lastAppliedDrain";
    /// Node annotation: image of a layered system that is wanted.
    pub const DESIRED_IMAGE: &str = "machineconfiguration.openshift.io/desiredImage";
    /// Annotation: version of the controller that generated the object.
    pub const GENERATED_BY: &str = "machineconfiguration.openshift.io/generated-by-controller-version";
    /// Annotation of a rendered configuration: release it belongs to.
    pub const RELEASE_IMAGE_VERSION: &str = "machineconfiguration.openshift.io/release-image-version";
    /// Taint of nodes that have an update before them.
    pub const UPDATE_TAINT: &str = "UpdateInProgress";
    /// Ignition version of an otherwise empty configuration that every platform accepts.
    pub const IGNITION_VERSION: &str = "3.2.0";

    /// Value of [`STATE`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum NodeState {
        /// Nothing to do.
        Done,
        /// An update runs.
        Working,
        /// An update failed; it is retried.
        Degraded,
        /// The wanted configuration cannot be reached from the current one.
        Unreconcilable,
    }

    impl NodeState {
        /// Every state.
        pub const ALL: [Self; 4] = [Self::Done, Self::Working, Self::Degraded, Self::Unreconcilable];

        /// The text in the annotation.
        pub const fn as_str(self) -> &'static str {
            match self {
                Self::Done => "Done",
                Self::Working => "Working",
                Self::Degraded => "Degraded",
                Self::Unreconcilable => "Unreconcilable",
            }
        }

        /// Reads the annotation; `None` for text that means nothing here.
        pub fn parse(text: &str) -> Option<Self> {
            // `Rebooting` was a state before it became an annotation of its own.
            if text == "Rebooting" {
                return Some(Self::Working);
            }
            Self::ALL.into_iter().find(|state| state.as_str() == text)
        }
    }

    /// The label by which a pool is selected.
    pub fn pool_label(pool: &str) -> String {
        format!("{POOL_LABEL_PREFIX}{pool}")
    }
}
