//! How a program is asked how it is: `/metrics`, `/healthz`, `/readyz`.
//!
//! Whoever reaches the port may ask, so places, headers and time are bounded.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Connections served at once.
const MOST_CONNECTIONS: usize = 16;
/// A client has this long for its request …
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// … and this long in all, so that nobody keeps a place.
const LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// A program that tells how it is. Questions are answered from memory, at once.
pub trait Tells: Send + Sync + 'static {
    /// Text of `/metrics`.
    fn metrics(&self) -> String;

    /// Whether it does its work; if not, why. Answer of `/readyz`: one that merely waits for
    /// its turn to lead is ready.
    ///
    /// # Errors
    /// The reason.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// An address that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: free it, or choose another")]
pub struct ListenError {
    /// What for.
    pub what: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Cause.
    pub source: std::io::Error,
}

/// A listener.
///
/// # Errors
/// [`ListenError`].
pub async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { what, address, source })
}

/// Serves what a program tells until dropped; then connections that are open end soon by
/// themselves.
pub async fn serve(listener: TcpListener, about: Arc<dyn Tells>) {
    serve_with(listener, move |method, path| page(method, path, about.as_ref())).await;
}

/// Serves plain answers to a method and a path, as [`serve`] does.
pub async fn serve_with<A>(listener: TcpListener, answer: A)
where
    A: Fn(&Method, &str) -> (StatusCode, String) + Send + Sync + 'static,
{
    let (places, answer) = (Arc::new(Semaphore::new(MOST_CONNECTIONS)), Arc::new(answer));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (code, text) = answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response(code, text)) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
            server.max_buf_size(HEAD_BYTES).keep_alive(false);
            match timeout(LIMIT, server.serve_connection(TokioIo::new(stream), service)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = %error, "connection broke"),
                Err(_) => tracing::debug!("connection took too long"),
            }
            drop(place);
        });
    }
}

fn response(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

fn page(method: &Method, path: &str, about: &dyn Tells) -> (StatusCode, String) {
    if ![Method::GET, Method::HEAD].contains(method) {
        return (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD".into());
    }
    match path {
        "/metrics" => (StatusCode::OK, about.metrics()),
        // It answers, so it lives.
        "/healthz" => (StatusCode::OK, "ok".into()),
        "/readyz" => match about.ready() {
            Ok(()) => (StatusCode::OK, "ok".into()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        },
        _ => (StatusCode::NOT_FOUND, "not found: try /metrics, /healthz or /readyz".into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    struct Program {
        ready: Result<(), String>,
    }

    impl Tells for Program {
        fn metrics(&self) -> String {
            "a 1\n".into()
        }

        fn ready(&self) -> Result<(), String> {
            self.ready.clone()
        }
    }

    #[test]
    fn every_question_has_its_answer() {
        let (well, ill) = (Program { ready: Ok(()) }, Program { ready: Err("no API".into()) });
        for (method, path, about, code, text) in [
            (Method::GET, "/metrics", &well, 200, "a 1\n"),
            (Method::GET, "/healthz", &ill, 200, "ok"),
            (Method::GET, "/readyz", &well, 200, "ok"),
            (Method::HEAD, "/readyz", &ill, 503, "no API"),
            (Method::GET, "/", &well, 404, "not found"),
            (Method::POST, "/metrics", &well, 405, "only GET"),
        ] {
            let (found, said) = page(&method, path, about);
            assert!(found.as_u16() == code && said.starts_with(text), "{method} {path}: {found} {said}");
        }
    }

    #[tokio::test]
    async fn many_idle_clients_keep_nobody_out_for_ever() {
        let listener = listen("a test", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Arc::new(Program { ready: Ok(()) })));
        let mut idle = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        idle.pop(); // one place is free
        let mut text = String::new();
        timeout(Duration::from_secs(20), client.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("a 1\n"), "{text}");
        serving.abort();
    }
}
