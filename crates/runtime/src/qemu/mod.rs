//! The virtual machine of a sandbox: QEMU.
//!
//! [`launch`] turns a [`VmSpec`] into a process, [`Machine`] follows it from
//! there to its end. Guest code is hostile and may have taken QEMU over: all
//! that comes from it, on control socket, standard error and console, is bounded
//! and never trusted.

pub mod accel;
mod command;
mod console;
mod error;
mod hotplug;
mod kernel;
mod machine;
mod preload;
mod process;
mod qmp;
mod saved;
mod spec;
mod stderr;
mod sys;

pub(crate) use self::preload::guest_memory;
pub use self::{
    error::{BootError, Evidence, HotplugError, StopError},
    hotplug::Disk,
    kernel::kernel_command_line,
    machine::{Machine, Running, START_LIMIT, Spawned, launch, restore},
    process::Exit,
    qmp::{Event, QmpError, RunState, Transfer},
    saved::Saved,
    spec::{Accelerator, Boot, Cpus, Memory, MemoryBackend, Nic, PciPath, Root, SharedFs, Uuid, VmSpec, VsockDevice},
};
