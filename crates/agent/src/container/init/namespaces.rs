//! Entering and making namespaces.

use std::{fs::File, os::fd::OwnedFd, path::PathBuf, process};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::{Gid, Uid, setresgid, setresuid},
};

use super::{Result, during};
use crate::container::{
    sys,
    wire::{Control, Tag},
};

/// Enters `join` in order, then makes `new`; a new user namespace comes before
/// everything else so that it owns the rest.
pub fn enter(control: &mut Control, new: CloneFlags, join: &[(PathBuf, i32)]) -> Result<()> {
    if new.contains(CloneFlags::CLONE_NEWUSER) {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(during("make", "a user namespace"))?;
        control.ask(Tag::MapIds).map_err(during("map", "user and group ids"))?;
        become_root()?;
    }
    if new.contains(CloneFlags::CLONE_NEWPID) {
        unshare(CloneFlags::CLONE_NEWPID).map_err(during("make", "a pid namespace"))?;
        continue_as_sibling(control)?;
    }
    for (path, flag) in join {
        let file = File::open(path).map_err(during("open namespace", path.display()))?;
        let flag = CloneFlags::from_bits_truncate(*flag);
        setns(file, flag).map_err(during("enter namespace", path.display()))?;
        if flag == CloneFlags::CLONE_NEWUSER {
            become_root()?;
        }
    }
    let rest = new - CloneFlags::CLONE_NEWUSER - CloneFlags::CLONE_NEWPID;
    unshare(rest).map_err(during("make namespaces", format!("{rest:?}")))
}

/// Enters the namespaces of a running container at once.
pub fn join(first: OwnedFd, namespaces: CloneFlags) -> Result<()> {
    setns(first, namespaces).map_err(during("enter", "the container's namespaces"))?;
    if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        become_root()?;
    }
    Ok(())
}

fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).map_err(during("become", "root of the user namespace"))?;
    setresuid(uid, uid, uid).map_err(during("become", "root of the user namespace"))
}

/// A new pid namespace starts with our next child, so that goes on in our place;
/// the agent, whose child it becomes, is told its id.
fn continue_as_sibling(control: &mut Control) -> Result<()> {
    if let Some(pid) = sys::fork_sibling().map_err(during("start", "the first process of the pid namespace"))? {
        let told = control.send(Tag::Pid, &pid.to_le_bytes(), &[]);
        process::exit(i32::from(told.is_err()));
    }
    Ok(())
}
