//! Events: what happens to pods and the node, for people to read. The same thing
//! said again is counted, not repeated; who says too much is not heard.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, ObjectReference};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pod::Note;

/// Events on their way; more are dropped.
const WAITING: usize = 256;
/// Kinds of events whose repetition is remembered.
const KNOWN: usize = 1024;
/// Different events one object may have in [`WINDOW`].
const BURST: u32 = 50;
const WINDOW: Duration = Duration::from_secs(600);
/// No answer of the API takes longer.
const ANSWER: Duration = Duration::from_secs(10);
/// Who tells, as `kubectl describe` shows it.
const COMPONENT: &str = "osc-node";

/// Something that happened to an object.
#[derive(Clone, Debug)]
struct Happening {
    object: ObjectReference,
    note: Note,
    at: Timestamp,
}

/// Records events. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Happening>,
}

impl Recorder {
    /// Records events of `node` until `stop`; the future does the writing.
    pub fn new(client: Client, node: String, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let write = async move {
            let mut writer = Writer { client, node, known: HashMap::new(), said: BTreeMap::new() };
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    happening = receiver.recv() => match happening { // cancel-safe
                        Some(happening) => writer.write(happening).await,
                        None => break,
                    },
                }
            }
        };
        (Self { sender }, write)
    }

    /// Records what happened to a pod.
    pub fn pod(&self, pod: &core::Pod, note: Note) {
        let meta = &pod.metadata;
        let field = note
            .container
            .as_ref()
            .map(|(name, init)| format!("spec.{}{{{name}}}", if *init { "initContainers" } else { "containers" }));
        self.record(
            ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                field_path: field,
            },
            note,
        );
    }

    /// Records what happened to the node; by convention its name is its identity.
    pub fn node(&self, name: &str, note: Note) {
        let object = ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..Default::default()
        };
        self.record(object, note);
    }

    fn record(&self, object: ObjectReference, note: Note) {
        let happening = Happening { object, note, at: Timestamp::now() };
        if self.sender.try_send(happening).is_err() {
            tracing::debug!("event dropped");
        }
    }
}

/// What makes two events the same: object, field, reason, message.
type Key = (String, String, &'static str, String);

#[derive(Clone, Debug)]
struct Told {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Writer {
    client: Client,
    node: String,
    known: HashMap<Key, Told>,
    /// How many different things an object had to say, and since when.
    said: BTreeMap<String, (Timestamp, u32)>,
}

impl Writer {
    async fn write(&mut self, happening: Happening) {
        let namespace = happening.object.namespace.clone().unwrap_or_else(|| "default".into());
        let events: Api<core::Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = key(&happening);
        if let Some(told) = self.known.get_mut(&key) {
            (told.count, told.last) = (told.count.saturating_add(1), happening.at);
            let seen = json!({"count": told.count, "lastTimestamp": seconds(happening.at)});
            let name = told.name.clone();
            let patch = Patch::Merge(&seen);
            match tokio::time::timeout(ANSWER, events.patch(&name, &PatchParams::default(), &patch)).await {
                Ok(Ok(_)) => return,
                // It may have expired: told anew.
                Ok(Err(_)) | Err(_) => drop(self.known.remove(&key)),
            }
        }
        if !self.may_speak(&key.0, happening.at) {
            return;
        }
        let event = event(&happening, &namespace, &self.node);
        let name = event["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let Ok(event) = serde_json::from_value::<core::Event>(event) else { return };
        match tokio::time::timeout(ANSWER, events.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => self.remember(key, Told { name, count: 1, last: happening.at }),
            Ok(Err(error)) => tracing::debug!(error = %error, "event not recorded"),
            Err(_) => tracing::debug!("event not recorded in time"),
        }
    }

    fn may_speak(&mut self, object: &str, now: Timestamp) -> bool {
        let recent = |since: Timestamp| now.duration_since(since).unsigned_abs() < WINDOW;
        self.said.retain(|_, (since, _)| recent(*since));
        let (_, count) = self.said.entry(object.to_owned()).or_insert((now, 0));
        *count = count.saturating_add(1);
        *count <= BURST
    }

    fn remember(&mut self, key: Key, told: Told) {
        if self.known.len() >= KNOWN {
            let oldest = self.known.iter().min_by_key(|(_, told)| told.last).map(|(key, _)| key.clone());
            oldest.map(|key| self.known.remove(&key));
        }
        self.known.insert(key, told);
    }
}

fn key(happening: &Happening) -> Key {
    let object = &happening.object;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&object.uid), text(&object.field_path), happening.note.reason, happening.note.message.clone())
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn event(happening: &Happening, namespace: &str, node: &str) -> Value {
    let object = &happening.object;
    let name = object.name.as_deref().unwrap_or_default();
    let at = seconds(happening.at);
    let message: String = happening.note.message.chars().take(1024).collect();
    json!({
        "metadata": {"name": format!("{name}.{:x}", happening.at.as_nanosecond()), "namespace": namespace},
        "involvedObject": object,
        "reason": happening.note.reason,
        "message": message,
        "type": if happening.note.warning { "Warning" } else { "Normal" },
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(message: &str) -> Happening {
        let object = ObjectReference { name: Some("p".into()), uid: Some("u".into()), ..Default::default() };
        let at = "2026-01-01T00:00:00.5Z".parse().expect("time");
        Happening { object, note: Note::pod(true, "BackOff", message), at }
    }

    #[test]
    fn an_event_has_what_describe_shows() {
        let event = event(&happening("m"), "n", "node1");
        let typed: core::Event = serde_json::from_value(event.clone()).expect("an event");
        assert_eq!((typed.count, typed.type_.as_deref()), (Some(1), Some("Warning")));
        assert_eq!(event["firstTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(typed.involved_object.uid.as_deref(), Some("u"));
    }

    #[test]
    fn only_the_same_counts_as_the_same() {
        assert_eq!(key(&happening("m")), key(&happening("m")));
        assert_ne!(key(&happening("m")), key(&happening("other")));
    }
}
