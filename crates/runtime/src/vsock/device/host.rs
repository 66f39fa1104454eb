//! The host program's end of a connection: a Unix socket watched
//! edge-triggered. A flag says what may be tried, and is cleared when the kernel
//! says "would block".

use std::{
    collections::VecDeque,
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use nix::{
    errno::Errno,
    sys::{
        epoll::EpollFlags,
        socket::{MsgFlags, recv, send},
    },
};

/// `CONNECT 4294967295` and its line end fit well.
const LONGEST_LINE: usize = 32;

/// The host program's socket and what its last events allow.
#[derive(Debug)]
pub struct Host {
    stream: UnixStream,
    /// Bytes, or their end, may be there.
    pub readable: bool,
    writable: bool,
    /// Closed in both directions: whatever is sent there is lost.
    pub gone: bool,
    /// The program was told that nothing more will come.
    ended: bool,
}

/// What became of reading some bytes.
pub enum Received {
    /// So many.
    Bytes(usize),
    /// None now.
    Nothing,
    /// None ever again.
    End,
}

/// What became of reading a line.
pub enum Line {
    /// Its end has not arrived.
    Unfinished,
    /// The line, without its end.
    Is(Vec<u8>),
    /// The program left, or sent something longer.
    Never,
}

impl Host {
    /// A socket about which nothing is known: everything may be tried.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, readable: true, writable: true, gone: false, ended: false }
    }

    /// Takes in what the socket reports.
    pub fn event(&mut self, events: EpollFlags) {
        self.gone |= events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        self.readable |= self.gone || events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
        self.writable |= events.intersects(EpollFlags::EPOLLOUT);
    }

    /// Reads one line, and not a byte behind it.
    pub fn read_line(&mut self) -> Line {
        let fd = self.stream.as_raw_fd();
        let mut line = [0; LONGEST_LINE];
        let seen = match recv(fd, &mut line, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Line::Unfinished,
            Ok(0) | Err(_) => return Line::Never,
            Ok(seen) => seen,
        };
        match line[..seen].iter().position(|byte| *byte == b'\n') {
            Some(end) if recv(fd, &mut line[..=end], MsgFlags::MSG_DONTWAIT) == Ok(end + 1) => {
                Line::Is(line[..end].to_vec())
            }
            None if seen < LONGEST_LINE && !self.gone => Line::Unfinished,
            _ => Line::Never,
        }
    }

    /// Tells the program that nothing more will come. Once: each time would be
    /// an event of its own.
    pub fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            // Fails only when the other end is gone, which an event reports too.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Sends what the socket takes and says how much that was.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while self.writable && !self.gone && done < bytes.len() {
            match send(self.stream.as_raw_fd(), &bytes[done..], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(len) => done += len,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.writable = false,
                Err(_) => self.gone = true,
            }
        }
        done
    }

    /// Reads what is there.
    pub fn receive(&mut self, data: &mut [u8]) -> Received {
        match recv(self.stream.as_raw_fd(), data, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Received::End,
            Ok(len) => Received::Bytes(len),
            Err(Errno::EAGAIN) => {
                self.readable = false;
                Received::Nothing
            }
            Err(Errno::EINTR) => Received::Nothing,
            Err(_) => {
                self.gone = true;
                Received::End
            }
        }
    }
}

/// Bytes of the guest the host program has not taken yet.
#[derive(Debug, Default)]
pub struct Backlog(VecDeque<u8>);

impl Backlog {
    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps `bytes`; the caller sees to the limit.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Sends what the host takes, and drops everything when it is gone; the
    /// number of bytes that went either way.
    pub fn flush(&mut self, host: &mut Host) -> usize {
        let before = self.0.len();
        while !self.0.is_empty() {
            let sent = host.send(self.0.as_slices().0);
            if sent == 0 {
                break;
            }
            self.0.drain(..sent);
        }
        if self.0.is_empty() || host.gone {
            // Assigned, not cleared: an idle connection keeps no memory.
            self.0 = VecDeque::new();
        }
        before - self.0.len()
    }
}
