//! The network side: TLS, HTTP/1.1 and HTTP/2, limits, and an orderly end.
//!
//! ```text
//!  TcpListener ─► permit ─► TLS handshake ─► hyper (1.1 or 2) ─► Api::serve
//!                  │ cap      │ deadline       │ header, body, idle limits
//! ```
//!
//! Everybody who reaches the port is a stranger until `access` says otherwise:
//! connections, handshakes, headers and bodies are bounded in number, time and size.

mod in_process;
mod limits;

use std::{io, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

pub use in_process::InProcess;
pub use limits::Limits;

use crate::{
    api::{Api, Caller},
    response::{Body, error},
};

/// Serves `listener` until `stop` fires, then lets running requests end.
pub(crate) async fn run(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    limits: Limits,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let acceptor = TlsAcceptor::from(tls);
    let tasks = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        // A semaphore nobody closes always grants.
        let Ok(permit) = permit else { break };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(failure) => {
                    pause_after(&failure).await;
                    continue;
                }
            },
        };
        let (api, acceptor, stop) = (Arc::clone(&api), acceptor.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(failure) = connection(api, stream, acceptor, limits, stop).await {
                debug!(error = %failure, "connection ended early");
            }
            drop(permit);
        });
    }
    tasks.close();
    if timeout(limits.shutdown, tasks.wait()).await.is_err() {
        warn!(left = tasks.len(), "connections still open at the end");
    }
}

/// Out of descriptors is the usual reason: others must close some first.
async fn pause_after(failure: &io::Error) {
    warn!(error = %failure, "no connection accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection(
    api: Arc<Api>,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = timeout(limits.handshake, acceptor.accept(stream)).await??;
    let certificates: Arc<[CertificateDer<'static>]> = stream
        .get_ref()
        .1
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .cloned()
        .map(CertificateDer::into_owned)
        .collect();
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, certificates) = (Arc::clone(&api), Arc::clone(&certificates));
        async move { Ok::<_, std::convert::Infallible>(answer(&api, request, Caller::Peer(certificates), limits).await) }
    });
    let builder = http(limits);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    serving.await
}

fn http(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(limits.header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes as u32);
    builder
}

/// Reads the body within its limits and hands the request on.
pub(crate) async fn answer<B>(api: &Arc<Api>, request: Request<B>, caller: Caller, limits: Limits) -> Response<Body>
where
    B: http_body::Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    match limits::collect(body, limits).await {
        Ok(body) => Api::serve(api, parts, body, caller).await,
        Err(status) => error(&status),
    }
}
