//! Nodes and pools for the tables.

use super::{NodeView, PoolView, State};
use crate::names::NODE_ROLE_PREFIX;

pub(crate) fn node(name: &str, roles: &[&str]) -> NodeView {
    let labels = roles.iter().map(|role| (format!("{NODE_ROLE_PREFIX}{role}"), String::new())).collect();
    NodeView { name: name.into(), labels, ready: true, ..NodeView::default() }
}

/// A ready node that runs `current` and was told to run `desired`.
pub(crate) fn at(name: &str, current: &str, desired: &str, state: State) -> NodeView {
    NodeView { current: current.into(), desired: desired.into(), state, ..node(name, &["worker"]) }
}

pub(crate) fn pool(name: &str) -> PoolView {
    let selector = serde_json::json!({"matchLabels": {format!("{NODE_ROLE_PREFIX}{name}"): ""}});
    PoolView {
        name: name.into(),
        node_selector: serde_json::from_value(selector).expect("a selector"),
        target: "new".into(),
        ..PoolView::default()
    }
}
