//! What the guest sees of the host's files: one tree per sandbox, served by virtiofsd.
//!
//! ```text
//! <share>/                 a mount of its own, private
//!   mounts/                shared: everything for the guest is mounted here …
//!     <cid>/rootfs
//!     <cid>-<16 hex>-<name>
//!     sandbox-mounts/<name>
//!     watchable/
//!   shared/                … and shows up here: a read-only slave of mounts/,
//!                          the root of virtiofsd
//!   private/               where a mount gets its flags before the guest sees it
//! ```
//!
//! The guest is the attacker: it may own virtiofsd. It therefore gets a root it
//! cannot write to, read-only volumes that are read-only mounts of the host, and
//! mounts that can never send an unmount back to where they came from. Clean-up
//! works from the sandbox id alone, from any half-way state, follows no symbolic
//! link and never removes anything through a mount.

mod container;
mod error;
mod mount;
mod mountinfo;
mod remove;
mod source;
mod treatment;
mod tree;
mod virtiofsd;

#[cfg(test)]
mod tests;

pub use container::{ContainerFiles, VolumeRules};
pub use error::ShareError;
pub use tree::Share;
pub use virtiofsd::{DaemonError, DaemonSpec, Virtiofsd};
