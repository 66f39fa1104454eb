//! Exit statuses of all children, in one place.
//!
//! The agent is process 1 of the guest, or at least the subreaper of everything
//! below it, so it must wait for processes it never started. That rules out
//! waiting for a single child anywhere else: this module waits for all and hands
//! statuses to whoever watches a pid.
//!
//! A child may end before its pid can be watched. Statuses nobody watches are
//! therefore kept while a [`Window`] is open, and only then, which bounds them.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::Instant,
};

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit status; 128 + n when signal n ended it.
    pub status: i32,
    /// When we learned of it.
    pub at: Instant,
}

/// Hands out exit statuses; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Reaper(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    watched: HashMap<i32, watch::Sender<Option<Exit>>>,
    windows: usize,
    early: HashMap<i32, Exit>,
}

impl Reaper {
    /// Starts reaping; needs a tokio runtime and must be called once per process.
    ///
    /// # Errors
    /// When the process cannot become a subreaper or handle SIGCHLD.
    pub fn start() -> io::Result<Self> {
        prctl::set_child_subreaper(true)?;
        let reaper = Self::default();
        let child_signals = signal(SignalKind::child())?;
        tokio::spawn(reaper.clone().serve(child_signals));
        Ok(reaper)
    }

    async fn serve(self, mut child_signals: Signal) {
        while child_signals.recv().await.is_some() {
            self.reap();
        }
    }

    fn reap(&self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, status),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(error = %error, "children cannot be waited for");
                    return;
                }
            };
            self.record(pid.as_raw(), Exit { status, at: Instant::now() });
        }
    }

    fn record(&self, pid: i32, exit: Exit) {
        let mut ledger = self.ledger();
        if let Some(sender) = ledger.watched.remove(&pid) {
            sender.send_replace(Some(exit));
        } else if ledger.windows > 0 {
            ledger.early.insert(pid, exit);
        }
    }

    /// Opens a window: until it is dropped, no child's exit is lost. Open it
    /// before starting a child, watch the child, then drop it.
    pub fn window(&self) -> Window {
        self.ledger().windows += 1;
        Window(self.clone())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().expect("no holder panics")
    }

    /// Runs a helper program to its end, with `input` on its standard input, and
    /// kills it when `limit` has passed. At most 64 KiB of each output are kept.
    /// Not cancel-safe: a dropped call leaves the program running.
    ///
    /// # Errors
    /// When it cannot be started; kind `TimedOut` when it took too long.
    pub async fn run(&self, mut command: Command, input: &[u8], limit: Duration) -> io::Result<Finished> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let window = self.window();
        // The child is started on a blocking thread: fork and exec take a while under emulation.
        let mut child = tokio::task::spawn_blocking(move || command.spawn()).await??;
        let mut ended = window.watch(child.id() as i32);
        drop(window);
        let mut stdin = pipe::Sender::from_owned_fd(pipe_end(child.stdin.take())?)?;
        let mut stdout = pipe::Receiver::from_owned_fd(pipe_end(child.stdout.take())?)?;
        let mut stderr = pipe::Receiver::from_owned_fd(pipe_end(child.stderr.take())?)?;
        let feed = async move {
            // A program that does not read its input is no failure.
            let _ = stdin.write_all(input).await;
        };
        let work = async { tokio::join!(feed, drain(&mut stdout), drain(&mut stderr), ended.wait()) };
        match tokio::time::timeout(limit, work).await {
            Ok(((), stdout, stderr, exit)) => Ok(Finished { status: exit.status, stdout, stderr }),
            Err(_) => {
                child.kill()?;
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("still running after {limit:?}")))
            }
        }
    }
}

fn pipe_end(end: Option<impl Into<OwnedFd>>) -> io::Result<OwnedFd> {
    // Children made with piped streams have them; an absent one would be a bug of the standard library.
    end.map(Into::into).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Most bytes kept of one output of a helper program.
pub(crate) const OUTPUT_KEPT: usize = 64 << 10;

async fn drain(from: &mut pipe::Receiver) -> Vec<u8> {
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        let room = OUTPUT_KEPT - kept.len();
        kept.extend_from_slice(&chunk[..n.min(room)]);
    }
    kept
}

/// A helper program that ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit status; 128 + n when signal n ended it.
    pub status: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// While this lives, exits of unwatched children are kept.
#[derive(Debug)]
pub struct Window(Reaper);

impl Window {
    /// Watches a child started while this window was open.
    pub fn watch(&self, pid: i32) -> ExitWatch {
        let (sender, receiver) = watch::channel(None);
        let mut ledger = self.0.ledger();
        match ledger.early.remove(&pid) {
            Some(exit) => drop(sender.send_replace(Some(exit))),
            None => drop(ledger.watched.insert(pid, sender)),
        }
        ExitWatch(receiver)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut ledger = self.0.ledger();
        ledger.windows -= 1;
        if ledger.windows == 0 {
            ledger.early.clear();
        }
    }
}

/// The end of one process, awaited by any number of holders.
#[derive(Clone, Debug)]
pub struct ExitWatch(watch::Receiver<Option<Exit>>);

impl ExitWatch {
    /// How the process ended, if it has.
    pub fn now(&self) -> Option<Exit> {
        *self.0.borrow()
    }

    /// Waits for the end. Cancel-safe.
    pub async fn wait(&mut self) -> Exit {
        match self.0.wait_for(Option::is_some).await {
            Ok(exit) => exit.expect("waited until it is there"),
            // Only when the runtime shuts down below us does the reaper go away first.
            Err(_) => Exit { status: 255, at: Instant::now() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_before_the_watch_is_not_lost() {
        let reaper = Reaper::default();
        let exit = Exit { status: 7, at: Instant::now() };
        let window = reaper.window();
        reaper.record(42, exit);
        assert_eq!(window.watch(42).now(), Some(exit));
    }

    #[test]
    fn exits_of_strangers_are_kept_only_while_a_window_is_open() {
        let reaper = Reaper::default();
        let exit = Exit { status: 7, at: Instant::now() };
        reaper.record(1, exit);
        let (outer, inner) = (reaper.window(), reaper.window());
        reaper.record(2, exit);
        drop(inner);
        assert_eq!(reaper.ledger().early.len(), 1);
        drop(outer);
        assert!(reaper.ledger().early.is_empty());
    }

    #[test]
    fn a_watched_pid_is_answered_once() {
        let reaper = Reaper::default();
        let watch = reaper.window().watch(5);
        assert_eq!(watch.now(), None);
        reaper.record(5, Exit { status: 137, at: Instant::now() });
        assert_eq!(watch.now().map(|exit| exit.status), Some(137));
        assert!(reaper.ledger().watched.is_empty());
    }
}
