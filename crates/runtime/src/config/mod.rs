//! `configuration.toml`: where it is found, what it may say, what it means.
//!
//! ```text
//! configuration.toml ─┐
//! config.d/*.toml ────┼─► merged table ─► vet (names, types) ─► Raw ─► check ─► Config
//! pod annotations ────┘        ▲
//!                        keys: one row per key
//! ```
//!
//! [`keys`] is the one list of keys: names, types, defaults and explanations come
//! from it, for reading as for the file we ship. Annotations are settings with
//! another spelling: they are written into the merged table and pass the same
//! check. Keys of Kata Containers whose feature does not exist here are accepted
//! at their default, so that a stock file loads, and refused otherwise.

mod annotations;
mod asset;
mod check;
mod error;
mod glob;
mod keys;
mod load;
mod raw;
mod render;
mod types;
mod vet;

#[cfg(test)]
mod tests;

pub use annotations::annotations_markdown;
pub use error::{ConfigError, Problem};
pub use load::Host;
pub use render::{DefaultPaths, default_toml};
pub use types::{
    Accelerator, Agent, BindMount, CacheMode, Config, GuestRoot, Hypervisor, KernelModule, LEAST_MEMORY, MachineType,
    Mib, NetworkModel, Runtime, Templates, VirtioFs,
};
