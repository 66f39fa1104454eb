//! The newest changes, in memory, and who waits for the next.
//!
//! Each change is in two topics: that of its kind and that of its namespace in it. A watch belongs to one topic, so
//! it costs nothing while other objects change. A topic knows up to which revision changes have been dropped from
//! it: a watch that has seen less goes on from disk until it has caught up.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::change::Event;
use crate::key::{Prefix, Revision};

/// The changes kept, and the topics.
pub(crate) struct Feed {
    state: Mutex<State>,
    keep_events: usize,
    keep_bytes: usize,
}

struct State {
    /// All changes up to this one were published.
    head: Revision,
    /// The newest change dropped.
    floor: Revision,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    topics: HashMap<Box<str>, Topic>,
    closed: bool,
}

struct Topic {
    events: VecDeque<Arc<Event>>,
    /// No later change of this topic was dropped.
    dropped: Revision,
    watches: usize,
    /// Rung at each change.
    bell: watch::Sender<()>,
}

/// What there is for a watch that has seen everything up to some revision.
pub(crate) enum News {
    /// The next changes.
    Events(VecDeque<Arc<Event>>),
    /// Nothing up to this revision.
    Nothing(Revision),
    /// More than is kept in memory.
    OnDisk,
    /// Never again anything.
    Closed,
}

impl Feed {
    /// A feed that goes on after `head`.
    pub(crate) fn new(head: Revision, keep_events: usize, keep_bytes: usize) -> Self {
        let state =
            State { head, floor: head, events: VecDeque::new(), bytes: 0, topics: HashMap::new(), closed: false };
        Self { state: Mutex::new(state), keep_events, keep_bytes }
    }

    /// All changes up to this one were published.
    pub(crate) fn head(&self) -> Revision {
        self.state().head
    }

    /// Adds changes, in order, and wakes who waits for them.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.state();
        for event in events {
            state.push(Arc::new(event));
            while state.events.len() > self.keep_events || state.bytes > self.keep_bytes {
                state.drop_oldest();
            }
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for topic in state.topics.values() {
            topic.bell.send_replace(());
        }
    }

    /// Joins a topic. Who does must [leave](Self::leave) it.
    pub(crate) fn join(&self, prefix: &Prefix) -> watch::Receiver<()> {
        let mut state = self.state();
        let topic = state.topic(prefix.as_str());
        topic.watches += 1;
        topic.bell.subscribe()
    }

    /// Leaves a topic.
    pub(crate) fn leave(&self, prefix: &Prefix) {
        let mut state = self.state();
        if let Some(topic) = state.topics.get_mut(prefix.as_str()) {
            topic.watches -= 1;
            if topic.watches == 0 && topic.events.is_empty() {
                state.topics.remove(prefix.as_str());
            }
        }
    }

    /// What happened in a joined topic after a revision, at most `limit` changes.
    pub(crate) fn after(&self, prefix: &Prefix, seen: Revision, limit: usize) -> News {
        let state = self.state();
        if state.closed {
            return News::Closed;
        }
        let Some(topic) = state.topics.get(prefix.as_str()) else { return News::Nothing(seen) };
        if seen < topic.dropped {
            return News::OnDisk;
        }
        let next = topic.events.partition_point(|event| event.revision <= seen);
        if next == topic.events.len() {
            // A list may be newer than what was published yet.
            return News::Nothing(state.head.max(seen));
        }
        News::Events(topic.events.range(next..).take(limit).cloned().collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn topic(&mut self, name: &str) -> &mut Topic {
        let floor = self.floor;
        self.topics.entry(name.into()).or_insert_with(|| Topic {
            events: VecDeque::new(),
            dropped: floor,
            watches: 0,
            bell: watch::Sender::new(()),
        })
    }

    fn push(&mut self, event: Arc<Event>) {
        self.head = event.revision;
        self.bytes += event.size();
        for name in event.key.prefixes() {
            let topic = self.topic(name);
            topic.events.push_back(event.clone());
            if topic.watches > 0 {
                topic.bell.send_replace(());
            }
        }
        self.events.push_back(event);
    }

    fn drop_oldest(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.bytes -= event.size();
        self.floor = event.revision;
        for name in event.key.prefixes() {
            let Some(topic) = self.topics.get_mut(name) else { continue };
            topic.events.pop_front();
            topic.dropped = event.revision;
            if topic.events.is_empty() && topic.watches == 0 {
                self.topics.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::change::EventKind;
    use crate::key::Key;

    fn event(revision: u64, plural: &str, namespace: &str) -> Event {
        let key = Key::new("", plural, namespace, "x").unwrap();
        let value = Bytes::from_static(b"0123456789");
        Event { revision: Revision::new(revision), key, kind: EventKind::Put, value, previous: None }
    }

    fn revisions(news: News) -> Result<Vec<u64>, &'static str> {
        match news {
            News::Events(events) => Ok(events.iter().map(|event| event.revision.get()).collect()),
            News::Nothing(_) => Err("nothing"),
            News::OnDisk => Err("on disk"),
            News::Closed => Err("closed"),
        }
    }

    #[test]
    fn a_topic_has_its_changes_and_tells_what_it_dropped() {
        let feed = Feed::new(Revision::new(10), 3, usize::MAX);
        let pods = Prefix::resource("", "pods").unwrap();
        let pods_in_a = Prefix::namespace("", "pods", "a").unwrap();
        let nodes = Prefix::resource("", "nodes").unwrap();
        for prefix in [&pods, &pods_in_a, &nodes] {
            feed.join(prefix);
        }
        feed.publish([event(11, "pods", "a"), event(12, "nodes", ""), event(13, "pods", "b"), event(14, "pods", "a")]);
        let rows = [
            (&pods, 10, Err("on disk")),
            (&pods, 11, Ok(vec![13, 14])),
            (&pods, 13, Ok(vec![14])),
            (&pods, 14, Err("nothing")),
            (&pods_in_a, 11, Ok(vec![14])),
            (&pods_in_a, 13, Ok(vec![14])),
            (&nodes, 9, Err("on disk")),
            (&nodes, 10, Ok(vec![12])),
            (&nodes, 12, Err("nothing")),
        ];
        for (prefix, seen, want) in rows {
            assert_eq!(revisions(feed.after(prefix, Revision::new(seen), 9)), want, "{prefix} after {seen}");
        }
        assert!(matches!(feed.after(&nodes, Revision::new(12), 9), News::Nothing(head) if head.get() == 14));
        feed.close();
        assert_eq!(revisions(feed.after(&nodes, Revision::new(10), 9)), Err("closed"));
    }

    #[test]
    fn bytes_bound_the_feed_too() {
        let feed = Feed::new(Revision::ZERO, usize::MAX, 3 * event(1, "pods", "a").size());
        for revision in 1..100 {
            feed.publish([event(revision, "pods", "a")]);
        }
        assert_eq!(feed.state().events.len(), 3);
        assert_eq!(feed.state().floor, Revision::new(96));
    }

    #[test]
    fn topics_without_changes_and_watches_are_gone() {
        let feed = Feed::new(Revision::ZERO, 1, usize::MAX);
        let pods = Prefix::resource("", "pods").unwrap();
        feed.join(&pods);
        feed.leave(&pods);
        assert!(feed.state().topics.is_empty());
        feed.publish([event(1, "pods", "a"), event(2, "nodes", "")]);
        assert_eq!(feed.state().topics.keys().map(|name| &**name).collect::<Vec<_>>(), ["core/nodes/"]);
        // A topic made anew does not know what it dropped before: it must assume the worst.
        feed.join(&pods);
        assert_eq!(revisions(feed.after(&pods, Revision::ZERO, 9)), Err("on disk"));
        assert_eq!(revisions(feed.after(&pods, Revision::new(1), 9)), Err("nothing"));
    }
}
