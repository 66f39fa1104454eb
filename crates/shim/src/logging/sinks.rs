//! A pipe the engine reads and a file for when it does not.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Size at which the log file starts over; it lies in memory.
const FILE_LIMIT: u64 = 1 << 20;

/// The named pipe `log` of a bundle.
#[derive(Debug)]
pub(super) struct Pipe(File);

impl Pipe {
    /// Opens the pipe. The engine holds it open for reading; when nobody does,
    /// this fails.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).map(Self)
    }

    /// Writes a line, or drops it when the pipe is full. Lines up to the size of
    /// a pipe buffer are written whole (pipe(7)).
    pub(super) fn write(&self, line: &[u8]) {
        let _ = (&self.0).write(line);
    }
}

/// A file of bounded size, made when there is something to write.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    open: Mutex<Option<(File, u64)>>,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: Mutex::new(None) }
    }

    pub(super) fn write(&self, line: &[u8]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|(_, size)| size + line.len() as u64 > FILE_LIMIT) {
            // The directory appears with the sandbox; lines before that are in
            // the pipe only.
            *open = File::create(&self.path).ok().map(|file| (file, 0));
        }
        if let Some((file, size)) = open.as_mut() {
            let _ = file.write_all(line);
            *size += line.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_stays_bounded_and_starts_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later").join("shim.log");
        let log = LogFile::new(path.clone());
        log.write(b"lost\n");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let line = [b'x'; 1000];
        for _ in 0..2 * FILE_LIMIT / 1000 {
            log.write(&line);
        }
        assert!((1..=FILE_LIMIT).contains(&path.metadata().unwrap().len()));
    }

    #[test]
    fn a_full_pipe_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Pipe::open(&path).is_err());
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let pipe = Pipe::open(&path).unwrap();
        for _ in 0..100 {
            pipe.write(&[b'x'; 4000]);
        }
    }
}
