//! Objects as trees of things that can be owned.
//!
//! The schema decides how deep ownership goes ([`Place::shape`]): fields of granular objects, items of sets and of
//! keyed lists are owned one by one; scalars, atomic objects, atomic lists and lists nobody described are owned whole.
//!
//! * [`owned`]: the fields an applied object claims
//! * [`compare`]: what changed from one object to another
//! * [`merge`]: an applied object over a live one
//! * [`remove`]: an object without some of its fields
//! * [`prepare`]: checks that an applied object can be merged at all

mod compare;
mod merge;
mod owned;
mod place;
mod prepare;
mod remove;

pub use compare::{Change, compare};
pub use merge::merge;
pub use owned::{fit, name_parents, owned};
pub use place::{Identity, Place, Shape};
pub use prepare::{Problem, prepare};
pub use remove::remove;
