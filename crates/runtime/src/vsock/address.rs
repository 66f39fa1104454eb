//! Where a guest's stream socket can be reached from the host, as text.
//!
//! The forms are those other programs know from Kata Containers' `/agent-url`:
//! `vsock://<cid>:<port>`, `hvsock://<socket path>:<port>` and `unix://<path>`.

use std::{fmt, path::PathBuf, str::FromStr};

/// One dialable end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Through the kernel's vhost-vsock.
    Vsock {
        /// Context identifier of the guest.
        cid: u32,
        /// Port in the guest.
        port: u32,
    },
    /// Through a Unix socket that expects `CONNECT <port>` first.
    Hybrid {
        /// The socket.
        path: PathBuf,
        /// Port in the guest.
        port: u32,
    },
    /// A plain Unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

/// Text that is no [`Address`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no address: write vsock://<cid>:<port>, hvsock://<path>:<port> or unix://<path>")]
pub struct BadAddress(pub String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        parse(text).ok_or_else(|| BadAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Address> {
    let (scheme, rest) = text.split_once("://")?;
    if scheme == "unix" {
        return (!rest.is_empty()).then(|| Address::Unix { path: rest.into() });
    }
    let (place, port) = rest.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match scheme {
        "vsock" => Some(Address::Vsock { cid: place.parse().ok()?, port }),
        "hvsock" if !place.is_empty() => Some(Address::Hybrid { path: place.into(), port }),
        _ => None,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::Hybrid { path, port } => write!(f, "hvsock://{}:{port}", path.display()),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        let rows = [
            ("vsock://42:1024", Some(Address::Vsock { cid: 42, port: 1024 })),
            ("hvsock:///run/a:b/x.sock:1026", Some(Address::Hybrid { path: "/run/a:b/x.sock".into(), port: 1026 })),
            ("unix:///run/agent.sock", Some(Address::Unix { path: "/run/agent.sock".into() })),
            ("vsock://:1", None),
            ("vsock://3", None),
            ("vsock://4294967296:1", None),
            ("hvsock://:1", None),
            ("hvsock:///x.sock:", None),
            ("unix://", None),
            ("tcp://1:2", None),
            ("", None),
        ];
        for (text, want) in rows {
            assert_eq!(text.parse::<Address>().ok(), want, "{text}");
            if let Some(address) = want {
                assert_eq!(address.to_string(), text);
            }
        }
    }
}
