//! The copy loops.

use std::{io, os::fd::AsFd, sync::Arc};

use osc_agent_protocol::kind::chain;
use osc_runtime::sandbox::{Output, ProcessId, Sandbox};
use tokio::{fs::File, io::AsyncWriteExt, net::unix::pipe};
use tokio_util::sync::CancellationToken;

/// Bytes asked for at a time. Large, because each round trip into the guest costs
/// the same however little it carries.
const CHUNK: usize = 256 << 10;
/// Bytes taken from a pipe at a time: what a pipe holds by default.
const PIPE: usize = 64 << 10;

/// Where output goes.
#[derive(Debug)]
pub(super) enum Sink {
    Nowhere,
    Pipe(pipe::Sender),
    File(File),
}

impl Sink {
    /// Writes all of `data`; waits while a pipe is full.
    pub(super) async fn write(&mut self, data: impl AsRef<[u8]>) -> io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Pipe(pipe) => pipe.write_all(data.as_ref()).await,
            Self::File(file) => {
                file.write_all(data.as_ref()).await?;
                file.flush().await
            }
        }
    }
}

/// Passes output on until the process has closed it.
pub(super) async fn drain(sandbox: Sandbox, process: Arc<ProcessId>, output: Output, mut sink: Sink) {
    loop {
        match sandbox.read_output(&process, output, CHUNK as u32).await {
            Ok(data) if data.is_empty() => return,
            Ok(data) => {
                if let Err(error) = sink.write(data).await {
                    // The process must not stall because its logger died.
                    tracing::warn!(process = %process, error = chain(&error), "output is thrown away");
                    sink = Sink::Nowhere;
                }
            }
            // Gone with its process or the machine; both are reported elsewhere.
            Err(error) => {
                tracing::debug!(process = %process, error = chain(&error), "output ended");
                return;
            }
        }
    }
}

/// What becomes of standard input when its pipe has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// The process sees the end, too.
    Close,
    /// Nothing, as with a terminal nobody looks at.
    KeepOpen,
}

/// Passes input on until its pipe ends or `close` asks for the end.
pub(super) async fn feed(
    sandbox: Sandbox,
    process: Arc<ProcessId>,
    input: Option<pipe::Receiver>,
    close: CancellationToken,
    at_end: AtEnd,
) {
    if let Some(input) = input {
        copy_input(&sandbox, &process, input, &close).await;
    }
    if at_end == AtEnd::Close
        && let Err(error) = sandbox.close_stdin(&process).await
    {
        tracing::debug!(process = %process, error = chain(&error), "input was closed already");
    }
}

async fn copy_input(sandbox: &Sandbox, process: &ProcessId, input: pipe::Receiver, close: &CancellationToken) {
    let mut closing = false;
    while !closing {
        tokio::select! {
            () = close.cancelled() => closing = true,
            ready = input.readable() => if ready.is_err() { return },
        }
        loop {
            match read_now(&input, closing) {
                Ok(data) if data.is_empty() => return,
                Ok(data) => {
                    if sandbox.write_stdin(process, data).await.is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
    }
}

/// What is in the pipe at this moment; empty at its end.
///
/// The engine writes everything before it asks for the end. Readiness may not
/// have been noticed yet then, so the `last` read asks the pipe itself.
fn read_now(input: &pipe::Receiver, last: bool) -> io::Result<Vec<u8>> {
    let mut data = vec![0; PIPE];
    let mut read = || nix::unistd::read(input.as_fd(), &mut data).map_err(io::Error::from);
    let count = if last { read() } else { input.try_io(&mut read) }?;
    data.truncate(count);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_input_nobody_has_opened_is_not_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdin");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let input = super::super::target::open_input(path.to_str().unwrap()).unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), input.readable()).await;
        assert!(early.is_err(), "there is nothing to read before a writer came");

        let mut writer = pipe::OpenOptions::new().open_sender(&path).unwrap();
        writer.write_all(b"abc").await.unwrap();
        assert_eq!(read_now(&input, true).unwrap(), b"abc");
        assert_eq!(read_now(&input, true).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        input.readable().await.unwrap();
        assert_eq!(read_now(&input, false).unwrap(), b"");
    }
}
