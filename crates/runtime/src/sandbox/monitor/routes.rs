//! What the management socket answers.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use osc_agent_protocol::{
    Kind, MAX_FRAME,
    agent::{GetIPTablesRequest, ResizeVolumeRequest, SetIPTablesRequest, SetPolicyRequest, VolumeStatsRequest},
    csi::VolumeStatsResponse,
    kind::chain,
};
use serde::{Deserialize, Serialize};

use super::{
    super::{Phase, Shared, agent::Agent, error::SandboxError},
    scrape,
};

type Answer = Response<Full<Bytes>>;

/// Every path there is.
const PATHS: [&str; 7] =
    ["/metrics", "/agent-url", "/iptables", "/ip6tables", "/direct-volume/stats", "/direct-volume/resize", "/policy"];

/// A request that cannot be answered with success.
enum Refused {
    Path,
    Method,
    Body(&'static str),
    Sandbox(SandboxError),
}

impl<E: Into<SandboxError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Sandbox(error.into())
    }
}

/// Answers one request.
pub(super) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    match route(shared, request).await {
        Ok(answer) => answer,
        Err(Refused::Path) => plain(StatusCode::NOT_FOUND, "no such page\n"),
        Err(Refused::Method) => plain(StatusCode::METHOD_NOT_ALLOWED, "no such method here\n"),
        Err(Refused::Body(text)) => plain(StatusCode::BAD_REQUEST, text),
        Err(Refused::Sandbox(error)) => plain(status(error.kind()), format!("{}\n", chain(&error))),
    }
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::Busy | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn route(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Refused> {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    match (path.as_str(), method) {
        ("/metrics", Method::GET) => Ok(plain(StatusCode::OK, scrape::scrape(shared).await)),
        ("/agent-url", Method::GET) => {
            let url = shared.agent_url.get().ok_or_else(|| SandboxError::Booting { id: shared.request.id.clone() })?;
            Ok(plain(StatusCode::OK, url.clone()))
        }
        ("/iptables", Method::GET) => get_rules(shared, false).await,
        ("/ip6tables", Method::GET) => get_rules(shared, true).await,
        ("/iptables", Method::PUT) => set_rules(shared, false, request).await,
        ("/ip6tables", Method::PUT) => set_rules(shared, true, request).await,
        ("/direct-volume/stats", Method::GET | Method::POST) => volume_stats(shared, &request).await,
        ("/direct-volume/resize", Method::POST) => resize_volume(shared, request).await,
        ("/policy", Method::PUT) => {
            let policy = String::from_utf8(body(request).await?).map_err(|_| Refused::Body("policies are text\n"))?;
            agent(shared)?.set_policy(SetPolicyRequest { policy, ..Default::default() }).await?;
            Ok(plain(StatusCode::OK, ""))
        }
        (path, _) if PATHS.contains(&path) => Err(Refused::Method),
        _ => Err(Refused::Path),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

async fn body(request: Request<Incoming>) -> Result<Vec<u8>, Refused> {
    // What does not fit a frame cannot be passed on anyway.
    let collected = Limited::new(request.into_body(), MAX_FRAME).collect().await;
    Ok(collected.map_err(|_| Refused::Body("the body is broken or too large\n"))?.to_bytes().into())
}

fn agent(shared: &Shared) -> Result<&Agent, SandboxError> {
    let id = || shared.request.id.clone();
    match &*shared.phase.borrow() {
        Phase::Running { .. } => shared.agent.get().ok_or_else(|| SandboxError::Booting { id: id() }),
        Phase::Booting => Err(SandboxError::Booting { id: id() }),
        Phase::Stopping(cause) | Phase::Stopped(cause) => Err(SandboxError::Gone { id: id(), cause: cause.clone() }),
    }
}

async fn get_rules(shared: &Shared, is_ipv6: bool) -> Result<Answer, Refused> {
    let request = GetIPTablesRequest { is_ipv6, ..Default::default() };
    let rules = agent(shared)?.get_ip_tables(request).await?;
    Ok(plain(StatusCode::OK, rules.data))
}

async fn set_rules(shared: &Shared, is_ipv6: bool, request: Request<Incoming>) -> Result<Answer, Refused> {
    let data = body(request).await?;
    let request = SetIPTablesRequest { is_ipv6, data, ..Default::default() };
    let said = agent(shared)?.set_ip_tables(request).await?;
    Ok(plain(StatusCode::OK, said.data))
}

/// Usage of the volume whose host path is the parameter `path`.
async fn volume_stats(shared: &Shared, request: &Request<Incoming>) -> Result<Answer, Refused> {
    let volume_guest_path = guest_path(shared, &parameter(request, "path")?)?;
    let stats = agent(shared)?.get_volume_stats(VolumeStatsRequest { volume_guest_path, ..Default::default() }).await?;
    let text = serde_json::to_vec(&Stats::from(&stats)).expect("numbers and texts can be written as JSON");
    let mut answer = plain(StatusCode::OK, text);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// What `/direct-volume/resize` is sent.
#[derive(Deserialize)]
struct Resize {
    #[serde(rename = "VolumePath")]
    path: String,
    #[serde(rename = "Size")]
    size: u64,
}

async fn resize_volume(shared: &Shared, request: Request<Incoming>) -> Result<Answer, Refused> {
    let wanted: Resize = serde_json::from_slice(&body(request).await?)
        .map_err(|_| Refused::Body("the body must be {\"VolumePath\": path, \"Size\": bytes}\n"))?;
    let volume_guest_path = guest_path(shared, &wanted.path)?;
    let request = ResizeVolumeRequest { volume_guest_path, size: wanted.size, ..Default::default() };
    agent(shared)?.resize_volume(request).await?;
    Ok(plain(StatusCode::OK, ""))
}

fn guest_path(shared: &Shared, host: &str) -> Result<String, SandboxError> {
    let containers = shared.containers.all();
    let found = containers.iter().find_map(|(_, container)| {
        container.volumes.get()?.iter().find(|(path, _)| path == Path::new(host)).map(|(_, guest)| guest.clone())
    });
    found.ok_or_else(|| SandboxError::NotFound { what: "volume", id: host.to_owned() })
}

/// A parameter of the query, percent-decoded.
fn parameter(request: &Request<Incoming>, name: &str) -> Result<String, Refused> {
    let query = request.uri().query().unwrap_or_default();
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let value = value.ok_or(Refused::Body("parameter path is missing\n"))?;
    decode(value).ok_or(Refused::Body("parameter path is not well encoded\n"))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.extend(hex::decode(digits).ok()?);
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// `VolumeStatsResponse` as JSON, with the names of its protobuf definition.
#[derive(Serialize)]
struct Stats<'a> {
    usage: Vec<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_condition: Option<Condition<'a>>,
}

#[derive(Serialize)]
struct Usage {
    available: u64,
    total: u64,
    used: u64,
    unit: i32,
}

#[derive(Serialize)]
struct Condition<'a> {
    abnormal: bool,
    message: &'a str,
}

impl<'a> From<&'a VolumeStatsResponse> for Stats<'a> {
    fn from(stats: &'a VolumeStatsResponse) -> Self {
        let usage = stats.usage.iter().map(|usage| Usage {
            available: usage.available,
            total: usage.total,
            used: usage.used,
            unit: usage.unit.value(),
        });
        let condition = stats.volume_condition.as_ref();
        let condition =
            condition.map(|condition| Condition { abnormal: condition.abnormal, message: &condition.message });
        Self { usage: usage.collect(), volume_condition: condition }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_or_refused() {
        for (text, want) in
            [("/a/b", Some("/a/b")), ("%2Fa%20b+c", Some("/a b c")), ("%2", None), ("%zz", None), ("%ff", None)]
        {
            assert_eq!(decode(text).as_deref(), want, "{text}");
        }
    }
}
