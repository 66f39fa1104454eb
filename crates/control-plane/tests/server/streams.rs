//! Logs and upgraded connections, with a node whose runtime is played by a
//! small server that echoes.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use osc_control_plane::streams::{ByteStream, ExecOptions, LogOptions, NodeAccess, NodeError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{
    common::{self, Cluster, pod},
    wire::{self, Who},
};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers every handshake and echoes what comes, one connection at a time;
/// returns its address.
async fn runtime() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let head = head(&mut stream).await;
            if head.contains("/refuse") {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
                continue;
            }
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                          X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(head.lines().next().unwrap().as_bytes()).await.unwrap();
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                stream.write_all(&bytes[..count]).await.unwrap();
            }
        }
    });
    address
}

/// Everything up to the empty line.
async fn head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "{head}");
    }
    head
}

struct Node {
    runtime: SocketAddr,
}

#[async_trait]
impl NodeAccess for Node {
    async fn logs(&self, _: &Value, options: LogOptions) -> Result<ByteStream, NodeError> {
        if options.previous {
            return Err(NodeError::NotReady("previous terminated container \"c\" in pod \"p\" not found".into()));
        }
        let lines =
            vec![Ok(Bytes::from(format!("{} {:?}\n", options.container, options.tail_lines))), Ok("end\n".into())];
        Ok(futures::stream::iter(lines).boxed())
    }

    async fn exec(&self, _: &Value, options: ExecOptions) -> Result<String, NodeError> {
        Ok(format!("http://{}/exec/{}", self.runtime, options.command.join("-")))
    }

    async fn attach(&self, _: &Value, _: ExecOptions) -> Result<String, NodeError> {
        Ok(format!("http://{}/refuse", self.runtime))
    }

    async fn port_forward(&self, _: &Value, _: Vec<u16>) -> Result<String, NodeError> {
        Ok(format!("http://{}/portforward/token", self.runtime))
    }
}

async fn cluster_with_pod() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.plane.nodes().register("n", Arc::new(Node { runtime: runtime().await }));
    let mut pod = pod("p");
    pod["spec"]["nodeName"] = json!("n");
    cluster.create(PODS, pod).await;
    cluster
}

/// Sends a handshake; returns the connection and the head of the answer.
async fn handshake(cluster: &Cluster, path: &str, headers: &str) -> (BufReader<TlsStream<TcpStream>>, String) {
    let mut stream = BufReader::new(wire::connect(cluster, Who::Administrator).await);
    let request = format!("POST {PODS}/p/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = timeout(common::PATIENCE, head(&mut stream)).await.expect("an answer");
    (stream, head)
}

const SPDY: &str = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v5.channel.k8s.io\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";

#[tokio::test]
async fn bytes_go_both_ways() {
    let cluster = cluster_with_pod().await;
    for (path, want) in [
        ("exec?command=echo&command=hi&stdout=true", "POST /exec/echo-hi HTTP/1.1"),
        ("portforward?ports=80,81", "POST /portforward/token?port=80&port=81 HTTP/1.1"),
    ] {
        let (mut stream, head) = handshake(&cluster, path, SPDY).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.to_ascii_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
        let mut bytes = vec![0; want.len()];
        timeout(common::PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), want);
        stream.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        timeout(common::PATIENCE, stream.read_exact(&mut echo)).await.unwrap().unwrap();
        assert_eq!(&echo, b"ping");
    }
    let (mut open, _) = handshake(&cluster, "exec?command=sh&stdout=1", SPDY).await;
    cluster.stop().await;
    let mut rest = Vec::new();
    // However the end comes, it comes.
    let _ = timeout(common::PATIENCE, open.read_to_end(&mut rest)).await.expect("the end of the server ends streams");
}

#[tokio::test]
async fn what_cannot_be_joined_is_refused_in_words() {
    let cluster = cluster_with_pod().await;
    let websocket = |protocol: &str| {
        format!(
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n"
        )
    };
    for (path, headers, want) in [
        ("exec?command=sh&stdout=1", websocket("v5.channel.k8s.io"), "400"),
        ("portforward", websocket("SPDY/3.1+portforward.k8s.io"), "400"),
        ("exec?command=sh&stdout=1", String::new(), "400"),
        ("exec?stdout=1", SPDY.to_owned(), "400"),
        ("exec?command=sh&stdout=1&container=x", SPDY.to_owned(), "400"),
        ("attach?stdout=1", SPDY.to_owned(), "404"),
    ] {
        let (mut stream, head) = handshake(&cluster, path, &headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {want}")), "{path} {headers}: {head}");
        let length =
            head.to_ascii_lowercase().split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse();
        let mut body = vec![0; length.unwrap()];
        timeout(common::PATIENCE, stream.read_exact(&mut body)).await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "Status", "{path}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let cluster = cluster_with_pod().await;
    let ask = |query: &str| {
        let request = Request::builder().method(Method::GET).uri(format!("{PODS}/p/log{query}"));
        cluster.send(request.body(Full::default()).unwrap())
    };
    let answer = ask("?tailLines=5").await;
    assert_eq!((answer.status(), &answer.headers()["content-type"]), (StatusCode::OK, &"text/plain".parse().unwrap()));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "c Some(5)\nend\n");
    for (query, words) in [
        ("?previous=true", "previous terminated container"),
        ("?container=x", "container x is not valid for pod p"),
        ("?tailLines=many", "tailLines"),
        ("?sinceTime=yesterday", "sinceTime"),
    ] {
        let (code, status) = common::read(ask(query).await).await;
        assert_eq!((code, status["message"].as_str().unwrap().contains(words)), (400, true), "{query}: {status}");
    }
    cluster.create(PODS, pod("unplaced")).await;
    let (code, status) = cluster.get(&format!("{PODS}/unplaced/log")).await;
    assert_eq!((code, status["message"].as_str().unwrap().contains("does not have a host assigned")), (400, true));
    cluster.plane.nodes().remove("n");
    assert_eq!(cluster.get(&format!("{PODS}/p/log")).await.0, 503);
    cluster.stop().await;
}
