//! A gate between one program and the API, which lets a number of writes pass and no more:
//! so a program can be killed between any two.
//!
//! ```text
//!  program ──HTTP──► gate ──HTTPS, token of the program's account──► API
//! ```
//!
//! Writes of leases and events pass always, and those the API refuses are not counted (what
//! was there already, for one): they are no steps of anything.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use tokio::{net::TcpListener, runtime::Runtime, time::sleep};

/// A gate; closed when dropped.
pub struct Gate {
    /// Where the program finds the API.
    pub address: SocketAddr,
    passes: Arc<Passes>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Passes {
    left: AtomicUsize,
    refused: AtomicBool,
}

impl Passes {
    /// Whether this write may pass; each does so once.
    fn take(&self) -> bool {
        let took = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        self.refused.fetch_or(!took, Ordering::SeqCst);
        took
    }

    fn give_back(&self) {
        // Without end stays without end.
        let more = |left: usize| Some(left.saturating_add(1));
        let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
    }
}

impl Gate {
    /// A gate to the API that `config` leads to; nothing passes yet but reads.
    pub fn to(config: kube::Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let passes = Arc::new(Passes::default());
        let (own, listener) = (Arc::clone(&passes), runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap());
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { serve(listener, Client::try_from(config).unwrap(), own).await });
        Self { address, passes, _runtime: runtime }
    }

    /// From now on lets this many writes pass.
    pub fn let_pass(&self, writes: usize) {
        self.passes.left.store(writes, Ordering::SeqCst);
        self.passes.refused.store(false, Ordering::SeqCst);
    }

    /// Whether a write waits before the gate.
    pub fn is_knocked_at(&self) -> bool {
        self.passes.refused.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, api: Client, passes: Arc<Passes>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (api, passes) = (api.clone(), Arc::clone(&passes));
        tokio::spawn(async move {
            let service = service_fn(move |request| pass(request, api.clone(), Arc::clone(&passes)));
            // A program that was killed ends its connection anyhow.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn pass(request: Request<Incoming>, api: Client, passes: Arc<Passes>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let is_step = request.method() != Method::GET && !["/leases", "/events"].iter().any(|kind| path.contains(kind));
    if is_step && !passes.take() {
        std::future::pending::<()>().await;
    }
    let response = forward(request, api).await;
    if is_step && !response.status().is_success() {
        passes.give_back();
    }
    Ok(response)
}

async fn forward(request: Request<Incoming>, api: Client) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    head.headers.remove(header::HOST);
    // What a program cannot finish saying it has not said.
    let Ok(body) = body.collect().await else { return Response::new(Body::empty()) };
    let request = Request::from_parts(head, Body::from(body.to_bytes()));
    api.send(request).await.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(error.to_string().into_bytes()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}
