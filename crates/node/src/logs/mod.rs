//! Logs of containers in the CRI's format, one line each:
//! `2006-01-02T15:04:05.999999999Z stdout F text`, where `F` ends a line of the
//! container and `P` does not.

mod excerpt;
mod rotate;
mod sys;

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader, unix::AsyncFd},
};
use tokio_util::sync::CancellationToken;

pub use excerpt::{Selection, excerpt};
pub use rotate::rotate;
use rotate::{Place, aside, numbered};

/// Longest line that is kept; the engine splits at 16 KiB.
const MAX_LINE: usize = 256 << 10;
/// Written at once: lines are short, and every write has its price.
const PIECE: usize = 64 << 10;
/// How long the engine may take to write the last lines of a container that has
/// ended.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Looked at even without an event, should one be lost.
const RELIST: Duration = Duration::from_secs(1);

/// Which of its outputs a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written, as text.
    pub time: &'a str,
    /// Where to.
    pub stream: Stream,
    /// What the container wrote, without the end of its line.
    pub text: &'a [u8],
    /// Whether the container's line ends here.
    pub ends: bool,
}

/// Reads one line of a log file. `None` when it is none.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is whole.
    let ends = match parts.next()?.split(|&byte| byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Entry { time, stream, text: parts.next()?, ends })
}

/// Where log lines go. A prefix is put before every line of the container.
pub struct Sink<O, E> {
    /// Standard output.
    pub stdout: O,
    /// Standard error.
    pub stderr: E,
    /// Put before every line; may be empty.
    pub prefix: String,
    inside: [bool; 2],
    /// What has not been written yet.
    waiting: [Vec<u8>; 2],
}

/// Something that takes what a log holds.
pub trait Lines {
    /// Takes one entry; may keep it until [`Self::flush`].
    fn put(&mut self, entry: &Entry<'_>) -> impl Future<Output = io::Result<()>> + Send;
    /// Hands on everything it keeps.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

impl<O, E> Sink<O, E> {
    /// A sink with a prefix.
    pub fn new(stdout: O, stderr: E, prefix: impl Into<String>) -> Self {
        Self { stdout, stderr, prefix: prefix.into(), inside: [false; 2], waiting: Default::default() }
    }
}

impl<O: AsyncWrite + Unpin + Send, E: AsyncWrite + Unpin + Send> Lines for Sink<O, E> {
    async fn put(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let index = usize::from(entry.stream == Stream::Stderr);
        let waiting = &mut self.waiting[index];
        if !std::mem::replace(&mut self.inside[index], !entry.ends) {
            waiting.extend(self.prefix.as_bytes());
        }
        waiting.extend(entry.text);
        if entry.ends {
            waiting.push(b'\n');
        }
        if waiting.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stdout.write_all(&self.waiting[0]).await?;
        self.stderr.write_all(&self.waiting[1]).await?;
        self.waiting.iter_mut().for_each(Vec::clear);
        self.stdout.flush().await?;
        self.stderr.flush().await
    }
}

/// Copies a whole log, what was put aside of it first.
///
/// # Errors
/// When the log cannot be read or the sink not be written.
pub async fn copy(log: &Path, sink: &mut impl Lines) -> io::Result<()> {
    let mut reader = Reader::open_first(log).await?;
    loop {
        reader.drain(sink).await?;
        match reader.place.next(log) {
            Some((path, number)) => reader.turn(&path, number).await?,
            None => return Ok(()),
        }
    }
}

/// Follows one log while it is written. Made before the container starts, it
/// misses nothing.
pub struct Follower {
    log: PathBuf,
    watch: Watch,
}

impl Follower {
    /// Begins to watch. The log need not exist yet; its directory must.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn new(log: impl Into<PathBuf>) -> io::Result<Self> {
        let log = log.into();
        Ok(Self { watch: Watch::new(&log)?, log })
    }

    /// Copies the log from its beginning until the engine closes it, or `ended`
    /// is cancelled, which says that the container has ended, and nothing more
    /// comes. Calls `closed` once at the end: usually the first sign that the
    /// container has ended.
    ///
    /// # Errors
    /// When the log cannot be read or the sink not be written.
    pub async fn run(self, sink: &mut impl Lines, ended: &CancellationToken, closed: impl FnOnce()) -> io::Result<()> {
        let mut reader = None;
        loop {
            // In this order: what was written before the log was closed is still read.
            let over = self.watch.closed()? || (ended.is_cancelled() && !self.watch.wait(LAST_LINES).await?);
            if reader.is_none() {
                reader = Reader::open_first(&self.log).await.ok();
            }
            if let Some(reader) = &mut reader {
                reader.drain(sink).await?;
                while let Some((path, number)) = reader.place.next(&self.log) {
                    reader.drain(sink).await?; // what came before it was put aside
                    reader.turn(&path, number).await?;
                    reader.drain(sink).await?;
                }
            }
            if over {
                closed();
                return Ok(());
            }
            tokio::select! {
                changed = self.watch.wait(RELIST) => drop(changed?),
                () = ended.cancelled() => {}
            }
        }
    }
}

/// Reads lines of a file that may still grow, and then of the next one.
struct Reader {
    file: BufReader<File>,
    line: Vec<u8>,
    place: Place,
}

impl Reader {
    /// Opens the oldest file of a log.
    async fn open_first(log: &Path) -> io::Result<Self> {
        match aside(log).first() {
            Some(&number) => Self::open(&numbered(log, number), number).await,
            None => Self::open(log, 1).await,
        }
    }

    async fn open(path: &Path, number: u64) -> io::Result<Self> {
        let file = File::open(path).await?;
        let place = Place::new(&file.metadata().await?, number);
        Ok(Self { file: BufReader::with_capacity(PIECE, file), line: Vec::new(), place })
    }

    /// Goes on to the next file; a line that was begun ends there.
    async fn turn(&mut self, path: &Path, number: u64) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        *self = Self { line, ..Self::open(path, number).await? };
        Ok(())
    }

    /// Hands out all complete lines; the beginning of another one is kept.
    async fn drain(&mut self, sink: &mut impl Lines) -> io::Result<()> {
        while self.file.read_until(b'\n', &mut self.line).await? > 0 {
            if self.line.len() > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "log line too long"));
            }
            if let Some(line) = self.line.strip_suffix(b"\n") {
                if let Some(entry) = parse(line) {
                    sink.put(&entry).await?;
                }
                self.line.clear();
            }
        }
        sink.flush().await
    }
}

/// inotify(7) on the directory of a log, as the log itself may not exist yet.
struct Watch {
    inotify: AsyncFd<sys::Descriptor>,
    name: std::ffi::OsString,
    closed: AtomicBool,
}

impl Watch {
    fn new(log: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(log.parent().unwrap_or(Path::new("/")), events)?;
        Ok(Self {
            inotify: sys::register(inotify)?,
            name: log.file_name().unwrap_or_default().to_owned(),
            closed: AtomicBool::new(false),
        })
    }

    /// Takes what happened; whether anything did.
    fn take(&self) -> io::Result<bool> {
        match self.inotify.get_ref().inotify().read_events() {
            Ok(events) => {
                let ours = |event: &nix::sys::inotify::InotifyEvent| event.name.as_ref() == Some(&self.name);
                let close =
                    |event: &nix::sys::inotify::InotifyEvent| event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE);
                if events.iter().any(|event| ours(event) && close(event)) {
                    self.closed.store(true, Ordering::Relaxed);
                }
                Ok(true)
            }
            Err(nix::errno::Errno::EAGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the engine has closed the log.
    fn closed(&self) -> io::Result<bool> {
        self.take()?;
        Ok(self.closed.load(Ordering::Relaxed))
    }

    /// Waits for an event; `false` when there was none in time. Cancel-safe.
    async fn wait(&self, limit: Duration) -> io::Result<bool> {
        let ready = async {
            loop {
                let mut guard = self.inotify.readable().await?;
                if self.take()? {
                    return Ok(true);
                }
                guard.clear_ready();
            }
        };
        tokio::time::timeout(limit, ready).await.unwrap_or(Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn lines_are_read() {
        for (line, want) in [
            ("t stdout F hello world", Some((Stream::Stdout, "hello world", true))),
            ("t stderr P part", Some((Stream::Stderr, "part", false))),
            ("t stdout F ", Some((Stream::Stdout, "", true))),
            ("t stdout F:x tagged", Some((Stream::Stdout, "tagged", true))),
            ("t stdout", None),
            ("t stdin F x", None),
            ("t stdout X x", None),
            ("", None),
        ] {
            let found = parse(line.as_bytes());
            let found = found.map(|entry| (entry.stream, std::str::from_utf8(entry.text).expect("text"), entry.ends));
            assert_eq!(found, want, "{line}");
        }
    }

    #[tokio::test]
    async fn partial_lines_are_joined_and_prefixed_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("0.log");
        fs::write(&log, "t stdout P ab\nt stderr F err\nt stdout F cd\nt stdout P ef\n").expect("write");
        let mut sink = Sink::new(Vec::new(), Vec::new(), "> ");
        copy(&log, &mut sink).await.expect("copy");
        assert_eq!(String::from_utf8_lossy(&sink.stdout), "> abcd\n> ef");
        assert_eq!(String::from_utf8_lossy(&sink.stderr), "> err\n");
    }

    #[tokio::test]
    async fn a_log_is_followed_until_it_is_closed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("0.log");
        let mut sink = Sink::new(Vec::new(), Vec::new(), "");
        let never = CancellationToken::new();
        let write = async {
            tokio::task::yield_now().await;
            let mut file = fs::File::create(&log).expect("create");
            for n in 0..100 {
                writeln!(file, "t stdout F {n}").expect("write");
                tokio::task::yield_now().await;
            }
        };
        let mut told = false;
        let follower = Follower::new(&log).expect("watch");
        let (followed, ()) = tokio::join!(follower.run(&mut sink, &never, || told = true), write);
        followed.expect("follow");
        assert!(told);
        assert_eq!(String::from_utf8_lossy(&sink.stdout).lines().count(), 100);
    }

    #[tokio::test]
    async fn files_put_aside_are_read_in_order() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("0.log");
        for (number, text) in [(2, "two"), (10, "ten"), (9, "nine")] {
            fs::write(numbered(&log, number), format!("t stdout F {text}\n")).expect("write");
        }
        fs::write(&log, "t stdout F now\n").expect("write");
        let mut sink = Sink::new(Vec::new(), Vec::new(), "");
        copy(&log, &mut sink).await.expect("copy");
        assert_eq!(String::from_utf8_lossy(&sink.stdout), "two\nnine\nten\nnow\n");
    }

    #[tokio::test]
    async fn a_container_that_wrote_nothing_ends_the_following() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ended = CancellationToken::new();
        ended.cancel();
        let mut sink = Sink::new(Vec::new(), Vec::new(), "");
        let follower = Follower::new(dir.path().join("0.log")).expect("watch");
        follower.run(&mut sink, &ended, || ()).await.expect("follow");
        assert!(sink.stdout.is_empty());
    }
}
