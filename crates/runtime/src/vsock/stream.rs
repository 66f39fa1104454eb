//! Connected streams, and dialling until somebody answers.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::UnixStream,
};
use tokio_vsock::VsockAddr;

use super::{address::Address, error::VsockError};
use crate::deadline::Deadline;
use crate::socket;

/// Pause after an attempt that was refused at once. Half of it is added to every
/// boot; a refusal costs the guest next to nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// One attempt may hang this long. Whatever an attempt was stuck on, the next
/// one starts from nothing.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The answer to `CONNECT` is `OK <number>`; nothing longer is one.
const LONGEST_GREETING: usize = 32;

/// A connected byte stream to a guest.
#[derive(Debug)]
pub enum VsockStream {
    /// By the kernel's vsock.
    Kernel(tokio_vsock::VsockStream),
    /// By a Unix socket, plain or after its `CONNECT`.
    Unix(UnixStream),
}

/// Dials `address` until it answers or time is up. Cancel-safe.
///
/// # Errors
/// [`VsockError::Silent`] when the deadline passes.
pub async fn dial(address: &Address, by: Deadline) -> Result<VsockStream, VsockError> {
    let mut last = None;
    // The loop remembers why its attempts fail, for the error text.
    match by.run(dial_until_answered(address, &mut last)).await {
        Ok(stream) => Ok(stream),
        Err(_) => Err(VsockError::Silent { address: address.clone(), waited: by.total(), source: last }),
    }
}

async fn dial_until_answered(address: &Address, last: &mut Option<io::Error>) -> VsockStream {
    loop {
        match tokio::time::timeout(ATTEMPT, attempt(address)).await {
            Ok(Ok(stream)) => return stream,
            Ok(Err(error)) => *last = Some(error),
            Err(_) => *last = Some(io::ErrorKind::TimedOut.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(address: &Address) -> io::Result<VsockStream> {
    match address {
        Address::Vsock { cid, port } => {
            tokio_vsock::VsockStream::connect(VsockAddr::new(*cid, *port)).await.map(VsockStream::Kernel)
        }
        Address::Hybrid { path, port } => hybrid(path, *port).await.map(VsockStream::Unix),
        Address::Unix { path } => socket::connect(path).await.map(VsockStream::Unix),
    }
}

async fn hybrid(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = socket::connect(path).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    greeted(&mut stream).await?;
    Ok(stream)
}

/// Reads the answer to `CONNECT`.
async fn greeted(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    // Byte by byte: what follows the line belongs to the caller.
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() == LONGEST_GREETING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to CONNECT is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    if line.starts_with(b"OK ") {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to CONNECT is not OK"))
    }
}

impl AsyncRead for VsockStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for VsockStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    /// A hybrid socket that answers each dial with the next of `answers`.
    async fn answering(answers: &'static [&'static [u8]]) -> (tempfile::TempDir, Address) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hybrid.sock");
        let listener = socket::listen(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut line = [0; 13];
                stream.read_exact(&mut line).await.unwrap();
                assert_eq!(&line, b"CONNECT 1024\n");
                stream.write_all(answer).await.unwrap();
            }
        });
        (dir, Address::Hybrid { path, port: 1024 })
    }

    #[tokio::test]
    async fn a_refused_dial_is_repeated_and_data_behind_the_answer_is_kept() {
        let (_dir, address) = answering(&[b"", b"OK", b"NO 1\n", b"OK 77\nhello"]).await;
        let mut stream = dial(&address, Deadline::after(Duration::from_secs(5))).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn an_endless_answer_is_refused() {
        static ENDLESS: &[&[u8]] = &[&[b'O'; 4096]];
        let (_dir, address) = answering(ENDLESS).await;
        let Address::Hybrid { path, port } = &address else { unreachable!() };
        assert_eq!(hybrid(path, *port).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn nobody_there_is_silence_with_its_cause() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix { path: dir.path().join("absent.sock") };
        let error = dial(&address, Deadline::after(Duration::from_millis(30))).await.unwrap_err();
        assert_eq!(error.kind(), osc_agent_protocol::Kind::Timeout);
        let VsockError::Silent { source: Some(source), .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

    /// `cargo bolero test` runs this under a coverage-guided engine.
    #[test]
    fn any_answer_is_ok_or_refused_and_nothing_behind_it_is_read() {
        let runtime = AssertUnwindSafe(tokio::runtime::Builder::new_current_thread().build().unwrap());
        let input = bolero::generator::produce::<(bool, Vec<u8>, bool, Vec<u8>)>();
        bolero::check!().with_test_time(Duration::from_secs(2)).with_generator(input).for_each(
            |(ok, text, end, behind)| {
                let (ok, end): (&[u8], &[u8]) = (if *ok { b"OK " } else { b"" }, if *end { b"\n" } else { b"" });
                let bytes = [ok, text, end, behind].concat();
                let line = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                let line = line.filter(|length| *length <= LONGEST_GREETING);
                let mut stream = bytes.as_slice();
                let answer = runtime.block_on(greeted(&mut stream));
                assert_eq!(answer.is_ok(), line.is_some() && bytes.starts_with(b"OK "));
                assert_eq!(bytes.len() - stream.len(), line.unwrap_or(bytes.len().min(LONGEST_GREETING)));
            },
        );
    }
}
