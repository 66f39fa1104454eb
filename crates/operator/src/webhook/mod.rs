//! The admission webhook: at most one KataConfig is created.
//!
//! ```text
//!  Secret ◄── certificate ──► ValidatingWebhookConfiguration (caBundle)
//!                 │
//!  API server ──TLS──► review ──► allowed / denied
//! ```
//!
//! Two creations at the same moment both pass here; the operator settles that by
//! acting on one of them only and saying so in the status of the other.

mod certificate;
pub(crate) mod configuration;
pub(crate) mod keeper;
mod review;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::{Api, Client, api::ListParams};
use osc_objects::KataConfig;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use self::keeper::Keeper;
use crate::{
    error::{Attempt, Error},
    options::{Options, ReachedBy},
};
use osc_fault::chain;

/// Connections served at once.
const MOST_CONNECTIONS: usize = 64;
/// Largest request.
const LARGEST: usize = 4 << 20;
/// Limit of one connection, and of the question to the API within it.
const CONNECTION_LIMIT: Duration = Duration::from_secs(120);
const LIST_LIMIT: Duration = Duration::from_secs(8);

/// Serves reviews and keeps the certificate good, until dropped.
pub(crate) async fn run(client: Client, options: Arc<Options>, reached_by: ReachedBy, listener: TcpListener) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let keeper = Keeper::new(client.clone(), options.namespace.clone(), reached_by, port);
    let acceptor = match keeper.tls() {
        Ok(config) => TlsAcceptor::from(Arc::new(config)),
        Err(error) => {
            tracing::error!(error = chain(&error), "webhook cannot be served");
            return;
        }
    };
    tokio::join!(keeper.keep(), serve(client, listener, acceptor));
}

async fn serve(client: Client, listener: TcpListener, acceptor: TlsAcceptor) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (client, acceptor) = (client.clone(), acceptor.clone());
        tokio::spawn(async move {
            let served = tokio::time::timeout(CONNECTION_LIMIT, serve_one(client, stream, acceptor)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(error = %error, "connection to the webhook broke");
            }
            drop(place);
        });
    }
}

async fn serve_one(
    client: Client,
    stream: TcpStream,
    acceptor: TlsAcceptor,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = acceptor.accept(stream).await?;
    let service = service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(answer(client, request).await) }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.serve_connection(TokioIo::new(stream), service).await
}

async fn answer(client: Client, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != configuration::PATH {
        return plain(StatusCode::NOT_FOUND, "not found");
    }
    let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "too large, or broken off");
    };
    let Ok(asked) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return plain(StatusCode::BAD_REQUEST, "not an AdmissionReview");
    };
    let existing = existing(client).await.map_err(|error| chain(&error));
    let text = review::answer(&asked, existing).to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

async fn existing(client: Client) -> Result<usize, Error> {
    let api: Api<KataConfig> = Api::all(client);
    let first = ListParams::default().limit(1);
    let listed = tokio::time::timeout(LIST_LIMIT, api.list_metadata(&first)).await;
    let listed = listed.map_err(|_| Error::Timeout { limit: LIST_LIMIT })?;
    Ok(listed.reading("KataConfigs")?.items.len())
}

fn plain(code: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = code;
    response
}
