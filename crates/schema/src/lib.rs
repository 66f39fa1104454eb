//! What objects look like: structural schemas, pruning, defaults, validation.
//!
//! One [`Schema`] type describes built-in kinds and custom resources alike, and everything that has to know the
//! shape of an object asks it: field validation, pruning, defaulting, strategic merge, apply ownership, OpenAPI and
//! protobuf decoding.
//!
//! ```text
//!  OpenAPI components ──► Definitions ─┐
//!                                      ├─► Node (schema + definitions) ──► unknown_fields · prune · default · validate
//!  CRD openAPIV3Schema ─► Schema ──────┘                              └──► walked by patch, apply, protobuf, tables
//! ```
//!
//! A [`Schema`] may name another one ([`Schema::reference`]); names are looked up only while walking, through the
//! [`Definitions`] a [`Node`] carries, because some definitions (JSONSchemaProps) contain themselves.

mod bounds;
mod cause;
pub mod cel;
mod correlate;
mod defaults;
mod embedded;
pub mod format;
pub mod jsonpath;
mod keywords;
mod meta;
mod model;
mod node;
mod openapi;
mod parse;
mod path;
mod prune;
mod rules;
mod structural;
mod unknown;
mod validate;

pub use bounds::{MAX_DEPTH, within_depth};
pub use cause::Cause;
pub use defaults::default;
pub use jsonpath::JsonPath;
pub use meta::{LIST_META, OBJECT_META};
pub use model::{Checks, Kind, ListType, MapType, PatchStrategy, Pattern, Rule, Schema};
pub use node::{Definitions, Node};
pub use openapi::{to_openapi, to_openapi_kind};
pub use parse::ParseError;
pub use path::Path;
pub use prune::{drop_nulls, prune};
pub use unknown::unknown_fields;
pub use validate::{validate, validate_values};
