//! The socket the virtual machine monitor connects to: passed in, or made here.

use std::{fs::File, io, os::unix::net::UnixListener, path::Path};

use anyhow::{Context, ensure};
use nix::{
    sys::socket::{getsockopt, sockopt::AcceptConn},
    unistd::{Group, chown},
};
use virtiofsd::{oslib::ScopedUmask, util::write_pid_file};
use virtiofsd_vhost::vhost_user::Listener;

use crate::{options::Options, sys};

/// Rights the socket is made without: others', and the group's unless it gets one.
const NOT_OTHERS: u32 = 0o007;
const NOT_GROUP_NOR_OTHERS: u32 = 0o077;

/// The listening socket and, when it was made here, the locked pid file beside it.
pub fn listen(options: &Options) -> anyhow::Result<(Listener, Option<File>)> {
    if let Some(fd) = options.fd {
        let socket = sys::inherited(fd).with_context(|| format!("--fd {fd} is not open"))?;
        let listens = getsockopt(&socket, AcceptConn).with_context(|| format!("--fd {fd} is not a socket"))?;
        ensure!(listens, "--fd {fd} is a socket that does not listen");
        return Ok((UnixListener::from(socket).into(), None));
    }
    let path = options.socket_path.as_deref().context("neither --fd nor --socket-path is given")?;
    let group = options.socket_group.as_deref();
    let (listener, pid_file) = make(path, group.is_some())?;
    if let Some(name) = group {
        give(path, name)?;
    }
    Ok((listener, Some(pid_file)))
}

/// The lock on the pid file keeps a second daemon from replacing the socket of a
/// running one; the socket of one that has ended is replaced.
fn make(path: &str, for_group: bool) -> anyhow::Result<(Listener, File)> {
    let _umask = ScopedUmask::new(if for_group { NOT_OTHERS } else { NOT_GROUP_NOR_OTHERS });
    let pid_path = format!("{path}.pid");
    let pid_file = write_pid_file(Path::new(&pid_path)).with_context(|| match Path::new(path).parent() {
        Some(dir) if !dir.as_os_str().is_empty() && !dir.is_dir() => format!("{} is not a directory", dir.display()),
        _ => format!("cannot lock {pid_path}: does another daemon serve {path}?"),
    })?;
    let listener = Listener::new(path, true).with_context(|| format!("cannot listen at {path}"))?;
    Ok((listener, pid_file))
}

fn give(path: &str, name: &str) -> anyhow::Result<()> {
    let group = Group::from_name(name)
        .map_err(io::Error::from)
        .and_then(|group| group.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("no group {name}"))?;
    chown(path, None, Some(group.gid)).with_context(|| format!("cannot give {path} to group {name}"))
}
