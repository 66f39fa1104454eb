//! Choosing objects by label and by field.

mod field;
mod label;

pub use field::{FieldSelector, outline};
pub use label::{LabelSelector, SelectorError};
