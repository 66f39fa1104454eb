//! The built-in kinds of the Kubernetes API: what they look like, their defaults, rules and tables.
//!
//! Objects are [`serde_json::Value`]s everywhere. What a kind *is* comes from its [`Resource`] and
//! its schema in [`definitions`]; what Kubernetes adds by hand is here, one folder for each concern:
//!
//! ```text
//!  protobuf ─► defaults ─► validate ─► (store) ─► table
//!                 │            │                    │
//!                 └── quantity, selector, pod, meta ┘
//! ```

pub mod convert;
pub mod defaults;
pub mod definitions;
pub mod meta;
pub mod pod;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;
pub mod validate;
mod value;

pub use quantity::Quantity;
pub use resource::{Resource, Subresource, api_version, builtin, split_api_version};
pub use status::Status;
