//! The custom resources of sandboxed containers: types, definitions, well-known names.
//!
//! ```text
//!  KataConfig ──operator──► MachineConfig, MachineConfigPool,      ──machine-config──► nodes
//!                           ContainerRuntimeConfig
//! ```
//!
//! Types read leniently and write strictly: an object stored by an older release, or
//! through a definition without today's checks, still loads, so that whoever reads it
//! can say what is wrong with it. The definitions refuse such input up front.
//! No client and no input or output lives here.

pub mod cluster;
mod condition;
#[expect(clippy::duplicated_attributes, reason = "several columns have the same type")]
pub mod kata_config;
#[expect(clippy::duplicated_attributes, reason = "several columns have the same type")]
mod machine_config;
mod machine_configuration;
pub mod names;
#[expect(clippy::duplicated_attributes, reason = "several columns have the same type")]
mod pool;
mod schema;
mod selector;
mod tuning;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use condition::{Condition, ConditionStatus, Conditions};
pub use kata_config::{KataConfig, KataConfigSpec, KataConfigStatus, KataNodes};
pub use machine_config::{MachineConfig, MachineConfigSpec};
pub use machine_configuration::{
    FilePolicy, KeyPolicy, MachineConfiguration, MachineConfigurationSpec, MachineConfigurationStatus,
    NodeDisruptionPolicy, NodeDisruptionPolicyStatus, PolicyAction, PolicyService, UnitPolicy,
};
pub use pool::{
    CertExpiry, MachineConfigPool, MachineConfigPoolSpec, MachineConfigPoolStatus, ObjectRef, PoolCondition,
    PoolConfiguration,
};
pub use selector::{LabelSelector, Requirement, SelectorError};
pub use tuning::{
    ContainerRuntimeConfig, ContainerRuntimeConfigSpec, ContainerRuntimeSettings, KubeletConfig, KubeletConfigSpec,
    TuningStatus,
};

/// Every definition an ordinary cluster needs: [`own_crds`] and [`machine_config_crds`].
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = own_crds();
    all.extend(machine_config_crds());
    all
}

/// Definitions that belong to the operator on every platform.
pub fn own_crds() -> Vec<CustomResourceDefinition> {
    vec![kata_config::definition()]
}

/// Definitions of the machine-config objects. On OpenShift the platform owns them: never
/// apply these there.
pub fn machine_config_crds() -> Vec<CustomResourceDefinition> {
    vec![
        ContainerRuntimeConfig::crd(),
        KubeletConfig::crd(),
        schema::spec_optional(MachineConfig::crd()),
        MachineConfigPool::crd(),
        MachineConfiguration::crd(),
    ]
}
