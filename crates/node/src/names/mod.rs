//! Cluster DNS: names of Services and pods, over UDP and TCP, on the address of each
//! node.
//!
//! What is not of the cluster is asked of the machine's own resolvers and handed
//! back as it comes. Only this process answers: while it does not run, pods find no
//! names.

mod answer;
mod tcp;
mod upstream;
mod zone;

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener as StdListener, UdpSocket as StdSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt::{IpFreebind, ReuseAddr},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;

use answer::{Over, Reply, answer};
pub use zone::{DOMAIN, Zone};

const PORT: u16 = 53;
/// Questions passed on at a time; more are dropped, and asked again.
const MOST: usize = 256;
/// Longer questions do not come over UDP.
const LARGEST: usize = 4096;

/// Serves names on one address.
#[derive(Debug)]
pub struct Server {
    datagrams: UdpSocket,
    streams: TcpListener,
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
        let datagrams = StdSocket::from(bound(SockType::Datagram, address, port)?);
        // Where any port will do, it is one port for both.
        let port = datagrams.local_addr()?.port();
        let streams = bound(SockType::Stream, address, port)?;
        listen(&streams, Backlog::MAXCONN)?;
        Ok(Self {
            datagrams: UdpSocket::from_std(datagrams)?,
            streams: TcpListener::from_std(StdListener::from(streams))?,
        })
    }

    /// Answers until `stop`.
    pub async fn run(self, zone: watch::Receiver<Arc<Zone>>, stop: CancellationToken) {
        tokio::join!(datagrams(self.datagrams, zone.clone(), stop.clone()), tcp::run(self.streams, zone, stop));
    }
}

/// A socket on an address that need not be there.
fn bound(kind: SockType, address: Ipv4Addr, port: u16) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, IpFreebind, &true)?;
    if kind == SockType::Stream {
        // Streams of an earlier server may linger; on datagrams it would let two have
        // one port.
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, port)))?;
    Ok(socket)
}

async fn datagrams(socket: UdpSocket, zone: watch::Receiver<Arc<Zone>>, stop: CancellationToken) {
    let socket = Arc::new(socket);
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
        match answer(question, &zone, Over::Udp) {
            Reply::Known(reply) => drop(socket.send_to(&reply, from).await),
            Reply::Nothing => {}
            Reply::Ask => {
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let (socket, question) = (socket.clone(), question.to_vec());
                tokio::spawn(async move {
                    if let Some(reply) = upstream::ask(&question, Over::Udp).await {
                        drop(socket.send_to(&reply, from).await);
                    }
                    drop(place);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, Query},
        rr::{Name, RecordType},
    };
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn an_address_that_is_not_there_yet_can_be_served() {
        assert!(Server::bind_port(Ipv4Addr::new(192, 0, 2, 1), 0).is_ok());
        let taken = StdSocket::bind("127.0.0.1:0").expect("bind");
        let port = taken.local_addr().expect("address").port();
        assert_eq!(Server::bind_port(Ipv4Addr::LOCALHOST, port).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn streams_and_datagrams_get_the_same_answers() {
        let server = Server::bind_port(Ipv4Addr::LOCALHOST, 0).expect("bind");
        let address = server.datagrams.local_addr().expect("address");
        let (_names, zone) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.run(zone, stop.clone()));

        let mut message = Message::query();
        let name = Name::from_ascii("10-1-0-9.n.pod.cluster.local.").expect("name");
        message.add_query(Query::query(name, RecordType::A));
        let question = message.to_vec().expect("bytes");

        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        socket.send_to(&question, address).await.expect("send");
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).await.expect("answer");

        let mut stream = TcpStream::connect(address).await.expect("connect");
        for _ in 0..2 {
            tcp::write(&mut stream, &question).await.expect("question");
            assert_eq!(tcp::read(&mut stream).await.expect("answer"), &reply[..length]);
        }
        // What is no question ends the stream.
        tcp::write(&mut stream, b"x").await.expect("rubbish");
        assert!(tcp::read(&mut stream).await.is_err());
        stop.cancel();
        served.await.expect("the server ends");
    }
}
