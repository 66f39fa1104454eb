//! To which pool a node belongs.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use osc_objects::LabelSelector;

use super::NodeView;
use crate::selector::selects;

/// What is decided by, of one pool.
#[derive(Clone, Debug, Default)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Nodes it selects.
    pub node_selector: Option<LabelSelector>,
    /// Whether no node may be started.
    pub paused: bool,
    /// How many nodes may be unavailable at once.
    pub max_unavailable: Option<IntOrString>,
    /// Name of the configuration its nodes shall run; empty before the first.
    pub target: String,
}

/// Answer of [`owner`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It belongs to this pool.
    Pool(String),
    /// No pool selects it, which is fine.
    Unmanaged,
    /// These custom pools all select it; it belongs to none of them.
    Conflict(Vec<String>),
}

/// The pool of a node. A custom pool takes a node from `worker` but never from
/// `master`.
pub fn owner(node: &NodeView, pools: &[PoolView]) -> Membership {
    if node.windows {
        return Membership::Unmanaged;
    }
    let selected = |name: &str| selecting(node, pools).any(|pool| pool == name);
    match custom(node, pools).as_slice() {
        several @ [_, _, ..] => Membership::Conflict(several.iter().map(|name| (*name).to_owned()).collect()),
        _ if selected("master") => Membership::Pool("master".into()),
        [one] => Membership::Pool((*one).to_owned()),
        [] if selected("worker") => Membership::Pool("worker".into()),
        [] => Membership::Unmanaged,
    }
}

/// Names of the custom pools that select a node.
pub fn custom<'a>(node: &NodeView, pools: &'a [PoolView]) -> Vec<&'a str> {
    selecting(node, pools).filter(|name| !matches!(*name, "master" | "worker")).collect()
}

fn selecting<'a>(node: &NodeView, pools: &'a [PoolView]) -> impl Iterator<Item = &'a str> {
    let selected = |pool: &&PoolView| selects(pool.node_selector.as_ref(), &node.labels);
    pools.iter().filter(selected).map(|pool| pool.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::testing::{node, pool};

    #[test]
    fn rows_7_and_8_a_node_belongs_to_at_most_one_pool() {
        let pools = [pool("master"), pool("worker"), pool("kata-oc"), pool("infra")];
        let in_pool = |name: &str| Membership::Pool(name.into());
        for (roles, want) in [
            (&[][..], Membership::Unmanaged),
            (&["worker"], in_pool("worker")),
            (&["master"], in_pool("master")),
            (&["master", "worker"], in_pool("master")),
            (&["worker", "kata-oc"], in_pool("kata-oc")),
            (&["kata-oc"], in_pool("kata-oc")),
            (&["master", "kata-oc"], in_pool("master")),
            (&["kata-oc", "infra", "worker"], Membership::Conflict(vec!["kata-oc".into(), "infra".into()])),
            (&["other"], Membership::Unmanaged),
        ] {
            assert_eq!(owner(&node("n", roles), &pools), want, "{roles:?}");
        }
        let windows = NodeView { windows: true, ..node("n", &["worker"]) };
        assert_eq!(owner(&windows, &pools), Membership::Unmanaged);
    }
}
