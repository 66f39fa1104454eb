//! Events that people read in `kubectl describe`.
//!
//! The recorder never slows a controller down: events go through a bounded
//! channel and are dropped when it is full. The same event again only raises
//! `count`; a chatty object is silenced after a burst.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events waiting to be written.
const WAITING: usize = 512;
/// Different events remembered in order to count repetitions.
const REMEMBERED: usize = 2048;
/// Events about one object before it is silenced.
const BURST: f64 = 25.0;
/// A silenced object earns one more event in this time.
const REFILL: Duration = Duration::from_secs(300);
/// Limit of one write.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Longest message the API accepts.
const MESSAGE_LIMIT: usize = 1024;

/// Importance of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    Normal,
    Warning,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    component: &'static str,
    uid: String,
    kind: String,
    name: String,
    level: Level,
    reason: &'static str,
    message: String,
}

struct Note {
    regarding: ObjectReference,
    identity: Identity,
}

/// Writes events in the name of one component; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    component: &'static str,
    notes: mpsc::Sender<Note>,
}

impl Recorder {
    /// A recorder and the task that writes.
    pub(crate) fn new(client: Client, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (notes, inbox) = mpsc::channel(WAITING);
        (Self { component: "osc", notes }, write(client, inbox, stop))
    }

    /// The same recorder speaking for `component`.
    pub(crate) fn of(&self, component: &'static str) -> Self {
        Self { component, notes: self.notes.clone() }
    }

    pub(crate) fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &'static str, message: String) {
        self.note(reference(object), Level::Normal, reason, message);
    }

    pub(crate) fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &'static str, message: String) {
        self.note(reference(object), Level::Warning, reason, message);
    }

    /// Records an event about anything.
    pub(crate) fn note(&self, regarding: ObjectReference, level: Level, reason: &'static str, mut message: String) {
        if message.len() > MESSAGE_LIMIT {
            let cut = (0..=MESSAGE_LIMIT - 3).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
            message.push_str("...");
        }
        let identity = Identity {
            component: self.component,
            uid: regarding.uid.clone().unwrap_or_default(),
            kind: regarding.kind.clone().unwrap_or_default(),
            name: regarding.name.clone().unwrap_or_default(),
            level,
            reason,
            message,
        };
        if self.notes.try_send(Note { regarding, identity }).is_err() {
            tracing::debug!(reason, "event dropped: too many are waiting");
        }
    }
}

/// Reference of an object for an event.
pub(crate) fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// What happens with one event.
#[derive(Debug, PartialEq)]
enum Verdict {
    Create { name: String },
    Count { name: String, count: i32 },
    Silence,
}

struct Seen {
    event: String,
    count: i32,
}

/// Remembers what was said, about whom, and how often.
#[derive(Default)]
struct Memory {
    seen: HashMap<Identity, Seen>,
    order: VecDeque<Identity>,
    tokens: HashMap<String, (f64, Instant)>,
}

impl Memory {
    fn judge(&mut self, identity: &Identity, now: Instant, stamp: u128) -> Verdict {
        if !self.may_speak(identity, now) {
            return Verdict::Silence;
        }
        if let Some(seen) = self.seen.get_mut(identity) {
            seen.count = seen.count.saturating_add(1);
            return Verdict::Count { name: seen.event.clone(), count: seen.count };
        }
        // The name is unique per object and instant, and short enough for any object name.
        let mut name = identity.name.clone();
        name.truncate(220);
        let event = format!("{}.{stamp:x}", name.trim_end_matches(['.', '-']));
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(identity.clone());
        self.seen.insert(identity.clone(), Seen { event: event.clone(), count: 1 });
        Verdict::Create { name: event }
    }

    fn may_speak(&mut self, identity: &Identity, now: Instant) -> bool {
        if self.tokens.len() > REMEMBERED {
            self.tokens.retain(|_, (_, at)| now.duration_since(*at) < REFILL);
        }
        let whom = format!("{}/{}/{}/{}", identity.component, identity.kind, identity.uid, identity.name);
        let (left, at) = self.tokens.entry(whom).or_insert((BURST, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *at = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }

    fn forget(&mut self, identity: &Identity) {
        if self.seen.remove(identity).is_some() {
            self.order.retain(|known| known != identity);
        }
    }
}

async fn write(client: Client, mut inbox: mpsc::Receiver<Note>, stop: CancellationToken) {
    let mut memory = Memory::default();
    loop {
        let note = tokio::select! {
            () = stop.cancelled() => return,
            note = inbox.recv() => note,
        };
        let Some(note) = note else { return };
        let now = Timestamp::now();
        let stamp = u128::try_from(now.as_nanosecond()).unwrap_or(0);
        let verdict = memory.judge(&note.identity, Instant::now(), stamp);
        let sent = tokio::time::timeout(WRITE_LIMIT, send(&client, &note, verdict, now)).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // Most often the namespace or the earlier event is gone.
                memory.forget(&note.identity);
                tracing::debug!(error = %error, reason = note.identity.reason, "event not written");
            }
            Err(_) => tracing::debug!(reason = note.identity.reason, "event not written in time"),
        }
    }
}

async fn send(client: &Client, note: &Note, verdict: Verdict, now: Timestamp) -> Result<(), kube::Error> {
    let namespace = note.regarding.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    match verdict {
        Verdict::Silence => Ok(()),
        Verdict::Count { name, count } => {
            let patch = serde_json::json!({ "count": count, "lastTimestamp": Time(now) });
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    create(&api, note, fresh(&name, now), count, now).await
                }
                other => other.map(|_| ()),
            }
        }
        Verdict::Create { name } => create(&api, note, name, 1, now).await,
    }
}

/// Another name for an event that expired while it was still being counted.
fn fresh(name: &str, now: Timestamp) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{stem}.{:x}", now.as_nanosecond())
}

async fn create(api: &Api<Event>, note: &Note, name: String, count: i32, now: Timestamp) -> Result<(), kube::Error> {
    let identity = &note.identity;
    let namespace = api.namespace().map(str::to_owned);
    let event = Event {
        metadata: ObjectMeta { name: Some(name), namespace, ..ObjectMeta::default() },
        involved_object: note.regarding.clone(),
        reason: Some(identity.reason.into()),
        message: Some(identity.message.clone()),
        type_: Some(identity.level.as_str().into()),
        source: Some(EventSource { component: Some(identity.component.into()), host: None }),
        reporting_component: Some(identity.component.into()),
        count: Some(count),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, message: &str) -> Identity {
        Identity {
            component: "test",
            uid: name.into(),
            kind: "Pod".into(),
            name: name.into(),
            level: Level::Normal,
            reason: "Because",
            message: message.into(),
        }
    }

    #[test]
    fn the_same_event_is_counted_and_a_different_one_is_new() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let Verdict::Create { name } = memory.judge(&identity("p", "one"), now, 1) else { panic!("first is new") };
        assert_eq!(memory.judge(&identity("p", "one"), now, 2), Verdict::Count { name, count: 2 });
        assert!(matches!(memory.judge(&identity("p", "two"), now, 3), Verdict::Create { .. }));
    }

    #[test]
    fn a_chatty_object_is_silenced_and_forgiven_and_others_are_heard() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let spoken = (0..100)
            .filter(|n| memory.judge(&identity("loud", &n.to_string()), now, *n as u128) != Verdict::Silence)
            .count();
        assert_eq!(spoken, BURST as usize);
        assert_ne!(memory.judge(&identity("quiet", "hello"), now, 1), Verdict::Silence);
        assert_ne!(memory.judge(&identity("loud", "again"), now + REFILL, 2), Verdict::Silence);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        let now = Instant::now();
        for n in 0..3 * REMEMBERED {
            memory.judge(&identity(&format!("p{n}"), "x"), now, n as u128);
        }
        assert!(memory.seen.len() <= REMEMBERED && memory.order.len() <= REMEMBERED);
    }
}
