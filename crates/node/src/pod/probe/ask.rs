//! Asking a container, each kind of question once.

use std::{net::IpAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use osc_agent_protocol::kind::chain;
use tokio::net::TcpStream;

use super::{Probe, Question, tls};
use crate::{cri::Client, pod::model::HttpGet};

/// As much of an answer as can be of interest.
const MAX_BODY: usize = 10 << 10;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Asks once. Why the answer is no, in words.
pub(super) async fn ask(client: &Client, container: &str, address: IpAddr, probe: &Probe) -> Result<(), String> {
    let limit = probe.timeout;
    let answer = async {
        match &probe.question {
            Question::Exec(command) => exec(client, container, command, limit).await,
            Question::Http(get) => http_get(get, address).await,
            Question::Tcp { host, port } => connect(host, address, *port).await.map(drop),
            Question::Grpc { port, service } => grpc(address, *port, service).await,
        }
    };
    // Enough longer than the engine's own limit that its answer comes first.
    let limit = if matches!(probe.question, Question::Exec(_)) { limit + Duration::from_secs(5) } else { limit };
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

async fn exec(client: &Client, container: &str, command: &[String], limit: Duration) -> Result<(), String> {
    match client.exec_sync(container, command.to_vec(), limit).await {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => {
            let output = [answer.stdout, answer.stderr].concat();
            let text = String::from_utf8_lossy(&output[..output.len().min(MAX_BODY)]).trim().to_owned();
            Err(if text.is_empty() { format!("exit code {}", answer.exit_code) } else { text })
        }
        Err(error) => Err(chain(&error)),
    }
}

async fn connect(host: &str, address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let connected = if host.is_empty() {
        TcpStream::connect((address, port)).await
    } else {
        TcpStream::connect((host, port)).await
    };
    connected.map_err(|error| {
        let host = if host.is_empty() { address.to_string() } else { host.to_owned() };
        format!("dial tcp {host}:{port}: {error}")
    })
}

/// Sends the request; an answer of 200 to 399 is a good one.
///
/// # Errors
/// What is wrong with the answer, in words.
pub async fn http_get(get: &HttpGet, address: IpAddr) -> Result<(), String> {
    let stream = connect(&get.host, address, get.port).await?;
    let request = request(get, address)?;
    let response = if get.tls {
        let name = if get.host.is_empty() { address.to_string() } else { get.host.clone() };
        exchange(TokioIo::new(tls::connect(&name, stream).await?), request).await?
    } else {
        exchange(TokioIo::new(stream), request).await?
    };
    let code = response.status().as_u16();
    if (200..400).contains(&code) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
}

fn request(get: &HttpGet, address: IpAddr) -> Result<Request<Full<Bytes>>, String> {
    let host = if get.host.is_empty() { address.to_string() } else { get.host.clone() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let mut builder = Request::builder().method(Method::GET).uri(get.path.as_str());
    let given =
        |name: header::HeaderName| get.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name.as_str()));
    if !given(header::HOST) {
        builder = builder.header(header::HOST, format!("{host}:{}", get.port));
    }
    if !given(header::USER_AGENT) {
        builder = builder.header(header::USER_AGENT, "kube-probe/1");
    }
    for (name, value) in &get.headers {
        builder = builder.header(name.as_str(), value.as_str());
    }
    builder.body(Full::default()).map_err(|error| error.to_string())
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|e| e.to_string())?;
    let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(request).await.map_err(|error| error.to_string());
    drop(driver);
    response
}

/// Ends the task that drives a connection together with the question.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The gRPC health checking protocol, of which one message each way is all there
/// is: a string in field 1, and an enumeration in field 1.
async fn grpc(address: IpAddr, port: u16, service: &str) -> Result<(), String> {
    let stream = TokioIo::new(connect("", address, port).await?);
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.map_err(words)?;
    let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let authority = std::net::SocketAddr::new(address, port);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(health_request(service)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(words)?;
    let status = response.headers().get("grpc-status").cloned();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|error| error.to_string())?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()).or(status);
    if status.as_ref().is_some_and(|status| status != "0") {
        return Err(format!("health check ended with gRPC status {status:?}"));
    }
    match serving_status(&body.to_bytes()) {
        Some(SERVING) => Ok(()),
        other => Err(format!("service unhealthy: status {}", other.unwrap_or(0))),
    }
}

/// A message behind its five bytes of gRPC framing.
fn health_request(service: &str) -> Bytes {
    let service = &service[..service.len().min(100)];
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.extend_from_slice(&[0x0a, service.len() as u8]);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = BytesMut::from(&[0_u8][..]);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.freeze()
}

fn serving_status(framed: &[u8]) -> Option<u64> {
    match framed.get(5..)? {
        [0x08, value, ..] if *value < 0x80 => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn get(port: u16) -> HttpGet {
        let headers = vec![("X-A".to_owned(), "b".to_owned())];
        HttpGet { tls: false, host: String::new(), port, path: "/healthz?x=y".into(), headers }
    }

    #[tokio::test]
    async fn the_status_decides() {
        let home = IpAddr::from([127, 0, 0, 1]);
        for (status, good) in [("200 OK", true), ("302 Found", true), ("404 Not Found", false), ("500 No", false)] {
            let listener = TcpListener::bind((home, 0)).await.expect("bind");
            let port = listener.local_addr().expect("address").port();
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let mut head = vec![0; 1024];
                let length = stream.read(&mut head).await.expect("read");
                stream
                    .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await
                    .expect("write");
                String::from_utf8_lossy(&head[..length]).to_lowercase()
            };
            let get = get(port);
            let (answer, head) = tokio::join!(http_get(&get, home), serve);
            assert_eq!(answer.is_ok(), good, "{status}: {answer:?}");
            assert!(head.starts_with("get /healthz?x=y http/1.1\r\n") && head.contains("x-a: b\r\n"), "{head}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_a_failure() {
        let home = IpAddr::from([127, 0, 0, 1]);
        let listener = TcpListener::bind((home, 0)).await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        assert!(connect("", home, port).await.is_ok());
        drop(listener);
        assert!(connect("", home, port).await.is_err() && http_get(&get(port), home).await.is_err());
        assert!(grpc(home, port, "").await.is_err());
    }

    #[test]
    fn health_messages_are_framed() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        for (bytes, want) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(serving_status(bytes), want, "{bytes:?}");
        }
    }
}
