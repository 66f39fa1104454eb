//! Condition types and reasons of a KataConfig.

/// Types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// Whether something is being installed, updated or removed.
    InProgress,
    /// Whether somebody has to do something before it goes on.
    Degraded,
}

impl ConditionType {
    /// The text in the object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Degraded => "Degraded",
        }
    }
}

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The text in the object.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the text of an object.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }
        }
    };
}

reasons! {
    /// Reasons of [`ConditionType::InProgress`].
    InProgressReason {
        /// Nothing goes on.
        Idle = "",
        /// The first rollout runs.
        Installing = "Installing",
        /// Nodes come or go, or their configuration changes.
        Updating = "Updating",
        /// The last rollout runs.
        Uninstalling = "Uninstalling",
        /// A node could not be updated.
        Failed = "Failed",
        /// Deletion waits for pods in sandboxes to end.
        BlockedByExistingKataPods = "BlockedByExistingKataPods",
        /// An image for peer pods is made or deleted.
        PodVmImageJobRunning = "PodVMImageJobRunning",
        /// An image for peer pods was made or deleted.
        PodVmImageJobCompleted = "PodVMImageJobCompleted",
        /// An image for peer pods could not be made or deleted.
        PodVmImageJobFailed = "PodVMImageJobFailed",
        /// Nobody knows how an image for peer pods is getting on.
        PodVmImageJobStatusUnknown = "PodVMImageJobStatusUnknown",
        /// No image can be made for this cloud.
        PodVmImageUnsupportedProvider = "PodVMImageUnsupportedProvider",
    }
}

reasons! {
    /// Reasons of [`ConditionType::Degraded`], most pressing first: the first that applies is
    /// the condition's reason, its message names them all.
    DegradedReason {
        /// Another KataConfig was first.
        DuplicateKataConfig = "DuplicateKataConfig",
        /// Nothing here configures machines.
        MachineConfigApiMissing = "MachineConfigAPIMissing",
        /// The API refused something.
        ApiFailure = "APIFailure",
        /// The node selector cannot be used.
        InvalidSelector = "InvalidSelector",
        /// The log level does not exist.
        InvalidLogLevel = "InvalidLogLevel",
        /// Feature gates or what they refer to cannot be used.
        InvalidFeatureGates = "InvalidFeatureGates",
        /// No node can run sandboxes as far as anybody knows.
        NoEligibleNodes = "NoEligibleNodes",
        /// The selector matches no node.
        NoMatchingNodes = "NoMatchingNodes",
        /// A selected node belongs to another custom pool.
        NodeInOtherPool = "NodeInOtherPool",
        /// A node wants a configuration it cannot reach.
        NodeUnreconcilable = "NodeUnreconcilable",
        /// A node could not be updated.
        NodeDegraded = "NodeDegraded",
        /// The configuration of the pool cannot be made.
        PoolDegraded = "PoolDegraded",
        /// The pool is paused while nodes wait.
        PoolPaused = "PoolPaused",
        /// A node cannot be emptied.
        DrainBlocked = "DrainBlocked",
        /// Deletion waits for pods in sandboxes.
        BlockedByPods = "BlockedByPods",
        /// All is well.
        AsExpected = "AsExpected",
    }
}
