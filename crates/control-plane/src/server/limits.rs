//! How much of what a client may have.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use osc_api::status::Status;
use tokio::{sync::SemaphorePermit, time::timeout};

use crate::{load::Load, response::BoxError};

/// Bounds on clients. The defaults suit one machine with a few thousand watches.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// TLS handshakes at once; the oldest gives way to a further one.
    pub handshakes: usize,
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
    /// Bytes of all bodies under way at once.
    pub all_bodies_bytes: usize,
    /// Requests being served at once, those of other parts of this process and those without end aside.
    pub requests: usize,
    /// Watches at once.
    pub watches: usize,
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
            // Each takes milliseconds: only those who do not mean it ever give way.
            handshakes: 512,
            handshake: Duration::from_secs(10),
            // Longer than the 90 s for which Go clients keep idle connections:
            // they close first and never race a request with our close.
            idle: Duration::from_secs(120),
            header_bytes: 64 << 10,
            body_bytes: 3 << 20,
            body: Duration::from_secs(60),
            all_bodies_bytes: 128 << 20,
            requests: 600,
            watches: 10_000,
            streams: 1000,
            ping: Duration::from_secs(30),
            shutdown: Duration::from_secs(5),
        }
    }
}

/// A body, and the room it takes.
pub(crate) struct Received<'a> {
    pub bytes: Bytes,
    _room: SemaphorePermit<'a>,
}

/// The whole body.
///
/// # Errors
/// 413 when it is too large, 408-like 504 when it is too slow, 400 when it breaks off, 429 when there is no room.
pub(super) async fn collect<B>(body: B, limits: Limits, load: &Load) -> Result<Received<'_>, Status>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return Err(too_large(limits));
    }
    let read = pieces(Limited::new(body, limits.body_bytes), limits, load);
    timeout(limits.body, read).await.map_err(|_| Status::timeout("the request body took too long to arrive"))?
}

/// Takes room for what comes as it comes: who announces much and sends little holds little.
async fn pieces<B>(body: Limited<B>, limits: Limits, load: &Load) -> Result<Received<'_>, Status>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut room) = (BytesMut::new(), load.body(0)?);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|failure| match failure.is::<LengthLimitError>() {
            true => too_large(limits),
            false => Status::bad_request(format!("the request body breaks off: {failure}")),
        })?;
        if let Ok(data) = frame.into_data() {
            room.merge(load.body(data.remaining())?);
            bytes.put(data);
        }
    }
    Ok(Received { bytes: bytes.freeze(), _room: room })
}

fn too_large(limits: Limits) -> Status {
    Status::too_large(format!("limit is {}", limits.body_bytes))
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded_in_size() {
        let limits = Limits { body_bytes: 8, ..Limits::default() };
        let load = Load::new(limits);
        let read = async |bytes: &'static [u8]| {
            collect(Full::new(Bytes::from_static(bytes)), limits, &load).await.map(|it| it.bytes).map_err(|it| it.code)
        };
        assert_eq!(read(b"12345678").await.unwrap(), "12345678");
        assert_eq!(read(b"123456789").await, Err(413));
        // Without a length in front it is counted as it comes.
        let pieces = futures::stream::iter(vec![
            Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(b"12345"))),
            Ok(http_body::Frame::data(Bytes::from_static(b"6789a"))),
        ]);
        let refused = collect(StreamBody::new(pieces), limits, &load).await.err().expect("too long");
        assert_eq!(refused.code, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_time() {
        let never = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
        let (limits, load) = (Limits::default(), Load::new(Limits::default()));
        assert_eq!(collect(never, limits, &load).await.err().expect("too slow").code, 504);
    }
}
