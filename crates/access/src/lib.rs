//! Who may do what: certificates, tokens, authorisation.
//!
//! ```text
//!  TLS peer certificate ─┐
//!  Authorization header ─┴─► authenticate ─► Identity ─► rbac::Authorizer ─► Decision
//!                                │                            ▲
//!                       ca, token (keys on disk)     roles and bindings, kept current
//!                                                    by the owner of the objects
//! ```
//!
//! Everything here is synchronous and free of input and output, except for the key files that `ca` and `token`
//! create once and read at start. The attacker is any client of the API: headers, tokens and certificates are
//! hostile until verified, and nothing secret appears in errors or `Debug` output.

pub mod authenticate;
pub mod ca;
mod files;
pub mod identity;
pub mod impersonate;
pub mod kubeconfig;
pub mod rbac;
pub mod token;

pub use authenticate::{Authenticator, Unauthorized};
pub use identity::Identity;
pub use rbac::{Attributes, Authorizer, Decision};
