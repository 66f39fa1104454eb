//! The socket a shim serves on. Engine and shim derive it alike, so that every
//! container of a pod finds the shim of its sandbox.

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Directory of shim sockets; short, because a socket address holds 107 bytes.
const SOCKETS: &str = "/run/containerd/s";

/// A socket path that follows from engine address, namespace and sandbox id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(PathBuf);

/// How taking an address went.
#[derive(Debug)]
pub enum Bound {
    /// It is ours.
    Listening(UnixListener),
    /// Another shim serves there.
    Served,
}

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

    /// Listens, replacing the socket of a shim that is no more.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(&self) -> io::Result<Bound> {
        std::fs::create_dir_all(SOCKETS)?;
        match UnixListener::bind(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(&self.0).is_ok() {
                    return Ok(Bound::Served);
                }
                self.remove()?;
                UnixListener::bind(&self.0).map(Bound::Listening)
            }
            outcome => outcome.map(Bound::Listening),
        }
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
        let Bound::Listening(first) = address.bind().unwrap() else { panic!("the address is fresh") };
        assert!(matches!(address.bind().unwrap(), Bound::Served));
        drop(first);
        assert!(matches!(address.bind().unwrap(), Bound::Listening(_)));
        address.remove().unwrap();
        address.remove().unwrap();
    }
}
