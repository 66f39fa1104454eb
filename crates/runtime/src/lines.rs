//! Lines of text from QEMU, the guest and daemons, which may send anything, in any amount.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Lines kept for error messages.
const KEPT: usize = 64;
/// Longest line kept, in bytes; the rest of a longer one is dropped.
pub(crate) const LONGEST: usize = 512;

/// Cuts a stream of bytes into printable lines of bounded length.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    /// Takes the next bytes and hands every finished line to `each`.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < LONGEST {
                    self.line.push(byte);
                }
                continue;
            }
            self.finish(&mut each);
        }
    }

    /// Hands out what is left when the stream has ended.
    pub fn finish(&mut self, mut each: impl FnMut(&str)) {
        let line = printable(&self.line);
        if !line.is_empty() {
            each(&line);
        }
        self.line.clear();
    }
}

/// What of `bytes` can be shown on a terminal or in a log without harm.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().chars().filter(|c| !c.is_control()).collect()
}

/// The last lines of a stream, shared between its reader and error paths.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: Mutex<VecDeque<String>>,
    total: AtomicUsize,
    grown: Notify,
}

impl Tail {
    /// The lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// How many lines there ever were.
    pub fn total(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Waits for a line that contains `text`, one of those kept or a later one.
    pub async fn wait_for(&self, text: &str) {
        loop {
            let grown = self.0.grown.notified();
            if self.lines().iter().any(|line| line.contains(text)) {
                return;
            }
            grown.await;
        }
    }

    pub(crate) fn push(&self, line: &str) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
        drop(lines);
        self.0.total.fetch_add(1, Ordering::Relaxed);
        self.0.grown.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line.to_owned()));
        }
        splitter.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_are_whole_printable_and_bounded() {
        let long = vec![b'x'; LONGEST + 100];
        let rows: &[(&[&[u8]], &[&str])] = &[
            (&[b"one\ntw", b"o\r\n", b"three"], &["one", "two", "three"]),
            (&[b"\n\n"], &[]),
            (&[b"\x1b[31mred\x07\n"], &["[31mred"]),
            (&[b"\xff\n"], &["\u{fffd}"]),
        ];
        for (chunks, want) in rows {
            assert_eq!(split(chunks), *want, "{chunks:?}");
        }
        assert_eq!(split(&[&long, b"\nnext"]), ["x".repeat(LONGEST).as_str(), "next"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let tail = Tail::default();
        (0..KEPT + 5).for_each(|n| tail.push(&n.to_string()));
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].as_str(), tail.total()), (KEPT, "5", KEPT + 5));
    }
}
