//! Rules Kubernetes checks by hand, beyond what a schema says.

pub mod names;

pub use osc_schema::Cause;
