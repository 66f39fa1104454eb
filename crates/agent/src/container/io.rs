//! Standard streams of a container's process, agent's side.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd,
};
use tokio::{io::unix::AsyncFd, net::unix::pipe};

use super::sys;

/// Which output is meant; a terminal has only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Most bytes one read returns, so that a request cannot make us allocate more.
const READ_LIMIT: usize = 256 << 10;

/// The agent's ends of a process's standard streams.
#[derive(Debug)]
pub enum Io {
    /// One pipe each.
    Pipes {
        /// Gone once closed; shared so that a blocked write does not keep it locked.
        stdin: Mutex<Option<Arc<pipe::Sender>>>,
        /// Read end of standard output.
        stdout: pipe::Receiver,
        /// Read end of standard error.
        stderr: pipe::Receiver,
    },
    /// The master of its terminal.
    Terminal(AsyncFd<OwnedFd>),
}

/// The process's ends: standard input, output, error.
pub type Ends = [OwnedFd; 3];

/// Makes the pipes of a process without a terminal.
///
/// # Errors
/// When descriptors run out.
pub fn pipes(size: Option<u32>) -> io::Result<(Io, Ends)> {
    let [(stdin_theirs, stdin_ours), (stdout_ours, stdout_theirs), (stderr_ours, stderr_theirs)] =
        [pipe_pair(size)?, pipe_pair(size)?, pipe_pair(size)?];
    for ours in [&stdin_ours, &stdout_ours, &stderr_ours] {
        set_nonblocking(ours)?;
    }
    let io = Io::Pipes {
        stdin: Mutex::new(Some(Arc::new(pipe::Sender::from_owned_fd_unchecked(stdin_ours)?))),
        stdout: pipe::Receiver::from_owned_fd_unchecked(stdout_ours)?,
        stderr: pipe::Receiver::from_owned_fd_unchecked(stderr_ours)?,
    };
    Ok((io, [stdin_theirs, stdout_theirs, stderr_theirs]))
}

fn pipe_pair(size: Option<u32>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    if let Some(size) = size {
        let size = i32::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(size))?;
    }
    Ok((read, write))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // A status flag belongs to one end of a pipe: the process's end stays blocking.
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Takes over the master of a terminal.
///
/// # Errors
/// When it cannot be polled.
pub fn terminal(master: OwnedFd) -> io::Result<Io> {
    set_nonblocking(&master)?;
    Ok(Io::Terminal(sys::pollable(master)?))
}

impl Io {
    /// Writes all of `data` to standard input. Not cancel-safe.
    pub async fn write(&self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Terminal(master) => write_terminal(master, data).await,
            Self::Pipes { stdin, .. } => {
                let sender = stdin.lock().expect("no holder panics").clone();
                write_pipe(&*sender.ok_or(io::ErrorKind::BrokenPipe)?, data).await
            }
        }
    }

    /// Closes standard input once writes under way are done. A terminal has no
    /// end of input other than the character for it, so it stays as it is.
    pub fn close_stdin(&self) {
        if let Self::Pipes { stdin, .. } = self {
            stdin.lock().expect("no holder panics").take();
        }
    }

    /// Waits for output and returns up to `len` bytes of it, none at its end.
    /// Cancel-safe.
    pub async fn read(&self, stream: Stream, len: usize) -> io::Result<Vec<u8>> {
        loop {
            match self {
                Self::Pipes { .. } => self.receiver(stream).readable().await?,
                Self::Terminal(master) => {
                    let mut ready = master.readable().await?;
                    match ready.try_io(|fd| read_terminal(fd.get_ref(), len)) {
                        Ok(result) => return result,
                        Err(_would_block) => continue,
                    }
                }
            }
            match self.try_read(stream, len) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Output that is there already; `WouldBlock` when there is none.
    pub fn try_read(&self, stream: Stream, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Terminal(master) => read_terminal(master.get_ref(), len),
            Self::Pipes { .. } => {
                let mut data = vec![0; len.min(READ_LIMIT)];
                let n = self.receiver(stream).try_read(&mut data)?;
                data.truncate(n);
                Ok(data)
            }
        }
    }

    fn receiver(&self, stream: Stream) -> &pipe::Receiver {
        match (self, stream) {
            (Self::Pipes { stdout, .. }, Stream::Stdout) => stdout,
            (Self::Pipes { stderr, .. }, Stream::Stderr) => stderr,
            (Self::Terminal(_), _) => unreachable!("callers handle terminals"),
        }
    }

    /// Sets the window size; `None` without a terminal.
    pub fn resize(&self, rows: u32, columns: u32) -> Option<io::Result<()>> {
        let Self::Terminal(master) = self else { return None };
        let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        Some(sys::window_size(master.as_fd(), clamp(rows), clamp(columns)))
    }
}

async fn write_pipe(sender: &pipe::Sender, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        sender.writable().await?;
        match sender.try_write(data) {
            Ok(n) => data = &data[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn write_terminal(master: &AsyncFd<OwnedFd>, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let mut ready = master.writable().await?;
        match ready.try_io(|fd| Ok(unistd::write(fd.get_ref(), data)?)) {
            Ok(result) => data = &data[result?..],
            Err(_would_block) => {}
        }
    }
    Ok(())
}

fn read_terminal(master: &OwnedFd, len: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; len.min(READ_LIMIT)];
    match unistd::read(master, &mut data) {
        Ok(n) => {
            data.truncate(n);
            Ok(data)
        }
        // What Linux says once nobody holds the slave side open.
        Err(nix::errno::Errno::EIO) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
