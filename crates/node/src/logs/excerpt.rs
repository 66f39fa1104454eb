//! The part of a log somebody asked for, as one stream of bytes.

use std::{io, path::PathBuf};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Entry, Follower, Lines, PIECE, Stream as Output, copy};

/// Pieces on their way to a slow reader.
const WAITING: usize = 4;

/// What somebody wants of a log.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Goes on until the container ends.
    pub follow: bool,
    /// Only what was written since then.
    pub since: Option<Timestamp>,
    /// Every line begins with the time it was written.
    pub timestamps: bool,
    /// Only so many of the last lines.
    pub tail: Option<u64>,
    /// At most so many bytes.
    pub limit: Option<u64>,
}

/// Reads a log. Following ends once `ended` is cancelled and everything has been
/// read; dropping the stream ends it too. At the end `ended` is cancelled in any
/// case.
///
/// # Errors
/// When the log cannot be read; later failures are the stream's last item.
pub async fn excerpt(
    log: PathBuf,
    selection: Selection,
    ended: CancellationToken,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let skip = match selection.tail {
        Some(tail) => {
            let mut count = Count(0);
            copy(&log, &mut count).await?;
            count.0.saturating_sub(tail)
        }
        None => 0,
    };
    let follower = if selection.follow { Some(Follower::new(&log)?) } else { None };
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut excerpt = Excerpt::new(selection, skip, sender);
    tokio::spawn(async move {
        let _over = ended.clone().drop_guard();
        let gone = excerpt.sender.clone();
        let read = async {
            match follower {
                Some(follower) => follower.run(&mut excerpt, &ended, || ()).await,
                None => copy(&log, &mut excerpt).await,
            }
        };
        let result = tokio::select! {
            result = read => result,
            () = gone.closed() => return,
        };
        match result {
            Err(error) if !is_full(&error) => drop(gone.send(Err(error)).await),
            _ => drop(excerpt.finish().await),
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Lines of a log.
struct Count(u64);

impl Lines for Count {
    async fn put(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.0 += u64::from(entry.ends);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Excerpt {
    selection: Selection,
    /// Lines still to be left out.
    skip: u64,
    /// Bytes that still fit.
    left: u64,
    inside: [bool; 2],
    waiting: BytesMut,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Excerpt {
    fn new(selection: Selection, skip: u64, sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        let left = selection.limit.unwrap_or(u64::MAX);
        Self { selection, skip, left, inside: [false; 2], waiting: BytesMut::new(), sender }
    }

    fn is_wanted(&self, entry: &Entry<'_>) -> bool {
        let written = || entry.time.parse::<Timestamp>().ok();
        self.selection.since.is_none_or(|since| written().is_none_or(|written| written >= since))
    }

    async fn finish(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = self.waiting.split().freeze();
        self.sender.send(Ok(piece)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// How reading ends when no more bytes fit.
fn full() -> io::Error {
    io::ErrorKind::WriteZero.into()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WriteZero | io::ErrorKind::BrokenPipe)
}

impl Lines for Excerpt {
    async fn put(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if self.skip > 0 {
            self.skip -= u64::from(entry.ends);
            return Ok(());
        }
        if !self.is_wanted(entry) {
            return Ok(());
        }
        let inside = &mut self.inside[usize::from(entry.stream == Output::Stderr)];
        let begins = !std::mem::replace(inside, !entry.ends);
        let mut line = BytesMut::new();
        if begins && self.selection.timestamps {
            line.extend_from_slice(entry.time.as_bytes());
            line.extend_from_slice(b" ");
        }
        line.extend_from_slice(entry.text);
        if entry.ends {
            line.extend_from_slice(b"\n");
        }
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(line.len());
        self.waiting.extend_from_slice(&line[..fits]);
        self.left -= fits as u64;
        if self.left == 0 {
            return Err(full());
        }
        if self.waiting.len() >= PIECE { self.finish().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.finish().await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, path::Path};

    use futures::TryStreamExt;

    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n\
                       2026-01-01T00:00:02Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    async fn read(log: &Path, selection: Selection) -> String {
        let stream = excerpt(log.to_owned(), selection, CancellationToken::new()).await.expect("log");
        let bytes: Vec<Bytes> = stream.try_collect().await.expect("read");
        String::from_utf8(bytes.concat()).expect("text")
    }

    #[tokio::test]
    async fn a_part_is_selected() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("0.log");
        fs::write(&log, LOG).expect("write");
        let all = Selection::default();
        let since = "2026-01-01T00:00:03Z".parse().expect("time");
        for (selection, want) in [
            (all.clone(), "one\ntwo\nthree\n"),
            (Selection { tail: Some(2), ..all.clone() }, "two\nthree\n"),
            (Selection { tail: Some(0), ..all.clone() }, ""),
            (Selection { tail: Some(9), limit: Some(5), ..all.clone() }, "one\nt"),
            (Selection { since: Some(since), ..all.clone() }, "three\n"),
            (Selection { tail: Some(1), timestamps: true, ..all.clone() }, "2026-01-01T00:00:03Z three\n"),
        ] {
            assert_eq!(read(&log, selection.clone()).await, want, "{selection:?}");
        }
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("0.log");
        fs::write(&log, LOG).expect("write");
        let ended = CancellationToken::new();
        let follow = Selection { follow: true, tail: Some(1), ..Selection::default() };
        let stream = excerpt(log.clone(), follow, ended.clone()).await.expect("log");
        let more = async {
            let mut file = fs::File::options().append(true).open(&log).expect("open");
            writeln!(file, "2026-01-01T00:00:04Z stdout F four").expect("write");
            ended.cancel();
        };
        let (bytes, ()) = tokio::join!(stream.try_collect::<Vec<Bytes>>(), more);
        assert_eq!(bytes.expect("read").concat(), b"three\nfour\n");
    }
}
