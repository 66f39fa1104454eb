//! Sets of fields: who owns what, written down as FieldsV1.
//!
//! A field is named by a path from the root of the object. Steps of a path are [`Element`]s: a field of an object,
//! or an item of a list told apart by its keys or its value. A [`Set`] is a tree of steps.
//!
//! ```text
//!  {"spec": {"containers": [{"name": "a", "image": "x"}]}}
//!
//!  path       .spec.containers[name="a"].image
//!  FieldsV1   {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}}
//! ```
//!
//! In FieldsV1 a `.` says that the thing itself is owned, not only what is below it. Described in the API reference
//! of Kubernetes under `meta/v1 FieldsV1`.

mod element;
mod set;
mod v1;

pub use element::Element;
pub use set::{Entry, Set};
pub use v1::{FieldsError, MAX_FIELDS, parse, to_value};
