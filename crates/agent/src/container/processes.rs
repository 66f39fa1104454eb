//! The processes of a container: adding, signalling, waiting, streams.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::ErrorKind,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use nix::sys::signal::Signal;
use osc_agent_protocol::oci;

use super::{Container, Error, Result, io::Stream, launch, process::Process};

/// How long after its end the record of a process that was waited for is kept
/// for somebody to read its output.
const LINGER: Duration = Duration::from_secs(30);

impl Container {
    /// Runs another process in the container; returns once its program runs.
    ///
    /// # Errors
    /// [`Error::ProcessExists`], [`Error::WrongState`] when the container does
    /// not run, [`Error::Refused`] when the program cannot be started.
    pub async fn exec(&self, exec_id: &str, process: oci::Process) -> Result<()> {
        if self.is_first(exec_id) || self.execs().contains_key(exec_id) {
            return Err(Error::ProcessExists { container: self.id.clone(), exec: exec_id.into() });
        }
        self.check_running("exec in")?;
        // Not everybody who waits also reads.
        self.execs().retain(|_, process| !process.abandoned(LINGER));
        let process = launch::joining(self, exec_id, process).await?;
        match self.execs().entry(exec_id.into()) {
            Entry::Vacant(slot) => {
                slot.insert(Arc::new(process));
                Ok(())
            }
            Entry::Occupied(_) => {
                process.signal(Signal::SIGKILL as i32).map_err(|e| self.system("kill the second of two execs", e))?;
                Err(Error::ProcessExists { container: self.id.clone(), exec: exec_id.into() })
            }
        }
    }

    /// Sends a signal. An empty `exec_id` with SIGKILL reaches every process of
    /// the container; anything else only the process named. A SIGTERM the first
    /// process would not notice becomes SIGKILL. A process that is gone is no
    /// error.
    ///
    /// # Errors
    /// [`Error::NoProcess`], [`Error::Invalid`] for an unknown signal number.
    pub fn signal(&self, exec_id: &str, signal: i32) -> Result<()> {
        let process = self.process(exec_id)?;
        if exec_id.is_empty() && signal == Signal::SIGKILL as i32 {
            if self.cgroup.kill()? {
                return Ok(());
            }
        } else if self.is_first(exec_id)
            && signal == Signal::SIGTERM as i32
            && !self.shares_pid_namespace
            && process.ignores_quietly(signal)
        {
            return process.signal(Signal::SIGKILL as i32).map_err(|e| self.system("signal", e));
        }
        process.signal(signal).map_err(|e| self.system("signal", e))
    }

    /// Waits for a process to end and returns its exit status, 128 + n when
    /// signal n ended it. The record of an exec is dropped once its output has
    /// been read to the end; that of the first process stays until removal.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub async fn wait(&self, exec_id: &str) -> Result<i32> {
        let process = self.process(exec_id)?;
        let status = process.wait().await;
        process.mark_waited();
        self.forget_if_done(exec_id, &process);
        Ok(status)
    }

    fn forget_if_done(&self, exec_id: &str, process: &Arc<Process>) {
        if !process.done() || self.is_first(exec_id) {
            return;
        }
        let mut execs = self.execs();
        if execs.get(exec_id).is_some_and(|known| Arc::ptr_eq(known, process)) {
            execs.remove(exec_id);
        }
    }

    /// Writes all of `data` to standard input; empty data closes it. Not
    /// cancel-safe: a prefix may have been written.
    ///
    /// # Errors
    /// [`Error::NoProcess`], [`Error::StdinClosed`].
    pub async fn write_stdin(&self, exec_id: &str, data: &[u8]) -> Result<usize> {
        let process = self.process(exec_id)?;
        if data.is_empty() {
            process.io().close_stdin();
            return Ok(0);
        }
        match process.io().write(data).await {
            Ok(()) => Ok(data.len()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                Err(Error::StdinClosed { container: self.id.clone(), exec: exec_id.into() })
            }
            Err(error) => Err(self.system("write standard input", error)),
        }
    }

    /// Up to `len` bytes of standard output; empty at its end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub async fn read_stdout(&self, exec_id: &str, len: usize) -> Result<Vec<u8>> {
        self.read(exec_id, Stream::Stdout, len).await
    }

    /// Up to `len` bytes of standard error; empty at its end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub async fn read_stderr(&self, exec_id: &str, len: usize) -> Result<Vec<u8>> {
        self.read(exec_id, Stream::Stderr, len).await
    }

    async fn read(&self, exec_id: &str, stream: Stream, len: usize) -> Result<Vec<u8>> {
        let process = self.process(exec_id)?;
        let data = process.read(stream, len).await.map_err(|e| self.system("read output", e))?;
        if data.is_empty() {
            self.forget_if_done(exec_id, &process);
        }
        Ok(data)
    }

    /// Closes standard input; a terminal stays open.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    pub fn close_stdin(&self, exec_id: &str) -> Result<()> {
        self.process(exec_id)?.io().close_stdin();
        Ok(())
    }

    /// Sets the window size of a process's terminal.
    ///
    /// # Errors
    /// [`Error::NoTerminal`].
    pub fn resize(&self, exec_id: &str, rows: u32, columns: u32) -> Result<()> {
        match self.process(exec_id)?.io().resize(rows, columns) {
            None => Err(Error::NoTerminal { container: self.id.clone(), exec: exec_id.into() }),
            Some(result) => result.map_err(|e| self.system("resize the terminal", e)),
        }
    }

    pub(super) fn is_first(&self, exec_id: &str) -> bool {
        exec_id.is_empty() || exec_id == self.id
    }

    pub(super) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if self.is_first(exec_id) {
            return Ok(self.init.clone());
        }
        let known = self.execs().get(exec_id).cloned();
        known.ok_or_else(|| Error::NoProcess { container: self.id.clone(), exec: exec_id.into() })
    }

    pub(super) fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().expect("no holder panics")
    }
}
