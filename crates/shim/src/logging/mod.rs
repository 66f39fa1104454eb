//! Log lines of the shim: to the engine through the `log` pipe of the bundle, and
//! to the journal under the identifiers administrators search for, or to a file
//! in the sandbox directory where there is no journal.
//!
//! Logging never blocks and never fails anything: a line that cannot be written
//! at once is dropped.

mod journal;
mod logfmt;
mod sinks;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Registry,
    layer::{Context, Layer, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use journal::Journal;
use sinks::{LogFile, Pipe};

/// Name journal entries of the shim carry.
const IDENTIFIER: &str = "kata";

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// One event, taken apart.
#[derive(Debug)]
struct Line {
    level: tracing::Level,
    message: String,
    fields: Vec<(&'static str, String)>,
}

/// Where lines go.
#[derive(Debug)]
struct Logger {
    sandbox: String,
    pipe: Option<Pipe>,
    lasting: Lasting,
}

/// The sink that can still be read when the engine is gone.
#[derive(Debug)]
enum Lasting {
    Journal(Journal),
    File(LogFile),
}

/// Starts logging for the shim of `sandbox`, whose bundle is `bundle`; `file` is
/// used where there is no journal.
pub fn start(sandbox: &str, bundle: &Path, file: PathBuf, debug: bool) {
    let lasting = Journal::open().map_or_else(|| Lasting::File(LogFile::new(file)), Lasting::Journal);
    let logger = Logger { sandbox: sandbox.to_owned(), pipe: Pipe::open(&bundle.join("log")).ok(), lasting };
    let (level, handle) = reload::Layer::new(level(debug));
    // A second start, in tests, keeps the first.
    if tracing_subscriber::registry().with(level).with(logger).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Logs debug messages from now on.
pub fn set_debug() {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.modify(|filter| *filter = level(true));
    }
}

fn level(debug: bool) -> LevelFilter {
    if debug { LevelFilter::DEBUG } else { LevelFilter::INFO }
}

impl<S: Subscriber> Layer<S> for Logger {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line { level: *event.metadata().level(), message: String::new(), fields: Vec::new() };
        event.record(&mut line);
        if let Some(pipe) = &self.pipe {
            pipe.write(logfmt::render(&line, &self.sandbox).as_bytes());
        }
        match &self.lasting {
            Lasting::Journal(journal) => journal.send(&line, &self.sandbox),
            Lasting::File(file) => file.write(logfmt::render(&line, &self.sandbox).as_bytes()),
        }
    }
}

impl Line {
    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}
