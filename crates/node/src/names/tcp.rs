//! Questions in streams (RFC 7766): each message after its length in two bytes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Over, Reply, answer},
    upstream,
    zone::Zone,
};

/// Streams at a time; the next waits in the queue of the kernel.
const MOST: usize = 64;
/// How long a stream may be silent, and how long an answer may take to be taken.
const SILENCE: Duration = Duration::from_secs(10);
/// Questions of one stream; who has more comes again.
const QUESTIONS: usize = 128;
/// Pause after a failure to accept, such as too many open files.
const RETRY: Duration = Duration::from_millis(100);

/// Answers until `stop`.
pub(super) async fn run(listener: TcpListener, zone: watch::Receiver<Arc<Zone>>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut streams = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        tokio::select! {
            () = stop.cancelled() => return, // and all streams with it
            Some(_) = streams.join_next() => {}
            Some((place, accepted)) = accepted => match accepted { // cancel-safe
                Ok((stream, from)) => {
                    let zone = zone.clone();
                    streams.spawn(async move {
                        converse(stream, from, &zone).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(error = %error, "no question is accepted, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
}

/// One stream to its end.
async fn converse(mut stream: TcpStream, from: SocketAddr, zone: &watch::Receiver<Arc<Zone>>) {
    for _ in 0..QUESTIONS {
        // Whoever asks may go at any time.
        let Ok(Ok(question)) = timeout(SILENCE, read(&mut stream)).await else { return };
        let known = zone.borrow().clone();
        let reply = match answer(&question, &known, Over::Tcp) {
            Reply::Known(reply) => reply,
            Reply::Ask => match upstream::ask(&question, Over::Tcp).await {
                Some(reply) => reply,
                None => return,
            },
            Reply::Nothing => {
                tracing::debug!(address = %from, "what came over TCP is no question");
                return;
            }
        };
        if !matches!(timeout(SILENCE, write(&mut stream, &reply)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Reads one message; its length of two bytes bounds it.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
