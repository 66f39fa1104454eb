//! Commands that end: run with a deadline, output captured, killed when late.

use std::{
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// Standard output as text, without the last line break.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.text(), self.errors());
        self
    }
}

/// Runs `command` with `input`, for at most `limit`.
///
/// # Panics
/// When it does not start or is not done in time; it is killed first.
#[track_caller]
pub fn run(mut command: Command, input: &[u8], limit: Duration) -> Outcome {
    let began = Instant::now();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let writer = feed(&mut child, input.to_vec());
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child, began + limit);
    let outcome = |status: ExitStatus| Outcome {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        took: began.elapsed(),
    };
    let Some(status) = status else {
        child.kill().unwrap();
        let outcome = outcome(child.wait().unwrap());
        panic!("{command:?} took over {limit:?}\nstdout: {}\nstderr: {}", outcome.text(), outcome.errors());
    };
    writer.join().unwrap();
    outcome(status)
}

fn feed(child: &mut Child, input: Vec<u8>) -> thread::JoinHandle<()> {
    let mut stdin = child.stdin.take().unwrap();
    // A command may end without reading all of it.
    thread::spawn(move || drop(stdin.write_all(&input)))
}

fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        drop(from.read_to_end(&mut bytes));
        bytes
    })
}

fn wait(child: &mut Child, by: Instant) -> Option<ExitStatus> {
    let mut status = None;
    until(by.saturating_duration_since(Instant::now()), || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status
}

/// A command that goes on while others run. Killed when dropped.
pub struct Background {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Background {
    /// Starts `command`; what it prints is collected, both outputs in one.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let shown = Arc::default();
        collect(child.stdout.take().unwrap(), &shown);
        collect(child.stderr.take().unwrap(), &shown);
        Self { child, shown }
    }

    /// All that was printed so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until `text` has been printed.
    #[track_caller]
    pub fn expect(&self, text: &str, limit: Duration) {
        assert!(until(limit, || self.shown().contains(text)), "no {text:?} in {:?}", self.shown());
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    pub fn code(mut self, limit: Duration) -> i32 {
        let status = wait(&mut self.child, Instant::now() + limit);
        let status = status.unwrap_or_else(|| panic!("still running after {limit:?}: {:?}", self.shown()));
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn collect(mut from: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) {
    let into = into.clone();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            into.lock().unwrap().extend(&bytes[..count]);
        }
    });
}

/// Asks `done` every few milliseconds until it says yes or `limit` is over;
/// whether it said yes.
pub fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let by = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= by {
            return false;
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}
