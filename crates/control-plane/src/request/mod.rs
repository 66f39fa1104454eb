//! From an HTTP request to what it asks for.
//!
//! ```text
//! /apis/<group>/<version>/namespaces/<namespace>/<resource>/<name>/<subresource>?…
//!   path ──► Target (what)      query ──► Query (how)      headers ──► Accept, BodyType (in which form)
//! ```
//!
//! Everything here is written by a stranger: sizes and depths are bounded, and
//! what is not understood is refused, never guessed.

pub mod accept;
pub mod body;
pub mod query;
pub mod strict;
pub mod target;

pub use accept::{Accept, Form, Wire};
pub use query::Query;
pub use target::{Path, ResourcePath, Verb};
