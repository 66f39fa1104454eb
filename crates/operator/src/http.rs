//! A small HTTP server for what clusters ask of a process: plain answers by path.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections served at once.
const MOST_CONNECTIONS: usize = 16;
/// A client has this long for its request.
const HEADER_LIMIT: Duration = Duration::from_secs(10);

/// Serves until dropped; `answer` gives the text of a path.
pub(crate) async fn serve<A>(listener: TcpListener, answer: A)
where
    A: Fn(&str) -> (StatusCode, String) + Send + Sync + 'static,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let answer = Arc::new(answer);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (code, text) = answer(request.uri().path());
                async move { Ok::<_, Infallible>(response(code, text)) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).keep_alive(false);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error = %error, "connection broke");
            }
            drop(place);
        });
    }
}

fn response(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let format = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, format);
    response
}
