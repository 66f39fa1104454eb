//! Connections below what client libraries offer: bytes over TLS, and many streams on one connection.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::common::{Cluster, PATIENCE};

/// Who connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Administrator,
    /// Somebody without credentials.
    Stranger,
}

fn client_config(cluster: &Cluster, who: Who, protocol: &[u8]) -> rustls::ClientConfig {
    let authority = cluster.plane.authority();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = if who == Who::Stranger {
        builder.with_no_client_auth()
    } else {
        let leaf = authority.client("root", Some("system:masters"), time::OffsetDateTime::now_utc()).unwrap();
        let certificate = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    };
    if !protocol.is_empty() {
        config.alpn_protocols = vec![protocol.to_vec()];
    }
    config
}

async fn shake(config: rustls::ClientConfig, stream: TcpStream) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
    timeout(PATIENCE, shaking).await.expect("a handshake in time").unwrap()
}

/// A connection for HTTP/1.1.
pub async fn connect(cluster: &Cluster, who: Who) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(cluster.plane.address()).await.unwrap();
    shake(client_config(cluster, who, b""), stream).await
}

/// The same with a small buffer in the kernel, for somebody who does not read.
pub async fn connect_narrow(cluster: &Cluster) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(cluster.plane.address()).await.unwrap();
    shake(client_config(cluster, Who::Administrator, b""), stream).await
}

/// A connection for HTTP/2.
pub async fn connect_h2(cluster: &Cluster) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(cluster.plane.address()).await.unwrap();
    let stream = shake(client_config(cluster, Who::Administrator, b"h2"), stream).await;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A `GET` on a connection for HTTP/2.
pub async fn get(sender: &mut http2::SendRequest<Full<Bytes>>, path: &str) -> Response<Incoming> {
    let request = Request::builder().uri(format!("https://localhost{path}")).body(Full::default()).unwrap();
    sender.ready().await.unwrap();
    timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time").unwrap()
}

/// Sends a `GET` and does not wait for the answer.
pub async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
}

/// Status of the next answer; its body is read over.
pub async fn status<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> u16 {
    let reading = async {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "the end instead of an answer: {head}");
        }
        let length = head
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split('\r').next().unwrap().parse().unwrap());
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    };
    timeout(PATIENCE, reading).await.expect("an answer in time")
}

/// Somebody who reads and writes in the meantime, and notes how long that takes.
pub struct Probe {
    task: tokio::task::JoinHandle<(usize, Duration)>,
    stop: tokio_util::sync::CancellationToken,
}

impl Probe {
    /// Begins on a connection of its own; a first round is over when this returns.
    pub async fn start(client: kube::Client) -> Self {
        probe(&client).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut rounds, mut longest) = (0, Duration::ZERO);
            while !stopped.is_cancelled() || rounds == 0 {
                let began = Instant::now();
                probe(&client).await;
                (rounds, longest) = (rounds + 1, longest.max(began.elapsed()));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (rounds, longest)
        });
        Self { task, stop }
    }

    /// Ends; everything must have been answered within a second.
    pub async fn finish(self, during: &str) {
        self.stop.cancel();
        let (rounds, longest) = timeout(PATIENCE, self.task).await.expect("an answer in time").unwrap();
        println!("{during}: {rounds} rounds beside it, the longest took {longest:?}");
        assert!(longest < Duration::from_secs(1), "{during}: a round took {longest:?}");
    }
}

/// A write and a read.
async fn probe(client: &kube::Client) {
    let map = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}"#;
    let path = "/api/v1/namespaces/kube-public/configmaps/probe";
    let apply = Request::patch(format!("{path}?fieldManager=probe"))
        .header("content-type", "application/apply-patch+yaml")
        .body(map.into());
    client.request::<serde_json::Value>(apply.unwrap()).await.unwrap();
    client.request_text(Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
}
