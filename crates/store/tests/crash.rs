//! Processes that write and are killed, or have no space left. The test starts itself as that process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use common::{key, open, text};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use osc_store::{Change, Expect, Key, OpenError, Options, Prefix, Revision, Store, WriteError};

const DIR: &str = "OSC_STORE_TEST_DIR";
const ROUNDS: usize = 50;
const WRITERS: usize = 6;

fn options() -> Options {
    Options { history: 5000, history_bytes: 4 << 20, cache_bytes: 1 << 20, ..Options::default() }
}

/// The value of write number `n` of a key: long, and every part of it tells which it is.
fn value(revision: Revision, n: u64) -> Bytes {
    Bytes::from(format!("{revision} {n} ") + &format!("{n},").repeat(400))
}

/// Revision and number of a value, which must be whole.
fn parse(bytes: &Bytes) -> (u64, u64) {
    let mut words = text(bytes).split(' ');
    let (revision, n) = (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap());
    assert_eq!(*bytes, value(Revision::new(revision), n), "half a value");
    (revision, n)
}

/// In the process that is killed: writes without end, and tells each write that was acknowledged.
async fn write_for_ever(dir: &Path) {
    let store = open(dir, options());
    let mut writers = tokio::task::JoinSet::<()>::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let pair = [key("left", &writer.to_string()), key("right", &writer.to_string())];
            let mut n = store.get(&pair[0]).unwrap().map_or(0, |entry| parse(&entry.value).1);
            loop {
                n += 1;
                let change = |key: &Key| Change::put(key.clone(), Expect::Any, move |revision| value(revision, n));
                let done = store.write(pair.iter().map(change).collect()).await.unwrap();
                println!("ack {} {writer} {n}", done.revision);
            }
        });
    }
    writers.join_all().await;
}

/// What a killed process has acknowledged: number and revision of the last write of each writer.
type Acks = HashMap<String, (u64, u64)>;

fn start(test: &str, dir: &Path, command: &mut Command) -> Child {
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn kill_at(child: &mut Child, dir: &Path, after: Duration) -> Acks {
    let stdout = child.stdout.take().unwrap();
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            sender.send(line).unwrap();
        }
    });
    let mut acks = Acks::new();
    let mut note = |line: String| {
        // The test harness writes to the same pipe; a line cut by the kill acknowledges nothing.
        let words: Vec<_> = line.split(' ').collect();
        let Some(at) = words.iter().position(|word| *word == "ack") else { return false };
        let &[revision, writer, n] = &words[at + 1..] else { return false };
        acks.insert(writer.to_owned(), (n.parse().unwrap(), revision.parse().unwrap()));
        true
    };
    while !note(lines.recv_timeout(Duration::from_secs(20)).unwrap()) {}
    let busy = Store::open(dir, options()).err().expect("must not open");
    assert!(matches!(busy, OpenError::InUse { owner: Some(pid), .. } if pid == child.id()), "{busy:?}");
    let deadline = std::time::Instant::now() + after;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
        note(line);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    lines.try_iter().for_each(|line| {
        note(line);
    });
    acks
}

/// Opens what a killed process left and compares it with what it had acknowledged.
async fn check(dir: &Path, acks: &Acks, before: Revision) -> Revision {
    let store = open(dir, options());
    let revision = store.revision().unwrap();
    assert!(revision > before);
    let mut written = HashMap::new();
    // A watch of the last few hundred: what is older has been looked at, or is compacted.
    let mut watch = store
        .watch(&Prefix::resource("", "pods").unwrap(), before.max(Revision::new(revision.get().saturating_sub(500))))
        .unwrap();
    let mut expected = watch.progress().next();
    while watch.progress() < revision {
        let event = watch.next().await.unwrap();
        let (carried, n) = parse(&event.value);
        assert_eq!((event.revision, carried), (expected, expected.get()), "gap in the log");
        expected = expected.next();
        written.insert(event.revision.get(), (event.key.name().to_owned(), n));
    }
    for (writer, &(n, acked)) in acks {
        let left = store.get(&key("left", writer)).unwrap().expect("acknowledged object is gone");
        let right = store.get(&key("right", writer)).unwrap().expect("acknowledged object is gone");
        let (revision, found) = parse(&left.value);
        assert_eq!(left.revision.get(), revision);
        assert_eq!(parse(&right.value), (revision + 1, found), "half a write");
        // A write that was under way may be there as well, no more.
        assert!(found == n || found == n + 1, "writer {writer}: {found} is there, {n} was acknowledged");
        assert!(found > n || right.revision.get() == acked);
        if let Some(event) = written.get(&acked) {
            assert_eq!(*event, (writer.clone(), n));
        }
    }
    store.close().await;
    revision
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(DIR).map(PathBuf::from)
}

#[test]
fn no_acknowledged_write_is_lost_when_killed() {
    if let Some(dir) = child_dir() {
        return runtime().block_on(write_for_ever(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut revision = Revision::ZERO;
    for round in 0..ROUNDS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = start("no_acknowledged_write_is_lost_when_killed", dir.path(), &mut command);
        // From right at the first write to some hundred later, in no particular order.
        let after = Duration::from_micros((round as u64 * 7919) % 60_000);
        let acks = kill_at(&mut child, dir.path(), after);
        revision = runtime().block_on(check(dir.path(), &acks, revision));
    }
}

/// In a process whose files may not grow beyond some size: what happens when the disk is full, and after.
async fn fill_up(dir: &Path) {
    let store = open(dir, Options { history: 100_000, cache_bytes: 1 << 20, ..Options::default() });
    let mut watch = store.watch(&Prefix::resource("", "pods").unwrap(), Revision::ZERO).unwrap();
    let write = |n: u64| {
        store.write(vec![Change::put(key("a", &n.to_string()), Expect::Any, move |revision| value(revision, n))])
    };
    let mut n = 0;
    let error = loop {
        match write(n).await {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
    };
    assert!(n > 100 && matches!(error, WriteError::Storage(_)), "{n} {error:?}");
    // It stays full, and what was acknowledged stays there.
    assert!(write(n).await.is_err());
    for n in 0..n {
        let read = store.get(&key("a", &n.to_string()));
        assert!(read.as_ref().is_ok_and(|entry| entry.as_ref().is_some_and(|e| parse(&e.value).1 == n)), "{read:?}");
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    let done = write(n).await.unwrap();
    let mut expected = Revision::ZERO;
    while expected < done.revision {
        expected = expected.next();
        assert_eq!(watch.next().await.unwrap().revision, expected);
    }
    store.close().await;
}

#[test]
fn a_full_disk_fails_writes_until_there_is_space_again() {
    if let Some(dir) = child_dir() {
        return runtime().block_on(fill_up(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // The limit is on the size of files; without the trap its signal would end the process.
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 6000; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let child = start("a_full_disk_fails_writes_until_there_is_space_again", dir.path(), &mut command);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
