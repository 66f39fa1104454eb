//! Streams of a process in a container: Kubernetes' remote command protocol,
//! version 4, over SPDY/3.1. SPDY rather than WebSocket because there the end of
//! standard input can be told.
//!
//! ```text
//! POST /exec/TOKEN, Upgrade: SPDY/3.1        101
//! SYN_STREAM error, stdin?, stdout?, stderr?, resize?
//! DATA … both ways …                         DATA error {"status": …} FIN
//! ```

pub mod spdy;
mod upgrade;

use std::{io, time::Duration};

use osc_agent_protocol::Kind;
use osc_runtime::deadline::Deadline;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
};

use spdy::{Encoder, Frame};

/// The engine listens on the loopback interface.
const CONNECT: Duration = Duration::from_secs(20);
/// Between the status of the process and the end of its output streams.
const DRAIN: Duration = Duration::from_secs(5);
/// Largest status message that is kept.
const MAX_STATUS: usize = 64 << 10;
/// Largest piece copied at once.
const CHUNK: usize = 32 << 10;

/// A session that broke.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The address cannot be reached or does not upgrade.
    #[error("streaming server {address} does not answer: {reason}; run the command again")]
    Connect {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The connection broke.
    #[error("stream to the container broke: see whether the pod still runs")]
    Broken(#[from] io::Error),
    /// The engine could not run the process.
    #[error("{0}")]
    Failed(String),
    /// The connection ended without a status.
    #[error("stream to the container ended without a status: see whether the pod still runs")]
    Unfinished,
}

impl StreamError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. } | Self::Unfinished => Kind::Unavailable,
            Self::Broken(source) => Kind::of_io(source),
            Self::Failed(_) => Kind::Invalid,
        }
    }
}

/// Size of a terminal, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The local ends of a session. What is `None` must not have been asked for in
/// the request that gave the address either.
pub struct Ends<O, E> {
    /// Pieces of standard input; a closed channel is its end.
    pub stdin: Option<mpsc::Receiver<Vec<u8>>>,
    /// Standard output.
    pub stdout: Option<O>,
    /// Standard error; never with a terminal.
    pub stderr: Option<E>,
    /// Sizes of the terminal; its presence says that there is one.
    pub resize: Option<mpsc::Receiver<Size>>,
}

/// Ids of the streams of one session.
#[derive(Clone, Copy, Default)]
struct Ids {
    error: u32,
    stdin: u32,
    stdout: u32,
    stderr: u32,
    resize: u32,
}

/// Runs a session to its end and returns the exit code of the process (0 for a
/// session that attached to one). Dropping the future ends the session, not the
/// process.
///
/// # Errors
/// See [`StreamError`].
pub async fn run<O, E>(url: &str, ends: Ends<O, E>) -> Result<i32, StreamError>
where
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let (address, stream) = match tokio::time::timeout(CONNECT, upgrade::open(url)).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(StreamError::Connect { address: url.to_owned(), reason: format!("silent for {CONNECT:?}") });
        }
    };
    tracing::debug!(address, "stream opened");
    let (reader, mut writer) = tokio::io::split(stream);
    let ids = open_streams(&mut writer, &ends).await?;
    let (pongs, pings) = mpsc::channel(8);
    let Ends { stdin, stdout, stderr, resize } = ends;
    let receive = receive(reader, ids, stdout, stderr, pongs);
    let send = send(writer, ids, stdin, resize, pings);
    tokio::select! {
        end = receive => end,
        Err(error) = send => Err(error.into()),
    }
}

async fn open_streams<O, E>(writer: &mut WriteHalf<Upgraded>, ends: &Ends<O, E>) -> io::Result<Ids> {
    let mut ids = Ids::default();
    let mut encoder = Encoder::default();
    let mut next = 1;
    let wanted: [(&str, bool, &mut u32); 5] = [
        ("error", true, &mut ids.error),
        ("stdin", ends.stdin.is_some(), &mut ids.stdin),
        ("stdout", ends.stdout.is_some(), &mut ids.stdout),
        ("stderr", ends.stderr.is_some(), &mut ids.stderr),
        ("resize", ends.resize.is_some(), &mut ids.resize),
    ];
    let mut frames = Vec::new();
    for (name, _, id) in wanted.into_iter().filter(|(_, wanted, _)| *wanted) {
        frames.extend(encoder.open(next, "streamtype", name));
        *id = next;
        next += 2;
    }
    writer.write_all(&frames).await?;
    Ok(ids)
}

/// Writes until the connection breaks; the receiving side decides about the end.
async fn send(
    mut writer: WriteHalf<Upgraded>,
    ids: Ids,
    mut stdin: Option<mpsc::Receiver<Vec<u8>>>,
    mut resize: Option<mpsc::Receiver<Size>>,
    mut pings: mpsc::Receiver<u32>,
) -> io::Result<()> {
    loop {
        // Every branch is a channel: cancel-safe.
        tokio::select! {
            piece = next(&mut stdin) => {
                let last = piece.is_none();
                writer.write_all(&spdy::data(ids.stdin, &piece.unwrap_or_default(), last)).await?;
                if last {
                    stdin = None;
                }
            }
            size = next(&mut resize) => match size {
                Some(size) => writer.write_all(&spdy::data(ids.resize, &serde_json::to_vec(&size)?, false)).await?,
                None => resize = None,
            },
            Some(id) = pings.recv() => writer.write_all(&spdy::pong(id)).await?,
        }
    }
}

/// The next message; waits for ever where there is no channel.
async fn next<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

async fn receive(
    mut reader: ReadHalf<Upgraded>,
    ids: Ids,
    mut stdout: Option<impl AsyncWrite + Unpin>,
    mut stderr: Option<impl AsyncWrite + Unpin>,
    pongs: mpsc::Sender<u32>,
) -> Result<i32, StreamError> {
    let mut status = Vec::new();
    let mut drain: Option<Deadline> = None;
    let mut open: Vec<u32> = [ids.stdout, ids.stderr].into_iter().filter(|&id| id != 0).collect();
    while drain.is_none() || !open.is_empty() {
        let frame = match drain {
            None => spdy::read(&mut reader).await,
            Some(deadline) => deadline.run(spdy::read(&mut reader)).await.unwrap_or(Ok(None)),
        };
        let ended = match frame {
            Ok(Some(Frame::Data { stream, length, last })) => {
                if stream == ids.stdout {
                    copy(&mut reader, length, stdout.as_mut()).await?;
                } else if stream == ids.stderr {
                    copy(&mut reader, length, stderr.as_mut()).await?;
                } else {
                    let keep =
                        (stream == ids.error && status.len() + length as usize <= MAX_STATUS).then_some(&mut status);
                    copy(&mut reader, length, keep).await?;
                }
                last.then_some(stream)
            }
            Ok(Some(Frame::Reset { stream })) => Some(stream),
            Ok(Some(Frame::Ping(id))) => {
                let _ = pongs.try_send(id); // a flood of pings is not answered in full
                None
            }
            Ok(Some(Frame::GoAway | Frame::Other)) => None,
            Ok(None) => break,
            // Once the status is known, a reset connection is as good as a closed one.
            Err(_) if !status.is_empty() => break,
            Err(error) => return Err(error.into()),
        };
        open.retain(|&id| Some(id) != ended);
        if !status.is_empty() && drain.is_none() {
            drain = Some(Deadline::after(DRAIN));
        }
    }
    decode(&status)
}

/// Copies the payload of one data frame; dropped where nobody wants it.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    length: u32,
    mut to: Option<&mut (impl AsyncWrite + Unpin)>,
) -> Result<(), StreamError> {
    let mut left = length as usize;
    let mut buffer = vec![0; left.min(CHUNK)];
    while left > 0 {
        let piece = &mut buffer[..left.min(CHUNK)];
        from.read_exact(piece).await?;
        left -= piece.len();
        if let Some(to) = to.as_mut() {
            to.write_all(piece).await?;
            to.flush().await?;
        }
    }
    Ok(())
}

/// The part of `metav1.Status` that tells how a process ended.
#[derive(Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

fn decode(text: &[u8]) -> Result<i32, StreamError> {
    let Ok(status) = serde_json::from_slice::<Status>(text) else { return Err(StreamError::Unfinished) };
    if status.status == "Success" {
        return Ok(0);
    }
    let code = status.details.causes.iter().find(|cause| cause.reason == "ExitCode");
    code.and_then(|cause| cause.message.parse().ok()).ok_or(StreamError::Failed(status.message))
}

/// A connected stream with a read buffer.
type Upgraded = BufReader<TcpStream>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_the_exit_code() {
        let exit = r#"{"status":"Failure","message":"command terminated with non-zero exit code",
            "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(decode(exit.as_bytes()).ok(), Some(7));
        assert_eq!(decode(br#"{"metadata":{},"status":"Success"}"#).ok(), Some(0));
        let failed = decode(br#"{"status":"Failure","message":"no such file"}"#);
        assert!(matches!(failed, Err(StreamError::Failed(text)) if text == "no such file"));
        assert!(matches!(decode(b""), Err(StreamError::Unfinished)));
    }

    #[test]
    fn a_size_is_written_as_the_protocol_has_it() {
        let text = serde_json::to_string(&Size { width: 80, height: 24 }).expect("json");
        assert_eq!(text, r#"{"Width":80,"Height":24}"#);
    }
}
