//! Targets told to nodes that the watch does not show yet. Starting a node spends from a
//! budget, so what was spent counts from the moment it is spent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::pools::NodeView;

/// How long a write counts whose answer never came: longer than the API takes to show it.
const UNSURE: Duration = Duration::from_secs(60);

/// What nodes were told.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    target: String,
    /// Version of the node that says so; none until the API answered.
    version: Option<u64>,
    at: Instant,
}

impl Told {
    /// Notes that `node` is being told. To be called before it is.
    pub(super) fn begin(&mut self, node: &str, target: &str, at: Instant) {
        self.0.insert(node.into(), Entry { target: target.into(), version: None, at });
    }

    /// Notes the answer: the version of the node that says so.
    pub(super) fn done(&mut self, node: &str, version: &str) {
        if let Some(entry) = self.0.get_mut(node) {
            entry.version = version.parse().ok();
        }
    }

    /// The API refused: the node was not told.
    pub(super) fn refused(&mut self, node: &str) {
        self.0.remove(node);
    }

    /// Changes `nodes` to what the watch will show once everything told has arrived, and
    /// forgets what has.
    pub(super) fn show(&mut self, nodes: &mut [Arc<NodeView>], now: Instant) {
        let mut open = std::mem::take(&mut self.0);
        for node in nodes {
            let Some(entry) = open.remove(&node.name) else { continue };
            if entry.has_arrived(node, now) {
                continue;
            }
            Arc::make_mut(node).desired.clone_from(&entry.target);
            self.0.insert(node.name.clone(), entry);
        }
    }
}

impl Entry {
    fn has_arrived(&self, node: &NodeView, now: Instant) -> bool {
        if node.desired == self.target {
            return true;
        }
        match (self.version, node.version.parse::<u64>().ok()) {
            // Versions of one kind grow; a newer one that says otherwise was changed since.
            (Some(told), Some(shown)) => shown >= told,
            _ => now.duration_since(self.at) > UNSURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_counts_until_it_is_seen() {
        let begin = Instant::now();
        let node = |version: &str, desired: &str| {
            Arc::new(NodeView {
                name: "n".into(),
                version: version.into(),
                desired: desired.into(),
                ..NodeView::default()
            })
        };
        let after = |seconds| begin + Duration::from_secs(seconds);
        for (answer, shown, now, want, kept) in [
            // Not seen yet: an older version, or no answer and little time.
            (Some("7"), node("6", "old"), after(999), "new", true),
            (None, node("6", "old"), after(60), "new", true),
            (None, node("9", "old"), after(60), "new", true),
            // Seen, overruled, or given up.
            (Some("7"), node("7", "new"), begin, "new", false),
            (Some("7"), node("8", "newer"), begin, "newer", false),
            (None, node("6", "old"), after(61), "old", false),
        ] {
            let mut told = Told::default();
            told.begin("n", "new", begin);
            if let Some(version) = answer {
                told.done("n", version);
            }
            let mut nodes = [shown];
            told.show(&mut nodes, now);
            assert_eq!((nodes[0].desired.as_str(), !told.0.is_empty()), (want, kept), "{answer:?} {nodes:?}");
        }
    }

    #[test]
    fn nodes_that_refuse_or_go_are_forgotten() {
        let mut told = Told::default();
        for name in ["a", "b"] {
            told.begin(name, "new", Instant::now());
        }
        told.refused("a");
        told.show(&mut [], Instant::now());
        assert!(told.0.is_empty());
    }
}
