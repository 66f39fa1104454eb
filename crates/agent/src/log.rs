//! JSON log lines, to the console or to whoever connects to the log port.
//!
//! Lines go through a bounded queue to one thread: a serial console takes
//! milliseconds for a line under emulation, and no request may wait for that. When
//! the queue is full, lines are dropped and counted rather than waited for.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        socket::{setsockopt, sockopt::SendTimeout},
        time::{TimeVal, TimeValLike},
    },
};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines waiting for a slow console; about 100 KiB at the usual length.
const QUEUE: usize = 512;
/// A reader that takes no data for this long loses its connection.
const READER_PATIENCE: i64 = 5;
/// How long leaving the agent waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

enum Item {
    Line(Vec<u8>),
    Reader(File),
    Flush(SyncSender<()>),
}

/// The way into the log. Clones share one queue.
#[derive(Clone)]
pub struct Log {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Starts the writing thread and makes this log the process's own.
    ///
    /// # Errors
    /// When no thread can be started or another log was installed before.
    pub fn install(level: LevelFilter) -> io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE);
        let log = Self { queue, dropped: Arc::default() };
        let dropped = Arc::clone(&log.dropped);
        std::thread::Builder::new()
            .name("log".into())
            .stack_size(64 << 10)
            .spawn(move || write_all(&items, &dropped, io::stdout()))?;
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_max_level(level)
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
        Ok(log)
    }

    /// Hands the stream to every reader that connects to vsock `port`, the newest
    /// taking over, until the listener fails. Until the first one connects and
    /// after the last one left, lines go to the console.
    ///
    /// # Errors
    /// When the port cannot be bound or stops accepting.
    pub async fn serve(&self, port: u32) -> io::Result<()> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
        loop {
            let (stream, _) = listener.accept().await?;
            let reader = blocking(File::from(stream.as_fd().try_clone_to_owned()?))?;
            // A full queue means the console is far behind; the reader may retry.
            let _ = self.queue.try_send(Item::Reader(reader));
        }
    }

    /// Waits, for a bounded time, until everything logged so far is written.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            // An error means the writer is stuck or gone; leaving is more important.
            let _ = written.recv_timeout(LAST_LINES);
        }
    }

    fn push(&self, line: &[u8]) {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Makes writes to an accepted connection block, but not for ever.
fn blocking(file: File) -> io::Result<File> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    setsockopt(&file, SendTimeout, &TimeVal::seconds(READER_PATIENCE))?;
    Ok(file)
}

fn write_all(items: &Receiver<Item>, dropped: &AtomicU64, mut console: impl Write) {
    let mut reader: Option<File> = None;
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let note = format!("{{\"level\":\"WARN\",\"message\":\"log lines dropped\",\"lines\":{lost}}}\n");
                    write_line(&mut reader, &mut console, note.as_bytes());
                }
                write_line(&mut reader, &mut console, &line);
            }
            Item::Reader(file) => reader = Some(file),
            // Nobody waits any more once the time for it is up.
            Item::Flush(done) => drop(console.flush().map(|()| done.try_send(()))),
        }
    }
}

/// Writes to the reader if there is one that still listens, else to the console.
/// A console that fails has nowhere to report it.
fn write_line(reader: &mut Option<File>, console: &mut impl Write, line: &[u8]) {
    if let Some(file) = reader {
        if file.write_all(line).is_ok() {
            return;
        }
        *reader = None;
    }
    let _ = console.write_all(line);
}

/// One event on its way into the queue; the formatter writes it in one piece.
pub struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::{fd::OwnedFd, unix::net::UnixStream},
        sync::Mutex,
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Console(Arc<Mutex<Vec<u8>>>);

    impl Console {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Console {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(size: usize) -> (Log, Receiver<Item>) {
        let (queue, items) = sync_channel(size);
        (Log { queue, dropped: Arc::default() }, items)
    }

    #[test]
    fn a_full_queue_drops_and_says_how_much() {
        let (log, items) = log(2);
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            log.push(line.as_bytes());
        }
        let dropped = Arc::clone(&log.dropped);
        drop(log);
        let console = Console::default();
        write_all(&items, &dropped, console.clone());
        let text = console.text();
        assert!(text.contains("\"lines\":2"), "{text}");
        assert!(text.ends_with("a\nb\n"), "{text}");
    }

    #[test]
    fn a_reader_gets_the_lines_until_it_leaves() {
        let (log, items) = log(16);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        log.queue.send(Item::Reader(blocking(File::from(OwnedFd::from(ours))).unwrap())).unwrap();
        log.push(b"one\n");
        let console = Console::default();
        let writer = std::thread::spawn({
            let (console, dropped) = (console.clone(), Arc::clone(&log.dropped));
            move || write_all(&items, &dropped, console)
        });
        let mut seen = [0; 4];
        theirs.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"one\n");
        drop(theirs);
        log.push(b"two\n");
        log.flush();
        assert_eq!(console.text(), "two\n");
        drop(log);
        writer.join().unwrap();
    }
}
