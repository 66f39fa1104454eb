//! The machine's own resolvers, for what is not of the cluster.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{PORT, answer::Over, tcp};
use crate::pod::host_resolvers;

/// How long all resolvers together may take; whoever asks gives up about then.
const PATIENCE: Duration = Duration::from_secs(4);
/// Longer messages do not come over UDP.
const LARGEST: usize = 4096;

/// Resolvers of the machine. They may change at any time, and the file is short.
fn servers() -> Vec<SocketAddr> {
    let text = host_resolvers();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|server| Some(SocketAddr::new(server.trim().parse::<IpAddr>().ok()?, PORT))).collect()
}

/// What they say to `question`, asked the way it came.
pub(super) async fn ask(question: &[u8], over: Over) -> Option<Vec<u8>> {
    ask_each(question, over, &servers()).await
}

/// The first answer one of `servers` gives.
async fn ask_each(question: &[u8], over: Over, servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        let asked = async {
            match over {
                Over::Udp => ask_udp(question, *server).await,
                Over::Tcp => ask_tcp(question, *server).await,
            }
        };
        if let Ok(Ok(reply)) = timeout(PATIENCE / servers.len() as u32, asked).await {
            return Some(reply);
        }
    }
    None
}

async fn ask_udp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
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

async fn ask_tcp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    tcp::write(&mut stream, question).await?;
    tcp::read(&mut stream).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

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
        assert_eq!(ask_each(b"\x01\x02?", Over::Udp, &servers).await.expect("an answer"), b"\x01\x02answer");
        assert_eq!(ask_each(b"\x01\x02?", Over::Udp, &[]).await, None);
    }

    #[tokio::test]
    async fn long_answers_come_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let long = vec![7; 60_000];
        let sent = long.clone();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("connection");
            assert_eq!(tcp::read(&mut stream).await.expect("question"), b"\x01\x02?");
            tcp::write(&mut stream, &sent).await.expect("answer");
        });
        assert_eq!(ask_each(b"\x01\x02?", Over::Tcp, &[address]).await, Some(long));
    }
}
