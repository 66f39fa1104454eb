//! A terminal for commands that want one, driven from a test.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::pty::openpty;

use crate::command::until;

/// A command that runs on a pseudo-terminal of its own.
pub struct Terminal {
    master: File,
    slave: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    /// Starts `command` with a terminal of `rows` × `columns` as its controlling one.
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let pty = openpty(None, None).unwrap();
        let slave = std::fs::read_link(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        stty(&slave, rows, columns);
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let master = File::from(pty.master);
        thread::spawn({
            let (mut from, seen) = (master.try_clone().unwrap(), seen.clone());
            move || {
                let mut bytes = [0; 4096];
                // EIO once the last process on the other side is gone.
                while let Ok(count @ 1..) = from.read(&mut bytes) {
                    seen.lock().unwrap().extend(&bytes[..count]);
                }
            }
        });
        // The child has copies of its own; ours would keep the terminal alive.
        drop(pty.slave);
        Self { master, slave, seen, child }
    }

    /// Types `text`.
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Changes the size; whoever runs in the foreground gets SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        stty(&self.slave, rows, columns);
    }

    /// All that was shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Waits until `text` has been shown.
    #[track_caller]
    pub fn expect(&self, text: &str, limit: Duration) {
        assert!(until(limit, || self.shown().contains(text)), "no {text:?} in {:?}", self.shown());
    }

    /// Exit code of the command.
    #[track_caller]
    pub fn code(mut self, limit: Duration) -> i32 {
        let mut code = None;
        let ended = until(limit, || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        if !ended {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        assert!(ended, "still running after {limit:?}, showed {:?}", self.shown());
        code.unwrap().code().unwrap()
    }
}

fn stty(terminal: &PathBuf, rows: u16, columns: u16) {
    let on = File::options().read(true).write(true).open(terminal).unwrap();
    let size = ["rows", &rows.to_string(), "cols", &columns.to_string()].map(str::to_owned);
    assert!(Command::new("stty").args(size).stdin(on).status().unwrap().success());
}
