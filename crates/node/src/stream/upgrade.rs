//! The HTTP request that turns a connection into SPDY (RFC 9110, section 7.8).

use std::io;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{StreamError, Upgraded};

/// Largest response head that is read.
const MAX_HEAD: u64 = 16 << 10;
/// Version of the protocol spoken on the streams.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// Dials `url` and upgrades; returns the address for messages.
pub(super) async fn open(url: &str) -> Result<(String, Upgraded), StreamError> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let failed = |reason: String| StreamError::Connect { address: address.to_owned(), reason };
    let mut stream = BufReader::new(TcpStream::connect(address).await.map_err(|error| failed(error.to_string()))?);
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {PROTOCOL}\r\nContent-Length: 0\r\n\r\n"
    );
    let status = exchange(&mut stream, &request).await.map_err(|error| failed(error.to_string()))?;
    if !status.starts_with("HTTP/1.1 101") {
        return Err(failed(status));
    }
    // Frames must not wait for each other.
    let _ = stream.get_ref().set_nodelay(true);
    Ok((address.to_owned(), stream))
}

/// Sends the request and reads the response's head; returns its first line.
async fn exchange(stream: &mut Upgraded, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut head = stream.take(MAX_HEAD);
    let mut first = String::new();
    loop {
        let mut line = String::new();
        if head.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok(first);
        }
        if first.is_empty() {
            line.trim_end().clone_into(&mut first);
        }
    }
}
