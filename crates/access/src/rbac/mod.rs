//! Role-based access control.
//!
//! [`Authorizer`] keeps an index of the four kinds of `rbac.authorization.k8s.io/v1`, told of every change by the
//! owner of the objects, and answers from memory. Rules only ever allow; what no rule allows is refused.

mod attributes;
pub mod bootstrap;
mod compact;
mod escalation;
mod index;
mod role;
mod rule;

pub use attributes::{Attributes, Target};
pub use escalation::Escalation;
pub use index::{Authorizer, Decision};
pub use role::{Kind, Malformed};
pub use rule::Rule;
