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

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

pub use in_process::InProcess;
pub use limits::Limits;
pub(crate) use limits::Received;

use crate::{
    api::{Api, Caller},
    response::{Body, BoxError},
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
    let mut handshakes = Handshakes::new(limits.handshakes);
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
        let (api, acceptor, stop, give_way) = (Arc::clone(&api), acceptor.clone(), stop.clone(), handshakes.begin());
        tasks.spawn(async move {
            if let Err(failure) = connection(api, stream, acceptor, give_way, limits, stop).await {
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

/// Handshakes under way, oldest first. Strangers who begin one and leave it at that take no place from others.
struct Handshakes {
    most: usize,
    /// Closed where the handshake is over; dropped, it ends the handshake.
    pending: VecDeque<oneshot::Sender<()>>,
}

impl Handshakes {
    fn new(most: usize) -> Self {
        Self { most: most.max(1), pending: VecDeque::new() }
    }

    /// One more; what is returned resolves when it has to give way.
    fn begin(&mut self) -> oneshot::Receiver<()> {
        if self.pending.len() >= self.most {
            self.pending.retain(|handshake| !handshake.is_closed());
        }
        if self.pending.len() >= self.most {
            self.pending.pop_front();
        }
        let (sender, receiver) = oneshot::channel();
        self.pending.push_back(sender);
        receiver
    }
}

async fn connection(
    api: Arc<Api>,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    give_way: oneshot::Receiver<()>,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let stream = tokio::select! {
        shaken = timeout(limits.handshake, acceptor.accept(stream)) => shaken??,
        _ = give_way => return Err("gave way to newer handshakes".into()),
    };
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

/// Hands the request on, with a body that is read within its limits once it is known who sends it.
pub(crate) async fn answer<B>(api: &Arc<Api>, request: Request<B>, caller: Caller, limits: Limits) -> Response<Body>
where
    B: http_body::Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    Api::serve(api, parts, limits::collect(body, limits, &api.load), caller).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_handshake_gives_way() {
        let mut handshakes = Handshakes::new(2);
        let (mut first, second, mut third) = (handshakes.begin(), handshakes.begin(), handshakes.begin());
        assert!(first.try_recv().is_err_and(|state| state == oneshot::error::TryRecvError::Closed));
        assert!(third.try_recv().is_err_and(|state| state == oneshot::error::TryRecvError::Empty));
        // Who is through has no place any more.
        drop(second);
        let _fourth = handshakes.begin();
        assert!(third.try_recv().is_err_and(|state| state == oneshot::error::TryRecvError::Empty));
    }
}
