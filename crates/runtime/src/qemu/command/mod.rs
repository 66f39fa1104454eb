//! QEMU's command line: one file per group of devices.
//!
//! ```text
//!  pcie.0 ── 00 host bridge
//!         ├─ 02…06 pci-bridge-0…4   hot-plugged devices, 30 each
//!         ├─ next free: virtio-rng, vhost-user-fs, vsock, disk, network cards
//!         └─ 1f ISA bridge with serial port (console) and panic device
//! ```

mod devices;
mod machine;
mod memory;
mod nic;

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

pub(super) use self::{
    devices::FIRST_BRIDGE,
    memory::backend as memory_backend,
    nic::{mac_text, vectors as nic_vectors},
};
use super::{error::BootError, preload::Preloaded, spec::VmSpec};

/// Open sockets handed to QEMU.
pub(super) struct Channels {
    /// Listening control socket.
    pub qmp: OwnedFd,
    /// Connected console.
    pub console: OwnedFd,
    pub vsock: Option<VsockLink>,
    /// Connected to virtiofsd.
    pub share: Option<OwnedFd>,
}

/// The other side of the vsock device.
#[derive(Debug)]
pub(super) enum VsockLink {
    /// The host's kernel.
    Kernel { fd: OwnedFd, cid: u32 },
    /// Connected to a back end in user space.
    User(OwnedFd),
}

/// Arguments and the descriptors they mention by number.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    pub args: Vec<String>,
    pub inherited: Vec<OwnedFd>,
}

impl CommandLine {
    /// The arguments for `spec`, whose descriptors move into the result. With
    /// `preloaded` the machine gets that memory and the kernel in it.
    pub fn build(spec: &mut VmSpec, channels: Channels, preloaded: Option<Preloaded>) -> Result<Self, BootError> {
        let mut line = Self::default();
        line.option("-name", format!("sandbox-{},debug-threads=on", spec.name));
        line.option("-uuid", spec.uuid());
        line.option("-pidfile", plain(&spec.pid_file())?);
        let preloaded = preloaded.map(|Preloaded { memory, stub }| (line.open(memory), line.open(stub)));
        let (memory, kernel) = preloaded.unzip();
        machine::add(&mut line, spec, kernel)?;
        memory::add(&mut line, &spec.memory, memory)?;
        devices::add(&mut line, spec, channels)?;
        for nic in std::mem::take(&mut spec.nics) {
            nic::add(&mut line, nic);
        }
        if !spec.seccomp.is_empty() {
            line.option("-sandbox", &spec.seccomp);
        }
        Ok(line)
    }

    /// Lets the machine stand still until it is given a state to go on from.
    pub fn await_state(&mut self) {
        self.flag("-S");
        self.option("-incoming", "defer");
    }

    fn flag(&mut self, name: &str) {
        self.args.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl ToString) {
        self.args.push(name.into());
        self.args.push(value.to_string());
    }

    /// Keeps `fd` open in QEMU and gives the number it has there.
    fn inherit(&mut self, fd: OwnedFd) -> i32 {
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        number
    }

    /// Keeps `file` open in QEMU and gives the path under which it finds it.
    fn open(&mut self, file: File) -> String {
        format!("/proc/self/fd/{}", self.inherit(file.into()))
    }

    /// The numbers of several descriptors, separated as QEMU wants them.
    fn inherit_all(&mut self, fds: Vec<OwnedFd>) -> String {
        fds.into_iter().map(|fd| self.inherit(fd).to_string()).collect::<Vec<_>>().join(":")
    }
}

/// A path that is an argument of its own.
fn plain(path: &Path) -> Result<&str, BootError> {
    path.to_str().ok_or_else(|| BootError::Path(path.to_owned()))
}

/// A path inside a list of options, where a comma would end it.
fn listed(path: &Path) -> Result<String, BootError> {
    Ok(plain(path)?.replace(',', ",,"))
}

#[cfg(test)]
mod tests;
