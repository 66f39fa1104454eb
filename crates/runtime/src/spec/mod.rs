//! What the container engine asks for, read from the bundle's `config.json`, and what
//! of it the guest is told.
//!
//! ```text
//! config.json ─► load ─► Spec ─┬─► PodKind, Names      what it is
//!                              ├─► size                how large the machine must be
//!                              └─► convert ─► strip    what the agent gets
//! ```
//!
//! Types are those of the OCI Runtime Specification; what leaves for the guest are
//! the protobuf messages of the agent protocol. Everything here is a pure function of
//! its input, except for reading files.

mod convert;
mod cpuset;
mod kind;
mod load;
mod sandbox;
mod seccomp;
mod size;
mod strip;

#[cfg(test)]
mod tests;

pub use convert::{mount_to_proto, process_to_proto, resources_to_proto, spec_to_proto};
pub use cpuset::cpus_in;
pub use kind::{KindError, Names, PodKind};
pub use load::{MAX_SPEC, SpecError, exec_process, load, resources};
pub use oci_spec::runtime::Spec;
pub use sandbox::{SHM_MOUNT_POINT, dns, hostname, sandbox_storages, shm_size};
pub use size::{Limits, Size, SizeError, boot_size, grown_size};
pub use strip::{ForGuest, GuestRules, for_guest};
