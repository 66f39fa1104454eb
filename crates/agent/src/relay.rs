//! Connections from the host to what listens on the pod's loopback addresses.
//!
//! A port-forward means `localhost` of the pod, which only the guest has. The host
//! names a TCP port on a vsock stream (see [`names::RELAY_PORT`]) and is connected
//! to it, as if it were a process of the pod. Only the host can ask: containers
//! could reach no more through this than they reach themselves.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use osc_agent_protocol::names;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

/// Connections at a time; each holds two buffers of 8 KiB.
const MOST: usize = 256;
/// How long the host may take to name a port, and the pod to take the connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Relays connections that arrive on vsock `port` until that fails.
///
/// # Errors
/// When the guest has no vsock or the port stops accepting.
pub(crate) async fn serve(port: u32) -> io::Result<()> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let (stream, _) = listener.accept().await?;
        // Whoever finds no place is hung up on, which is a refusal, too.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        tokio::spawn(async move {
            if let Err(error) = relay(stream).await {
                tracing::debug!(error = %error, "relayed connection ended");
            }
            drop(place);
        });
    }
}

/// Serves one stream of the host.
async fn relay(mut host: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let port = timeout(PATIENCE, host.read_u16()).await??;
    match timeout(PATIENCE, connect(port)).await.unwrap_or_else(|late| Err(late.into())) {
        Ok(mut pod) => {
            host.write_u8(names::RELAY_CONNECTED).await?;
            copy_bidirectional(&mut host, &mut pod).await?;
            Ok(())
        }
        Err(error) => {
            host.write_u8(names::RELAY_REFUSED).await?;
            host.shutdown().await?;
            Err(error)
        }
    }
}

/// Connects to `localhost`: a workload may listen on either family only.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let localhost = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    TcpStream::connect(localhost.as_slice()).await
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn either_end_may_be_done_first() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (mut host, stream) = duplex(64);
            let relayed = tokio::spawn(relay(stream));
            host.write_u16(port).await.unwrap();
            let (mut pod, _) = listener.accept().await.unwrap();
            assert_eq!(host.read_u8().await.unwrap(), names::RELAY_CONNECTED, "{address}");

            host.write_all(b"question").await.unwrap();
            host.shutdown().await.unwrap();
            let mut text = String::new();
            pod.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "question");
            pod.write_all(&[b'a'; 4096]).await.unwrap();
            drop(pod);
            let mut answer = Vec::new();
            host.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer.len(), 4096);
            relayed.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_refused() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (mut host, stream) = duplex(64);
        let relayed = tokio::spawn(relay(stream));
        host.write_u16(free).await.unwrap();
        let mut answer = Vec::new();
        host.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [names::RELAY_REFUSED]);
        assert_eq!(relayed.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
