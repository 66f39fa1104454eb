//! Changes to objects: JSON patch, merge patch, strategic merge patch, server-side apply.
//!
//! Objects are plain JSON values; what they look like is asked from an [`osc_schema::Node`]. Nothing here stores
//! anything or knows about HTTP: an old object and a request go in, the new object comes out.
//!
//! ```text
//!  json-patch+json ───────────► json_patch ─┐
//!  merge-patch+json ──────────► merge ──────┼─► new object ─► managed::track ─► new object, owners up to date
//!  strategic-merge-patch+json ► strategic ──┘
//!  apply-patch+yaml ──────────► apply ────────────────────────────────────────► new object, owners up to date
//! ```
//!
//! Clients are not trusted: whatever JSON they send, the answer is a value or an error, in time and memory
//! proportional to what they sent.

mod apply;
mod error;
pub mod fields;
mod json;
pub mod managed;
mod merge;
mod strategic;
#[cfg(test)]
mod testing;
mod typed;

pub use apply::{ApplyError, Conflict, Conflicts, apply};
pub use error::{PatchError, PatchErrorKind};
pub use json::{MAX_OPERATIONS, OperationCause, OperationError, json_patch};
pub use managed::Manager;
pub use merge::merge;
pub use strategic::strategic;
