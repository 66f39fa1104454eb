//! HTTPS to webhooks: one POST, over a connection that may be kept for the next.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use osc_access::ca::{BadBundle, trusting};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, task::AbortHandle, time::Instant};
use tokio_rustls::TlsConnector;

use super::target::Target;

/// Largest answer read: a patch may hold a whole object, in base64.
const LARGEST_ANSWER: usize = 8 << 20;
/// Most of an error page that is passed on.
const LONGEST_COMPLAINT: usize = 512;
/// Connections kept for later, over all webhooks.
const MOST_IDLE: usize = 32;
/// How long they are kept: less than servers usually do.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("context deadline exceeded")]
    Timeout,
    #[error("clientConfig.caBundle is not usable")]
    Bundle(#[from] BadBundle),
    #[error("{0:?} cannot be the name of a server")]
    ServerName(String),
    #[error("cannot connect to {host}:{port}")]
    Connect { host: String, port: u16, source: std::io::Error },
    #[error("TLS handshake failed")]
    Tls(#[source] std::io::Error),
    #[error("connection failed")]
    Http(#[from] hyper::Error),
    #[error("request cannot be made")]
    Request(#[from] http::Error),
    #[error("the server answered {code}: {complaint}")]
    Code { code: StatusCode, complaint: String },
    #[error("answer is incomplete or larger than {LARGEST_ANSWER} bytes")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Calls webhooks and keeps their connections.
#[derive(Default)]
pub(super) struct Client {
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    key: Key,
    connection: Connection,
    since: Instant,
}

/// Whom a connection is to, and by whose word: it is never used for another trust.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    server_name: String,
    port: u16,
    bundle: [u8; 32],
}

/// One connection; dropping it ends the task that drives it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// Posts JSON and returns the body of the answer, all before `deadline`.
    pub async fn post(&self, target: &Target, body: Vec<u8>, deadline: Instant) -> Result<Bytes, CallError> {
        tokio::time::timeout_at(deadline, self.exchange(target, body.into())).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn exchange(&self, target: &Target, body: Bytes) -> Result<Bytes, CallError> {
        let bundle = Sha256::digest(&target.bundle).into();
        let key = Key { server_name: target.server_name.clone(), port: target.port, bundle };
        let mut request = request(target, body)?;
        while let Some(mut connection) = self.take(&key) {
            match connection.sender.try_send_request(request).await {
                Ok(response) => return self.finish(key, connection, response).await,
                Err(mut failed) => match failed.take_message() {
                    // The server closed it just now: nothing was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let mut connection = connect(target).await?;
        let response = connection.sender.send_request(request).await?;
        self.finish(key, connection, response).await
    }

    async fn finish(
        &self,
        key: Key,
        connection: Connection,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Bytes, CallError> {
        let code = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(CallError::Body)?;
        let body = body.to_bytes();
        if code != StatusCode::OK {
            let complaint = String::from_utf8_lossy(&body).chars().take(LONGEST_COMPLAINT).collect();
            return Err(CallError::Code { code, complaint });
        }
        self.keep(key, connection);
        Ok(body)
    }

    fn take(&self, key: &Key) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|it| it.since.elapsed() < LONGEST_IDLE && !it.connection.sender.is_closed());
        let at = idle.iter().rposition(|it| it.key == *key)?;
        Some(idle.swap_remove(at).connection)
    }

    fn keep(&self, key: Key, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|it| it.since.elapsed() < LONGEST_IDLE && !it.connection.sender.is_closed());
        if idle.len() < MOST_IDLE && !connection.sender.is_closed() {
            idle.push(Idle { key, connection, since: Instant::now() });
        }
    }

    /// Connections kept at the moment.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn request(target: &Target, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
    let host =
        if target.server_name.contains(':') { format!("[{}]", target.server_name) } else { target.server_name.clone() };
    Request::post(target.path.as_str())
        .header(header::HOST, format!("{host}:{}", target.port))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(body))
}

async fn connect(target: &Target) -> Result<Connection, CallError> {
    let connector = TlsConnector::from(Arc::new(trusting(&target.bundle)?));
    let name = ServerName::try_from(target.server_name.clone())
        .map_err(|_| CallError::ServerName(target.server_name.clone()))?;
    let stream = dial(&target.addresses).await?;
    let stream = connector.connect(name, stream).await.map_err(CallError::Tls)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the connection, or with the last use of it; its errors reach the sender.
    let driver = tokio::spawn(connection).abort_handle();
    Ok(Connection { sender, driver })
}

/// Connects to the first address that takes it.
async fn dial(addresses: &[(String, u16)]) -> Result<TcpStream, CallError> {
    let mut failure = CallError::Timeout;
    for (host, port) in addresses {
        match TcpStream::connect((host.as_str(), *port)).await {
            Ok(stream) => return Ok(stream),
            Err(source) => failure = CallError::Connect { host: host.clone(), port: *port, source },
        }
    }
    Err(failure)
}
