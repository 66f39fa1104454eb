//! Cluster DNS: names of Services for pods, over UDP, on the address of each node.
//!
//! What is not of the cluster is asked of the machine's own resolvers and handed
//! back as it comes. Only this process answers: while it does not run, pods find no
//! names.

mod answer;
mod zone;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt::IpFreebind};
use tokio::{
    net::UdpSocket,
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::pod::host_resolvers;
use answer::{Reply, answer};
pub use zone::{DOMAIN, Zone};

const PORT: u16 = 53;
/// Questions passed on at a time; more are dropped, and asked again.
const MOST: usize = 256;
/// How long a resolver of the machine may take; whoever asks gives up about then.
const PATIENCE: Duration = Duration::from_secs(4);
/// Longer messages do not come over UDP.
const LARGEST: usize = 4096;

/// Serves names on one address.
#[derive(Debug)]
pub struct Server {
    socket: UdpSocket,
}

impl Server {
    /// Takes the DNS port of `address`, which need not be there yet: a bridge comes
    /// with its first pod.
    ///
    /// # Errors
    /// When somebody else has the port.
    pub fn bind(address: Ipv4Addr) -> io::Result<Self> {
        Self::bind_port(address, PORT)
    }

    fn bind_port(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let unbound = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        setsockopt(&unbound, IpFreebind, &true)?;
        let socket = StdSocket::from(unbound);
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, port)))?;
        Ok(Self { socket: UdpSocket::from_std(socket)? })
    }

    /// Answers until `stop`.
    pub async fn run(self, zone: watch::Receiver<Arc<Zone>>, stop: CancellationToken) {
        let socket = Arc::new(self.socket);
        let places = Arc::new(Semaphore::new(MOST));
        let mut question = [0; LARGEST];
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = socket.recv_from(&mut question) => received, // cancel-safe
            };
            // An error is about an answer nobody waits for any more.
            let Ok((length, from)) = received else { continue };
            let question = &question[..length];
            let zone = zone.borrow().clone();
            match answer(question, &zone) {
                Reply::Known(reply) => drop(socket.send_to(&reply, from).await),
                Reply::Nothing => {}
                Reply::Ask => {
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let (socket, question) = (socket.clone(), question.to_vec());
                    tokio::spawn(async move {
                        if let Some(reply) = pass_on(&question, &upstreams()).await {
                            drop(socket.send_to(&reply, from).await);
                        }
                        drop(place);
                    });
                }
            }
        }
    }
}

/// Resolvers of the machine. They may change at any time, and the file is short.
fn upstreams() -> Vec<SocketAddr> {
    let text = host_resolvers();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|server| Some(SocketAddr::new(server.trim().parse::<IpAddr>().ok()?, PORT))).collect()
}

/// The first answer one of `servers` gives.
async fn pass_on(question: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(reply)) = timeout(PATIENCE / servers.len() as u32, ask(question, *server)).await {
            return Some(reply);
        }
    }
    None
}

async fn ask(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own for each question, so that nobody guesses it.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut reply = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut reply).await?;
        if length >= 2 && reply[..2] == question[..2] {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn others_are_asked_in_turn() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let other = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let servers = [silent.local_addr().expect("address"), other.local_addr().expect("address")];
        tokio::spawn(async move {
            let mut question = [0; 16];
            let (length, from) = other.recv_from(&mut question).await.expect("question");
            assert_eq!(&question[..length], b"\x01\x02?");
            other.send_to(b"\x09\x09forged", from).await.expect("send");
            other.send_to(b"\x01\x02answer", from).await.expect("send");
        });
        // Nobody is there any more, which the kernel says at once.
        drop(silent);
        assert_eq!(pass_on(b"\x01\x02?", &servers).await.expect("an answer"), b"\x01\x02answer");
        assert_eq!(pass_on(b"\x01\x02?", &[]).await, None);
    }

    #[tokio::test]
    async fn an_address_that_is_not_there_yet_can_be_served() {
        assert!(Server::bind_port(Ipv4Addr::new(192, 0, 2, 1), 0).is_ok());
        let taken = StdSocket::bind("127.0.0.1:0").expect("bind");
        let port = taken.local_addr().expect("address").port();
        assert_eq!(Server::bind_port(Ipv4Addr::LOCALHOST, port).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
