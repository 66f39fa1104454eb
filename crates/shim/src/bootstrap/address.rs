//! The socket a shim serves on. Engine and shim derive it alike, so that every
//! container of a pod finds the shim of its sandbox.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{Backlog, UnixAddr, bind, listen};
use sha2::{Digest, Sha256};

/// Directory of shim sockets; short, because a socket address holds 107 bytes.
const SOCKETS: &str = "/run/containerd/s";

/// A socket path that follows from engine address, namespace and sandbox id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(PathBuf);

impl Address {
    /// The address of sandbox `id` of `namespace` below the engine at `engine`.
    pub fn of(engine: &str, namespace: &str, id: &str) -> Self {
        let name = [engine, namespace, id].map(|part| part.trim_matches('/')).join("/");
        let absolute = format!("/{name}");
        Self(Path::new(SOCKETS).join(hex::encode(Sha256::digest(absolute.as_bytes()))))
    }

    /// The address as engines write it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.0.display())
    }

    /// Whether a shim serves there.
    pub fn is_served(&self) -> bool {
        UnixStream::connect(&self.0).is_ok()
    }

    /// Makes `socket` listen there, in place of the socket of a shim that is no more.
    ///
    /// # Errors
    /// When another shim serves there, or the socket cannot be made.
    pub fn bind(&self, socket: &OwnedFd) -> io::Result<()> {
        std::fs::create_dir_all(SOCKETS)?;
        if self.is_served() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.remove()?;
        bind(socket.as_raw_fd(), &UnixAddr::new(&self.0)?)?;
        Ok(listen(socket, Backlog::MAXCONN)?)
    }

    /// Removes the socket; success when there is none.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    use super::*;

    #[test]
    fn the_address_is_the_one_engines_expect() {
        // sha256("/run/containerd/containerd.sock/k8s.io/abc")
        let address = Address::of("/run/containerd/containerd.sock", "k8s.io", "abc");
        let hash = hex::encode(Sha256::digest(b"/run/containerd/containerd.sock/k8s.io/abc"));
        assert_eq!(address.url(), format!("unix:///run/containerd/s/{hash}"));
        assert_eq!(address, Address::of("/run/containerd/containerd.sock/", "k8s.io", "abc"));
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_kept() {
        let address = Address::of("/test", "osc-shim-tests", &format!("bind-{}", std::process::id()));
        let socket = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let (first, second) = (socket(), socket());
        assert!(!address.is_served());
        address.bind(&first).unwrap();
        assert!(address.is_served());
        assert_eq!(address.bind(&second).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        address.bind(&second).unwrap();
        assert!(address.is_served());
        address.remove().unwrap();
        address.remove().unwrap();
    }
}
