//! How much of what a client may have.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use osc_api::status::Status;
use tokio::time::timeout;

/// Bounds on clients. The defaults suit one machine with a few thousand watches.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time until a request's headers are complete, idle time between requests included.
    pub idle: Duration,
    /// Size of a request's headers, in bytes.
    pub header_bytes: usize,
    /// Size of a request's body, in bytes.
    pub body_bytes: usize,
    /// Time until a request's body is complete.
    pub body: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Pause between HTTP/2 pings, and how long their answer may take.
    pub ping: Duration,
    /// Time running requests get when the server stops.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshake: Duration::from_secs(10),
            // Longer than the 90 s for which Go clients keep idle connections:
            // they close first and never race a request with our close.
            idle: Duration::from_secs(120),
            header_bytes: 64 << 10,
            body_bytes: 3 << 20,
            body: Duration::from_secs(60),
            streams: 1000,
            ping: Duration::from_secs(30),
            shutdown: Duration::from_secs(5),
        }
    }
}

/// The whole body.
///
/// # Errors
/// 413 when it is too large, 408-like 504 when it is too slow, 400 when it breaks off.
pub(super) async fn collect<B>(body: B, limits: Limits) -> Result<Bytes, Status>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || Status::too_large(format!("limit is {}", limits.body_bytes));
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return Err(too_large());
    }
    match timeout(limits.body, Limited::new(body, limits.body_bytes).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(failure)) if failure.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(failure)) => Err(Status::bad_request(format!("the request body breaks off: {failure}"))),
        Err(_) => Err(Status::timeout("the request body took too long to arrive")),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded_in_size() {
        let limits = Limits { body_bytes: 8, ..Limits::default() };
        assert_eq!(collect(Full::new(Bytes::from_static(b"12345678")), limits).await.unwrap(), "12345678");
        assert_eq!(collect(Full::new(Bytes::from_static(b"123456789")), limits).await.unwrap_err().code, 413);
        // Without a length in front it is counted as it comes.
        let pieces = futures::stream::iter(vec![
            Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(b"12345"))),
            Ok(http_body::Frame::data(Bytes::from_static(b"6789a"))),
        ]);
        assert_eq!(collect(StreamBody::new(pieces), limits).await.unwrap_err().code, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_time() {
        let never = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
        assert_eq!(collect(never, Limits::default()).await.unwrap_err().code, 504);
    }
}
