//! Two upgraded connections joined: the client's and the runtime's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use osc_api::status::Status;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    log::{PATIENCE, busy},
    options,
};
use crate::{
    admission::{Attributes, Operation},
    call::Call,
    objects,
    response::{self, Body},
};

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Headers of the handshake that go to the runtime.
const ASKED: [HeaderName; 5] =
    [UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_EXTENSIONS, STREAM_PROTOCOL];
/// Headers of the handshake that come back.
const ANSWERED: [HeaderName; 6] =
    [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS, STREAM_PROTOCOL];
/// WebSocket subprotocols the runtime speaks.
const SUBPROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
/// Longest refusal read from the runtime, in bytes.
const LONGEST_REFUSAL: usize = 4096;
/// Bytes under way in each direction.
const BUFFER: usize = 32 << 10;

/// `exec`, `attach` and `portforward`.
pub(crate) async fn upgrade(call: &Call, method: &Method, client: Option<OnUpgrade>) -> Result<Response<Body>, Status> {
    let pod = objects::expect(&call.api.store, &call.served, &call.path.namespace, &call.path.name)?;
    let handshake = handshake(&call.headers)?;
    let client = client.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let agent = call.api.nodes.of(&pod)?;
    let permit = Arc::clone(&call.api.nodes.streams).try_acquire_owned().map_err(|_| busy())?;
    let (query, mut ports) = (&call.query, Vec::new());
    admit(call, &pod).await?;
    let address = async {
        let address = match call.path.subresource.as_str() {
            "exec" => agent.exec(&pod, options::exec(&pod, query, false)?).await,
            "attach" => agent.attach(&pod, options::exec(&pod, query, true)?).await,
            _ => {
                ports = options::ports(query)?;
                agent.port_forward(&pod, ports.clone()).await
            }
        };
        address.map_err(super::NodeError::status)
    };
    let address = timeout(PATIENCE, address).await.map_err(|_| Status::timeout("the node does not answer"))??;
    let runtime = timeout(PATIENCE, dial(&address, &ports, method, handshake)).await;
    let mut runtime = runtime.map_err(|_| Status::timeout("the streaming server of the node does not answer"))??;
    if runtime.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(runtime).await);
    }
    let mut answer = response::bytes(StatusCode::SWITCHING_PROTOCOLS, "", Bytes::new());
    answer.headers_mut().clear();
    copy(runtime.headers(), answer.headers_mut(), &ANSWERED);
    let (theirs, stop) = (hyper::upgrade::on(&mut runtime), call.api.stop.clone());
    call.api.tasks.spawn(async move {
        if let Err(error) = join(client, theirs, stop).await {
            debug!(%error, "stream ended early");
        }
        drop(permit);
    });
    Ok(answer)
}

/// Asks admission, which knows streams as connections to the pod.
async fn admit(call: &Call, pod: &Value) -> Result<(), Status> {
    let kind = match call.path.subresource.as_str() {
        "exec" => "PodExecOptions",
        "attach" => "PodAttachOptions",
        _ => "PodPortForwardOptions",
    };
    let options = Value::Null;
    let attributes = Attributes {
        operation: Operation::Connect,
        resource: &call.served.resource,
        subresource: &call.path.subresource,
        namespace: &call.path.namespace,
        name: &call.path.name,
        identity: &call.identity,
        dry_run: false,
        options: &options,
    };
    let mut object = json!({"kind": kind, "apiVersion": "v1"});
    call.warn(call.api.admission.mutate(&attributes, &mut object, Some(pod)).await?);
    call.warn(call.api.admission.validate(&attributes, Some(&object), Some(pod)).await?);
    Ok(())
}

/// The headers of a handshake the runtime can take.
fn handshake(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let protocol = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let mut asked = HeaderMap::new();
    copy(headers, &mut asked, &ASKED);
    asked.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match protocol.as_str() {
        "spdy/3.1" => Ok(asked),
        "websocket" => {
            let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
            let offered = offered.flat_map(|value| value.split(',')).map(str::trim);
            let spoken: Vec<&str> = offered.filter(|offer| SUBPROTOCOLS.contains(offer)).collect();
            if spoken.is_empty() {
                return Err(Status::bad_request(
                    "none of the offered WebSocket subprotocols is spoken here: use SPDY/3.1",
                ));
            }
            let spoken = HeaderValue::from_str(&spoken.join(", ")).map_err(Status::internal)?;
            asked.insert(SEC_WEBSOCKET_PROTOCOL, spoken);
            Ok(asked)
        }
        _ => Err(Status::bad_request("Upgrade request required")),
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Begins the same handshake with the streaming server.
async fn dial(address: &str, ports: &[u16], method: &Method, headers: HeaderMap) -> Result<Response<Incoming>, Status> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Status::internal(format!("error dialing the streaming server of the node: {error}"))
    };
    let uri: Uri = address.parse().map_err(|error| unreachable(&error))?;
    let (Some(host), Some("http")) = (uri.host(), uri.scheme_str()) else {
        return Err(unreachable(&"its address is not an http URL"));
    };
    let mut path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    for port in ports {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&format!("port={port}"));
    }
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))).await;
    let stream = stream.map_err(|error| unreachable(&error))?;
    // Keystrokes are small and wait for nobody.
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    tokio::spawn(connection.with_upgrades());
    let mut request =
        Request::builder().method(method).uri(path).body(Empty::<Bytes>::new()).map_err(Status::internal)?;
    *request.headers_mut() = headers;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority).map_err(Status::internal)?);
    sender.send_request(request).await.map_err(|error| unreachable(&error))
}

/// What the runtime answered instead of an upgrade.
async fn refusal(response: Response<Incoming>) -> Status {
    let code = response.status();
    let body = timeout(Duration::from_secs(5), Limited::new(response.into_body(), LONGEST_REFUSAL).collect()).await;
    let text = match body {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        _ => String::new(),
    };
    match code.as_u16() {
        400 => Status::bad_request(format!("the container runtime refuses the stream: {text}")),
        404 => Status::new(404, "NotFound", format!("the container runtime does not know the stream: {text}")),
        code => Status::internal(format!("the container runtime answers {code}: {text}")),
    }
}

/// Copies bytes both ways until one side ends or the server stops.
async fn join(
    client: OnUpgrade,
    runtime: OnUpgrade,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let upgraded = timeout(PATIENCE, async { tokio::try_join!(client, runtime) }).await??;
    let (mut client, mut runtime) = (TokioIo::new(upgraded.0), TokioIo::new(upgraded.1));
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        done = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut runtime, BUFFER, BUFFER) => Ok(done.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_runtime_speaks_is_asked_of_it() {
        let rows = [
            ("SPDY/3.1", "", Some("")),
            ("websocket", "v5.channel.k8s.io, v4.channel.k8s.io", Some("v4.channel.k8s.io")),
            ("websocket", "v5.channel.k8s.io", None),
            ("websocket", "SPDY/3.1+portforward.k8s.io", None),
            ("h2c", "", None),
            ("", "", None),
        ];
        for (protocol, offered, want) in rows {
            let mut headers = HeaderMap::new();
            if !protocol.is_empty() {
                headers.insert(UPGRADE, protocol.parse().unwrap());
            }
            if !offered.is_empty() {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
            }
            headers.append(STREAM_PROTOCOL, HeaderValue::from_static("v5.channel.k8s.io"));
            headers.append(STREAM_PROTOCOL, HeaderValue::from_static("v4.channel.k8s.io"));
            let got = handshake(&headers);
            let chosen = got
                .as_ref()
                .ok()
                .map(|asked| asked.get(SEC_WEBSOCKET_PROTOCOL).map_or("", |value| value.to_str().unwrap()));
            assert_eq!(chosen, want, "{protocol} {offered}");
            if let Ok(asked) = got {
                assert_eq!(asked.get_all(STREAM_PROTOCOL).iter().count(), 2, "all versions are passed on");
            } else {
                assert_eq!(got.unwrap_err().code, 400);
            }
        }
    }
}
