//! Following the changes of a collection.
//!
//! ```text
//!  start ─► [ADDED for what is there] ─► [BOOKMARK initial-events-end] ─► changes … BOOKMARK … ─► time is up
//!                                                                           └─► ERROR (410) and end
//! ```
//!
//! Every event is one line of JSON, sent at once. A version that is too old is an
//! event too: clients begin anew only when told inside the stream.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use http::Response;
use osc_api::status::Status;
use osc_store::{Entry, Event, EventKind, HistoryError, Key, Page, Revision, Watch};
use rand::Rng;
use serde_json::{Value, json};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep},
};

use super::selection::Selection;
use crate::{
    api::Api,
    call::Call,
    objects, render,
    request::{
        Form, Query,
        query::{VersionMatch, invalid_option},
    },
    resources::Served,
    response::{self, Body, BoxError},
};

/// Pause between bookmarks.
const BOOKMARK_PAUSE: Duration = Duration::from_secs(60);
/// A watch that names no time-out lasts between this and twice this.
const DEFAULT_LIFE: Duration = Duration::from_secs(30 * 60);
/// Longest life a client may ask for.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Objects read at once for the first events.
const PAGE: usize = 500;

/// `GET` with `watch=true`.
pub(super) async fn watch(call: &Call) -> Result<Response<Body>, Status> {
    let form = call.accept()?.form;
    let selection = Selection::of(call)?;
    let start = start(&call.query)?;
    let place = call.api.load.watch()?;
    let life =
        call.query.timeout()?.filter(|life| !life.is_zero()).map_or_else(default_life, |life| life.min(LONGEST_LIFE));
    let prefix = call.served.prefix(&call.path.namespace)?;
    let (first, after) = match start {
        Start::Everything { marked, at_least } => {
            let newest = call.api.store.revision().map_err(|error| objects::unreadable(&error))?;
            if at_least > newest.get() {
                return Err(objects::too_new(at_least, newest.get()));
            }
            (Some(First { at: newest, last: None, marked }), newest)
        }
        Start::After(version) => (None, Revision::new(version)),
        Start::Now => (None, call.api.store.revision().map_err(|error| objects::unreadable(&error))?),
    };
    let feed = match first {
        Some(_) => None,
        None => Some(call.api.store.watch(&prefix, after)),
    };
    let follow = Follow {
        api: Arc::clone(&call.api),
        served: Arc::clone(&call.served),
        prefix,
        selection,
        form,
        query: call.query.clone(),
        bookmarks: call.query.flag("allowWatchBookmarks"),
        first,
        feed,
        told: after,
        columns_sent: false,
        end: Box::pin(sleep(life)),
        next_bookmark: Instant::now() + BOOKMARK_PAUSE,
        _place: place,
    };
    Ok(response::stream("application/json", follow.lines()))
}

/// Where a watch begins.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// With what is there now; `marked` ends it with a bookmark.
    Everything { marked: bool, at_least: u64 },
    /// After this version.
    After(u64),
    /// With the next change.
    Now,
}

fn start(query: &Query) -> Result<Start, Status> {
    let version = query.resource_version()?;
    let initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
    let matching = query.version_match()?;
    let forbidden = |why: &str| {
        Err(invalid_option(
            "resourceVersionMatch",
            query.get("resourceVersionMatch").unwrap_or_default(),
            "Forbidden",
            why,
        ))
    };
    match (initial, matching) {
        (None, Some(_)) => {
            forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        }
        (Some(_), None) => forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        (Some(_), Some(VersionMatch::Exact)) => {
            forbidden("sendInitialEvents requires resourceVersionMatch to be NotOlderThan")
        }
        (Some(true), Some(VersionMatch::NotOlderThan)) if !query.flag("allowWatchBookmarks") => {
            forbidden("sendInitialEvents requires allowWatchBookmarks")
        }
        (Some(true), _) => Ok(Start::Everything { marked: true, at_least: version.unwrap_or(0) }),
        (_, _) => Ok(match version {
            None | Some(0) if initial.is_none() => Start::Everything { marked: false, at_least: 0 },
            None | Some(0) => Start::Now,
            Some(version) => Start::After(version),
        }),
    }
}

fn default_life() -> Duration {
    // Spread, so that watches begun together do not all come back together.
    DEFAULT_LIFE.mul_f64(1.0 + rand::rng().random::<f64>())
}

/// The objects there at the start, still to be sent.
struct First {
    /// The moment they are told of: that of the request.
    at: Revision,
    last: Option<Key>,
    marked: bool,
}

/// One watch.
struct Follow {
    api: Arc<Api>,
    served: Arc<Served>,
    prefix: osc_store::Prefix,
    selection: Selection,
    form: Form,
    query: Query,
    bookmarks: bool,
    first: Option<First>,
    feed: Option<Result<Watch, HistoryError>>,
    /// Every change up to here was sent or is of no interest.
    told: Revision,
    columns_sent: bool,
    end: Pin<Box<Sleep>>,
    next_bookmark: Instant,
    _place: OwnedSemaphorePermit,
}

/// What happens next in a watch.
enum Step {
    Lines(Vec<u8>),
    /// A last line, then the end.
    Last(Vec<u8>),
    End,
}

impl Follow {
    fn lines(self) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
        stream::unfold(Some(self), |follow| async move {
            let mut follow = follow?;
            loop {
                match follow.step().await {
                    Step::Lines(lines) if lines.is_empty() => {}
                    Step::Lines(lines) => return Some((Ok(lines.into()), Some(follow))),
                    Step::Last(line) => return Some((Ok(line.into()), None)),
                    Step::End => return None,
                }
            }
        })
    }

    async fn step(&mut self) -> Step {
        if let Some(first) = self.first.take() {
            return match self.initial(first).await {
                Ok(lines) => Step::Lines(lines),
                Err(status) => self.failed(&status),
            };
        }
        let mut feed = match self.feed.take() {
            Some(Ok(feed)) => feed,
            Some(Err(failure)) => return self.failed(&objects::history(&failure)),
            None => match self.api.store.watch(&self.prefix, self.told) {
                Ok(feed) => feed,
                Err(failure) => return self.failed(&objects::history(&failure)),
            },
        };
        tokio::select! {
            () = self.api.stop.cancelled() => Step::End,
            () = self.end.as_mut() => Step::End,
            () = tokio::time::sleep_until(self.next_bookmark) => {
                self.told = self.told.max(feed.progress());
                self.next_bookmark = Instant::now() + BOOKMARK_PAUSE;
                self.feed = Some(Ok(feed));
                Step::Lines(if self.bookmarks { self.bookmark(false) } else { Vec::new() })
            }
            event = feed.next() => match event { // cancel-safe
                Ok(event) => {
                    self.feed = Some(Ok(feed));
                    self.told = event.revision;
                    match self.event(&event) {
                        Ok(lines) => Step::Lines(lines),
                        Err(status) => self.failed(&status),
                    }
                }
                Err(failure) => self.failed(&objects::history(&failure)),
            },
        }
    }

    fn failed(&self, status: &Status) -> Step {
        if self.api.stop.is_cancelled() {
            // The store closes with the server; that is an end like any other.
            return Step::End;
        }
        Step::Last(line("ERROR", &status.to_value()))
    }

    /// ADDED for a page of what is there.
    async fn initial(&mut self, first: First) -> Result<Vec<u8>, Status> {
        let page = Page { limit: Some(PAGE), after: first.last.clone(), at: Some(first.at) };
        let listing = self.api.store.list(&self.prefix, page).await.map_err(|error| objects::history(&error))?;
        let mut lines = Vec::new();
        for entry in &listing.entries {
            self.added(entry, &mut lines)?;
        }
        self.told = listing.revision;
        if listing.remaining > 0 {
            let last = listing.entries.last().map(|entry| entry.key.clone());
            self.first = Some(First { at: listing.revision, last, marked: first.marked });
        } else if first.marked {
            lines.extend(self.bookmark(true));
        }
        Ok(lines)
    }

    fn added(&mut self, entry: &Entry, lines: &mut Vec<u8>) -> Result<(), Status> {
        if self.selection.is_everything() || self.selection.matches(&json_of(&entry.value)?) {
            lines.extend(self.object("ADDED", &entry.value)?);
        }
        Ok(())
    }

    /// What a change means to this client: selectors make objects appear and
    /// disappear that merely changed.
    fn event(&mut self, event: &Event) -> Result<Vec<u8>, Status> {
        let (existed, exists) = (event.previous.is_some(), event.kind == EventKind::Put);
        let (before, now) = if self.selection.is_everything() {
            (existed, exists)
        } else {
            let outlines = self.api.outlines.of(event, &self.served)?;
            let wanted = |outline: &Option<Value>| outline.as_ref().is_some_and(|o| self.selection.matches(o));
            (wanted(&outlines.before), wanted(&outlines.now))
        };
        let Some(kind) = transition(before, now) else { return Ok(Vec::new()) };
        if kind == "DELETED" && event.kind == EventKind::Put {
            // It only left the selection: the last state in it, at the version of the change.
            let previous = event.previous.as_deref().unwrap_or_default();
            let mut last = json_of(previous)?;
            last["metadata"]["resourceVersion"] = event.revision.to_string().into();
            return self.object(kind, &serde_json::to_vec(&last).unwrap_or_default());
        }
        self.object(kind, &event.value)
    }

    fn object(&mut self, kind: &str, stored: &[u8]) -> Result<Vec<u8>, Status> {
        if self.form == Form::Whole && objects::is_stored_as_served(&self.served) {
            let mut line = Vec::with_capacity(stored.len() + 40);
            line.extend_from_slice(b"{\"type\":\"");
            line.extend_from_slice(kind.as_bytes());
            line.extend_from_slice(b"\",\"object\":");
            line.extend_from_slice(stored);
            line.extend_from_slice(b"}\n");
            return Ok(line);
        }
        let object = objects::decode(&self.served, stored)?;
        let mut shown = render::object(&self.served, self.form, object, &self.query)?;
        if matches!(self.form, Form::Table(_)) {
            if self.columns_sent
                && let Some(table) = shown.as_object_mut()
            {
                table.insert("columnDefinitions".into(), json!([]));
            }
            self.columns_sent = true;
        }
        Ok(line(kind, &shown))
    }

    fn bookmark(&self, end_of_initial: bool) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": self.told.to_string(), "creationTimestamp": null});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Whole => json!({
                "kind": self.served.resource.kind, "apiVersion": self.served.api_version, "metadata": metadata,
            }),
            Form::Metadata(version) => render::partial(version, metadata),
            Form::Table(version) => self.served.printer.table(version, metadata, Vec::new(), false),
        };
        line("BOOKMARK", &object)
    }
}

/// The type of event a client sees, given whether the object was and is in its selection.
fn transition(before: bool, now: bool) -> Option<&'static str> {
    match (before, now) {
        (false, false) => None,
        (false, true) => Some("ADDED"),
        (true, true) => Some("MODIFIED"),
        (true, false) => Some("DELETED"),
    }
}

pub(super) fn json_of(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(|_| Status::internal("a stored object cannot be read"))
}

fn line(kind: &str, object: &Value) -> Vec<u8> {
    let mut line = serde_json::to_vec(&json!({"type": kind, "object": object})).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_begin_where_they_are_told() {
        let all = |marked, at_least| Ok(Start::Everything { marked, at_least });
        let rows = [
            ("", all(false, 0)),
            ("resourceVersion=0", all(false, 0)),
            ("resourceVersion=7", Ok(Start::After(7))),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", all(true, 0)),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1&resourceVersion=9",
                all(true, 9),
            ),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=9", Ok(Start::After(9))),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", Ok(Start::Now)),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=9", Err(422)),
            ("sendInitialEvents=true", Err(422)),
            ("sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=3&allowWatchBookmarks=true", Err(422)),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", Err(422)),
            ("resourceVersion=abc", Err(400)),
        ];
        for (given, want) in rows {
            let got = start(&Query::parse(given).unwrap()).map_err(|status| status.code);
            assert_eq!(got, want, "{given}");
        }
    }

    #[test]
    fn selections_turn_changes_into_comings_and_goings() {
        let rows = [
            (false, false, None),
            (false, true, Some("ADDED")),
            (true, true, Some("MODIFIED")),
            (true, false, Some("DELETED")),
        ];
        for (before, now, want) in rows {
            assert_eq!(transition(before, now), want, "{before} {now}");
        }
    }
}
