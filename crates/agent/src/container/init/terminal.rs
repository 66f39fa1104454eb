//! The terminal of a process, made inside the container so that its programs
//! find it in their own /dev/pts.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use osc_agent_protocol::oci;

use super::{
    Result, Stdio, during,
    rootfs::{Node, RootFs},
};
use crate::container::{
    sys,
    wire::{Control, Tag},
};

/// Both sides of a new terminal.
pub struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    /// Number in the container's devpts; `None` when it has none and the
    /// terminal is one of the guest's.
    number: Option<u32>,
}

impl Terminal {
    /// A new terminal of the size given, if any is.
    pub fn open(root: &RootFs, size: &oci::Box) -> Result<Self> {
        let opened = || -> io::Result<Self> {
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let (master, own) = match root.open_file("/dev/pts/ptmx", flags) {
                Ok(master) => (master, true),
                Err(Errno::ENOENT | Errno::ENOTDIR) => (open("/dev/ptmx", flags, Mode::empty())?, false),
                Err(errno) => return Err(errno.into()),
            };
            let slave = sys::open_slave(master.as_fd())?;
            let number = own.then(|| sys::slave_number(master.as_fd())).transpose()?;
            if size.Height > 0 && size.Width > 0 {
                let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
                sys::window_size(master.as_fd(), clamp(size.Height), clamp(size.Width))?;
            }
            Ok(Self { master, slave, number })
        };
        opened().map_err(during("open", "a terminal"))
    }

    /// Makes it the console of the container.
    pub fn bind_console(&self, root: &RootFs) -> Result<()> {
        let Some(number) = self.number else { return Ok(()) };
        let bound = || -> io::Result<()> {
            let node = root.open(format!("/dev/pts/{number}"))?;
            let place = root.ensure(Path::new("/dev/console"), Node::File)?;
            sys::move_mount(sys::open_tree_at(node.as_fd())?.as_fd(), place.as_fd())
        };
        bound().map_err(during("bind", "/dev/console"))
    }

    /// Gives the master to the agent and keeps the slave.
    pub fn hand_over(self, control: &mut Control) -> Result<Stdio> {
        control.send(Tag::Terminal, &[], &[self.master.as_raw_fd()]).map_err(during("hand over", "the terminal"))?;
        Ok(Stdio::Terminal(self.slave))
    }
}
