//! One process of a container: its exit, its signals, its output's end.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::errno::Errno;

use super::{
    io::{Io, Stream},
    reaper::{Exit, ExitWatch},
    sys,
};

/// How long after a process's end its output is waited for while a descendant
/// keeps the stream open.
const DRAIN_WINDOW: Duration = Duration::from_millis(500);
/// What may still be read after that window: as much as a pipe can hold.
const DRAIN_BYTES: usize = 1 << 20;

/// A process started in a container.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    exit: ExitWatch,
    io: Io,
    outputs: Mutex<[Output; 2]>,
    waited: AtomicBool,
}

/// How far one output has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// More may come.
    Open,
    /// The drain window is over; this many bytes are still handed out.
    Draining { left: usize },
    /// Read to its end.
    Ended,
}

impl Process {
    /// A process that was just started.
    pub fn new(pid: i32, pidfd: OwnedFd, exit: ExitWatch, io: Io) -> Self {
        // A terminal has one output, so the other needs no reading to its end.
        let stderr = if matches!(io, Io::Terminal(_)) { Output::Ended } else { Output::Open };
        let outputs = Mutex::new([Output::Open, stderr]);
        Self { pid, pidfd, exit, io, outputs, waited: AtomicBool::new(false) }
    }

    /// Its id in the agent's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor of it.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Its streams.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.now()
    }

    /// Its end, to be awaited elsewhere.
    pub fn watch(&self) -> ExitWatch {
        self.exit.clone()
    }

    /// Waits for its end and returns its exit status. Cancel-safe.
    pub async fn wait(&self) -> i32 {
        self.exit.clone().wait().await.status
    }

    /// Somebody has been told how it ended.
    pub fn mark_waited(&self) {
        self.waited.store(true, Ordering::Relaxed);
    }

    /// Whether nobody will ask about it again.
    pub fn done(&self) -> bool {
        self.waited.load(Ordering::Relaxed)
            && self.outputs.lock().expect("no holder panics").iter().all(|output| *output == Output::Ended)
    }

    /// Whether it was waited for and ended longer than `age` ago.
    pub fn abandoned(&self, age: Duration) -> bool {
        self.waited.load(Ordering::Relaxed) && self.exit().is_some_and(|exit| exit.at.elapsed() > age)
    }

    /// Sends a signal; one to a process that is gone succeeds.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match sys::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
            result => result,
        }
    }

    /// Whether `signal` would vanish: the kernel drops signals for the first
    /// process of a pid namespace unless it handles them. One that blocks or
    /// ignores the signal has made up its mind and is left alone.
    pub fn ignores_quietly(&self, signal: i32) -> bool {
        fs::read_to_string(format!("/proc/{}/status", self.pid)).is_ok_and(|status| no_disposition(&status, signal))
    }

    /// Up to `len` bytes of one output, none at its end. Cancel-safe.
    pub async fn read(&self, stream: Stream, len: usize) -> io::Result<Vec<u8>> {
        let slot = self.slot(stream);
        let output = self.outputs.lock().expect("no holder panics")[slot];
        let data = match output {
            Output::Open => {
                tokio::select! {
                    biased;
                    data = self.io.read(stream, len) => data?,
                    () = self.drain_window() => return self.read_rest(stream, len, DRAIN_BYTES),
                }
            }
            Output::Draining { left } => return self.read_rest(stream, len, left),
            Output::Ended => Vec::new(),
        };
        if data.is_empty() && len > 0 {
            self.set_output(slot, Output::Ended);
        }
        Ok(data)
    }

    fn read_rest(&self, stream: Stream, len: usize, left: usize) -> io::Result<Vec<u8>> {
        let data = match self.io.try_read(stream, len.min(left)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Vec::new(),
            result => result?,
        };
        let next = if data.is_empty() { Output::Ended } else { Output::Draining { left: left - data.len() } };
        self.set_output(self.slot(stream), next);
        Ok(data)
    }

    async fn drain_window(&self) {
        let exit = self.exit.clone().wait().await;
        tokio::time::sleep_until(exit.at + DRAIN_WINDOW).await;
    }

    fn slot(&self, stream: Stream) -> usize {
        usize::from(stream == Stream::Stderr && matches!(self.io, Io::Pipes { .. }))
    }

    fn set_output(&self, slot: usize, output: Output) {
        self.outputs.lock().expect("no holder panics")[slot] = output;
    }
}

/// Whether a `/proc/<pid>/status` shows the default action for `signal`.
fn no_disposition(status: &str, signal: i32) -> bool {
    let bit = 1u64 << (signal - 1);
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    ["SigBlk:", "SigIgn:", "SigCgt:"].iter().all(|name| set(name).is_some_and(|mask| mask & bit == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_as_noticed_when_handled_ignored_or_blocked() {
        let status = |blocked: u64, ignored: u64, caught: u64| {
            format!("Name:\tx\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n")
        };
        let term = 1 << 14;
        for (text, want) in [
            (status(0, 0, 0), true),
            (status(0, 0, term), false),
            (status(0, term, 0), false),
            (status(term, 0, 0), false),
            (status(0, 0, term << 1), true),
            (String::new(), false),
        ] {
            assert_eq!(no_disposition(&text, 15), want, "{text}");
        }
    }
}
