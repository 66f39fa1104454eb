//! The management socket of a sandbox, `shim-monitor.sock`: HTTP/1.1 over a Unix
//! socket, for `kata-monitor` and administrators. Only root can reach it.
//!
//! | path | methods | answer |
//! |---|---|---|
//! | `/metrics` | GET | Prometheus text |
//! | `/agent-url` | GET | where the agent is reached |
//! | `/iptables`, `/ip6tables` | GET, PUT | rules of the guest |
//! | `/direct-volume/stats?path=` | GET, POST | usage of a volume, JSON |
//! | `/direct-volume/resize` | POST | changes the size of a volume |
//! | `/policy` | PUT | replaces the request policy |

mod overhead;
mod routes;
mod scrape;

use std::{io, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use osc_agent_protocol::kind::chain;
use tokio::{net::UnixListener, sync::Semaphore, task::JoinHandle};

pub(super) use overhead::Overhead;

use super::{Shared, boot};
use crate::socket;

/// Name of the socket in the sandbox directory.
const SOCKET: &str = "shim-monitor.sock";
/// Connections served at a time.
const CONNECTIONS: usize = 8;
/// How long a client may take to send the head of its request.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Buffer of a connection; requests and their heads are small.
const BUFFER: usize = 16 << 10;

/// A server that stops when dropped.
pub(super) struct Monitor(JoinHandle<()>);

impl Drop for Monitor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves the management socket of `shared`. A sandbox works without it: what goes
/// wrong is logged.
pub(super) fn serve(shared: &Arc<Shared>) -> Option<Monitor> {
    // Here and not in the task: nothing may be made once the clean-up has begun.
    match listen(shared) {
        Ok(listener) => Some(Monitor(tokio::spawn(accept(listener, shared.clone())))),
        Err(error) => {
            tracing::warn!(error = chain(&error), "no management socket");
            None
        }
    }
}

fn listen(shared: &Shared) -> io::Result<UnixListener> {
    let request = &shared.request;
    boot::make_dir(request).map_err(io::Error::other)?;
    let listener = socket::listen(&request.dirs.sandbox(&request.id).join(SOCKET))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = chain(&error), "management socket closed");
                return;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = shared.clone();
                async move { Ok::<_, std::convert::Infallible>(routes::answer(&shared, request).await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(BUFFER).keep_alive(false);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error = chain(&error), "management connection broke");
            }
            drop(seat);
        });
    }
}
