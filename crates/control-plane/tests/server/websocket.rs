//! exec and port-forward of kube-rs: WebSocket channels, with a runtime that is played.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, TerminalSize},
};
use osc_control_plane::streams::{ByteStream, ExecOptions, LogOptions, NodeAccess, NodeError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

use crate::common::{Cluster, PATIENCE, pod};

const PROTOCOL: &str = "v4.channel.k8s.io";

/// The streaming server of a runtime: what a path begins with says what it plays.
async fn runtime() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(play(stream));
        }
    });
    address
}

async fn play(stream: TcpStream) {
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the signature is theirs")]
    let handshake = |request: &Request, mut response: Response| {
        assert_eq!(request.headers()["sec-websocket-protocol"], PROTOCOL, "only what the runtime speaks is offered");
        response.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse().unwrap());
        path = request.uri().to_string();
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, handshake).await.unwrap();
    if path.starts_with("/exec/") { shell(socket, &path).await } else { echo(socket, &path).await }
}

async fn send(socket: &mut WebSocketStream<TcpStream>, channel: u8, bytes: &[u8]) {
    socket.send(Message::Binary([&[channel], bytes].concat().into())).await.unwrap();
}

/// Answers each line of input in capitals and complains about it; told the size of the terminal it says so; ends with
/// code 3 at `bye`.
async fn shell(mut socket: WebSocketStream<TcpStream>, path: &str) {
    send(&mut socket, 1, format!("{path}\n").as_bytes()).await;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((0, b"bye\n")) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NonZeroExitCode",
                    "message": "command terminated with exit code 3",
                    "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
                send(&mut socket, 3, status.to_string().as_bytes()).await;
                socket.close(None).await.unwrap();
            }
            Some((0, line)) if !line.is_empty() => {
                send(&mut socket, 1, &line.to_ascii_uppercase()).await;
                send(&mut socket, 2, b"hm\n").await;
            }
            Some((4, size)) => send(&mut socket, 1, &[size, b"\n"].concat()).await,
            _ => {}
        }
    }
}

/// Sends back what comes for each port; port 81 cannot be reached.
async fn echo(mut socket: WebSocketStream<TcpStream>, path: &str) {
    let ports = path.split(['?', '&']).filter_map(|part| part.strip_prefix("port=")?.parse::<u16>().ok());
    for (at, port) in ports.enumerate() {
        let at = u8::try_from(at).unwrap();
        for channel in [2 * at, 2 * at + 1] {
            send(&mut socket, channel, &port.to_le_bytes()).await;
        }
        if port == 81 {
            send(&mut socket, 2 * at + 1, b"nobody listens").await;
        }
    }
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            socket.send(Message::Binary(bytes)).await.unwrap();
        }
    }
}

struct Node {
    runtime: SocketAddr,
}

#[async_trait]
impl NodeAccess for Node {
    async fn logs(&self, _: &Value, _: LogOptions) -> Result<ByteStream, NodeError> {
        Err(NodeError::NotReady("no logs here".into()))
    }

    async fn exec(&self, _: &Value, options: ExecOptions) -> Result<String, NodeError> {
        Ok(format!("http://{}/exec/{}?tty={}", self.runtime, options.command.join("-"), options.tty))
    }

    async fn attach(&self, pod: &Value, options: ExecOptions) -> Result<String, NodeError> {
        self.exec(pod, options).await
    }

    async fn port_forward(&self, _: &Value, _: Vec<u16>) -> Result<String, NodeError> {
        Ok(format!("http://{}/portforward/token", self.runtime))
    }
}

async fn cluster_with_pod() -> (Cluster, Api<Pod>) {
    let cluster = Cluster::start().await;
    cluster.plane.nodes().register("n", Arc::new(Node { runtime: runtime().await }));
    let mut pod = pod("p");
    pod["spec"]["nodeName"] = json!("n");
    cluster.create("/api/v1/namespaces/default/pods", pod).await;
    let pods = Api::default_namespaced(cluster.client().await);
    (cluster, pods)
}

async fn expect(from: &mut (impl AsyncReadExt + Unpin), words: &str) {
    let mut bytes = vec![0; words.len()];
    timeout(PATIENCE, from.read_exact(&mut bytes)).await.expect("in time").unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_has_channels_and_an_exit_code() {
    let (cluster, pods) = cluster_with_pod().await;
    let parameters = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let mut process = pods.exec("p", ["sh", "-c"], &parameters).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    let (mut stderr, status) = (process.stderr().unwrap(), process.take_status().unwrap());
    expect(&mut stdout, "/exec/sh--c?tty=false\n").await;
    stdin.write_all(b"hello\n").await.unwrap();
    expect(&mut stdout, "HELLO\n").await;
    expect(&mut stderr, "hm\n").await;
    stdin.write_all(b"bye\n").await.unwrap();
    let status = timeout(PATIENCE, status).await.expect("an end").expect("a status");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("3"));
    let parameters = AttachParams::interactive_tty().stderr(false);
    let mut terminal = pods.attach("p", &parameters).await.unwrap();
    let mut stdout = terminal.stdout().unwrap();
    expect(&mut stdout, "/exec/?tty=true\n").await;
    terminal.terminal_size().unwrap().send(TerminalSize { height: 24, width: 80 }).await.unwrap();
    expect(&mut stdout, "{\"Width\":80,\"Height\":24}\n").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_forwarded_side_by_side() {
    let (cluster, pods) = cluster_with_pod().await;
    let mut forwarded = pods.portforward("p", &[80, 81, 443]).await.unwrap();
    for port in [80, 443] {
        let mut stream = forwarded.take_stream(port).unwrap();
        let words = format!("to {port} and back");
        stream.write_all(words.as_bytes()).await.unwrap();
        expect(&mut stream, &words).await;
    }
    let error = timeout(PATIENCE, forwarded.take_error(81).unwrap()).await.expect("told in time");
    assert_eq!(error.as_deref(), Some("nobody listens"));
    cluster.stop().await;
}
