//! The guest's console: the last lines for error messages, all lines for the
//! log when wanted, and raw bytes for people who connect to `console.sock`.
//!
//! QEMU has one end of a socket pair, we the other; so the first byte is never
//! missed, and a person looking at the console takes it from nobody.

use std::{io, os::unix::net::UnixListener as StdListener, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, broadcast, mpsc},
};

use crate::lines::{Splitter, Tail};

/// People looking at one console at the same time.
const VIEWERS: usize = 8;
/// Chunks a slow viewer may lag behind before it misses some.
const LAG: usize = 64;
/// Bytes read at a time.
const CHUNK: usize = 1 << 10;

type Chunk = Arc<[u8]>;

/// What the log says about a console.
pub(super) struct Label {
    pub sandbox: String,
    pub url: String,
    /// Log each line.
    pub lines: bool,
}

impl Label {
    fn log(&self, line: &str) {
        if self.lines {
            tracing::debug!(
                subsystem = "qemu",
                "console-protocol" = "unix",
                "console-url" = %self.url,
                sandbox = %self.sandbox,
                vmconsole = %line,
                "reading guest console"
            );
        }
    }
}

/// Reads `guest` until it closes, serving viewers on `listener`. Gives the last
/// lines.
pub(super) fn attend(guest: UnixStream, listener: StdListener, label: Label) -> io::Result<Tail> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let tail = Tail::default();
    tokio::spawn(run(guest, listener, label, tail.clone()));
    Ok(tail)
}

async fn run(guest: UnixStream, listener: UnixListener, label: Label, tail: Tail) {
    let (mut guest, input) = guest.into_split();
    let (keys, typed) = mpsc::channel(LAG);
    tokio::spawn(type_into(input, typed));
    let screen = broadcast::Sender::new(LAG);
    let seats = Arc::new(Semaphore::new(VIEWERS));
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; CHUNK];
    let mut each = |line: &str| {
        tail.push(line);
        label.log(line);
    };
    loop {
        tokio::select! {
            read = guest.read(&mut buffer) => match read { // cancel-safe
                Ok(count) if count > 0 => {
                    splitter.push(&buffer[..count], &mut each);
                    // No viewer is no error.
                    let _ = screen.send(Chunk::from(&buffer[..count]));
                }
                _ => break,
            },
            viewer = listener.accept() => { // cancel-safe
                if let (Ok((viewer, _)), Ok(seat)) = (viewer, seats.clone().try_acquire_owned()) {
                    let (output, keys) = (screen.subscribe(), keys.clone());
                    tokio::spawn(async move {
                        view(viewer, output, keys).await;
                        drop(seat);
                    });
                }
            }
        }
    }
    splitter.finish(each);
}

async fn type_into(mut guest: OwnedWriteHalf, mut typed: mpsc::Receiver<Chunk>) {
    while let Some(keys) = typed.recv().await {
        if guest.write_all(&keys).await.is_err() {
            return;
        }
    }
}

async fn view(viewer: UnixStream, mut output: broadcast::Receiver<Chunk>, keys: mpsc::Sender<Chunk>) {
    let (mut typing, mut screen) = viewer.into_split();
    let mut buffer = [0; 256];
    loop {
        tokio::select! {
            chunk = output.recv() => match chunk { // cancel-safe
                Ok(chunk) => if screen.write_all(&chunk).await.is_err() { return },
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            read = typing.read(&mut buffer) => match read { // cancel-safe
                Ok(count) if count > 0 => if keys.send(Arc::from(&buffer[..count])).await.is_err() { return },
                _ => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deadline::Deadline;

    async fn read_until(stream: &mut UnixStream, want: &[u8]) -> Vec<u8> {
        let (mut got, mut buffer) = (Vec::new(), [0; 64]);
        while !got.ends_with(want) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "closed after {got:?}");
            got.extend_from_slice(&buffer[..count]);
        }
        got
    }

    #[tokio::test]
    async fn viewers_see_and_type_and_the_tail_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.sock");
        let (mut guest, ours) = UnixStream::pair().unwrap();
        let label = Label { sandbox: "s".into(), url: "u".into(), lines: true };
        let tail = attend(ours, StdListener::bind(&path).unwrap(), label).unwrap();
        let work = async {
            let mut viewers = [UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap()];
            for viewer in &mut viewers {
                // An answered key proves that the viewer is seated.
                viewer.write_all(b"k").await.unwrap();
                read_until(&mut guest, b"k").await;
            }
            guest.write_all(b"login: \nPanic!").await.unwrap();
            for viewer in &mut viewers {
                assert_eq!(read_until(viewer, b"!").await, b"login: \nPanic!");
            }
            drop(guest);
            for viewer in &mut viewers {
                assert_eq!(viewer.read(&mut [0; 8]).await.unwrap(), 0);
            }
        };
        Deadline::after(Duration::from_secs(5)).run(work).await.unwrap();
        assert_eq!(tail.lines(), ["login:", "Panic!"]);
    }
}
