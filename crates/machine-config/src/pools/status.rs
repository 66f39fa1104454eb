//! Counts and conditions of a pool.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{NodeView, PoolView};

/// Status of one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When `status` last became what it is.
    pub last_transition_time: Option<String>,
    /// One word.
    #[serde(default)]
    pub reason: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
}

/// What is written to a pool's status, configuration aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computed {
    /// Nodes of the pool.
    pub machines: usize,
    /// Those that run the target.
    pub updated: usize,
    /// Those of them that can take pods.
    pub ready: usize,
    /// Those that are away.
    pub unavailable: usize,
    /// Those whose daemon fails.
    pub degraded: usize,
    /// All conditions, in order.
    pub conditions: Vec<Condition>,
    /// Whether all nodes run the target, so that it becomes the reached configuration.
    pub reached: bool,
}

/// What was published before.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Name of the configuration that was last reached by all nodes.
    pub configuration: String,
    /// The conditions.
    pub conditions: Vec<Condition>,
}

impl Published {
    fn is_true(&self, kind: &str) -> bool {
        self.conditions.iter().any(|one| one.kind == kind && one.status == "True")
    }
}

/// Computes the status of `pool` from its nodes. `render_failure` is why the
/// target could not be renewed.
pub fn compute(
    pool: &PoolView,
    nodes: &[&NodeView],
    render_failure: Option<&str>,
    before: &Published,
    now: Timestamp,
) -> Computed {
    let count = |wanted: &dyn Fn(&NodeView) -> bool| nodes.iter().filter(|node| wanted(node)).count();
    let updated = count(&|node| node.updated(&pool.target));
    let ready = count(&|node| node.updated(&pool.target) && node.ready);
    let unavailable = count(&NodeView::unavailable);
    let failing: Vec<&NodeView> = nodes.iter().copied().filter(|node| node.failing()).collect();
    let there = !pool.target.is_empty() && updated == nodes.len() && ready == updated && unavailable == 0;
    // Clients wait for an edge of Updating, however fast the nodes were.
    let announced = pool.paused || before.configuration == pool.target || before.is_true("Updating");
    let reached = there && announced;
    let mut conditions = Conditions { before, now, list: Vec::new() };
    conditions.progress(pool, nodes, reached);
    let broken = nodes_message(&failing);
    let degraded_nodes =
        (!failing.is_empty()).then(|| format!("{} nodes are reporting degraded status on sync", failing.len()));
    conditions.set("NodeDegraded", !failing.is_empty(), degraded_nodes.as_deref().unwrap_or_default(), &broken);
    conditions.set("RenderDegraded", render_failure.is_some(), "", render_failure.unwrap_or_default());
    let degraded = !failing.is_empty() || render_failure.is_some();
    let message = if failing.is_empty() { render_failure.unwrap_or_default() } else { &broken };
    conditions.set("Degraded", degraded, "", message);
    Computed {
        machines: nodes.len(),
        updated,
        ready,
        unavailable,
        degraded: failing.len(),
        conditions: conditions.list,
        reached,
    }
}

fn nodes_message(failing: &[&NodeView]) -> String {
    failing
        .iter()
        .map(|node| format!("Node {} is reporting: {:?}", node.name, node.reason))
        .collect::<Vec<_>>()
        .join(", ")
}

struct Conditions<'a> {
    before: &'a Published,
    now: Timestamp,
    list: Vec<Condition>,
}

impl Conditions<'_> {
    fn progress(&mut self, pool: &PoolView, nodes: &[&NodeView], reached: bool) {
        let target = &pool.target;
        let (updated, updating) = match (reached, pool.paused) {
            (true, _) => (format!("All nodes are updated with {target}"), String::new()),
            (false, true) => {
                (String::new(), format!("Pool is paused; will not update to {target}{}", waiting(pool, nodes)))
            }
            (false, false) if target.is_empty() => {
                (String::new(), "Waiting for the first rendered configuration".into())
            }
            (false, false) => (String::new(), format!("All nodes are updating to {target}")),
        };
        self.set("Updated", reached, "", &updated);
        self.set("Updating", !reached && !pool.paused, "", &updating);
    }

    /// The time moves only when the status flips.
    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let same = self.before.conditions.iter().find(|one| one.kind == kind && one.status == status);
        let since = same.and_then(|one| one.last_transition_time.clone());
        let now = self.now.strftime("%Y-%m-%dT%H:%M:%SZ");
        self.list.push(Condition {
            kind: kind.into(),
            status: status.into(),
            last_transition_time: Some(since.unwrap_or_else(|| now.to_string())),
            reason: reason.into(),
            message: message.into(),
        });
    }
}

/// Which nodes a paused pool keeps waiting; a handful is enough to see it.
fn waiting(pool: &PoolView, nodes: &[&NodeView]) -> String {
    let names: Vec<&str> =
        nodes.iter().filter(|node| node.desired != pool.target).map(|node| node.name.as_str()).take(5).collect();
    if names.is_empty() { String::new() } else { format!("; waiting: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::{
        State,
        testing::{at, pool},
    };

    fn at_second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn is(status: &Computed, kind: &str) -> bool {
        status.conditions.iter().find(|one| one.kind == kind).expect("every condition is there").status == "True"
    }

    fn message<'a>(status: &'a Computed, kind: &str) -> &'a str {
        &status.conditions.iter().find(|one| one.kind == kind).expect("every condition is there").message
    }

    /// Publishes a status like the API would keep it.
    fn publish(pool: &PoolView, before: &Published, status: &Computed) -> Published {
        let configuration = if status.reached { pool.target.clone() } else { before.configuration.clone() };
        Published { configuration, conditions: status.conditions.clone() }
    }

    fn settled(pool: &PoolView, nodes: &[&NodeView]) -> Computed {
        let first = compute(pool, nodes, None, &Published::default(), at_second(0));
        compute(pool, nodes, None, &publish(pool, &Published::default(), &first), at_second(1))
    }

    #[test]
    fn row_1_an_empty_pool_is_updated() {
        let status = settled(&pool("worker"), &[]);
        assert!(is(&status, "Updated") && !is(&status, "Updating") && !is(&status, "Degraded"));
        assert_eq!(
            (status.machines, status.updated, status.ready, status.unavailable, status.degraded),
            (0, 0, 0, 0, 0)
        );
    }

    #[test]
    fn nodes_are_counted_by_what_they_report() {
        let mut cordoned = at("c", "new", "new", State::Done);
        cordoned.ready = false;
        let mut layered = at("l", "new", "new", State::Done);
        layered.desired_image = true;
        let nodes = [
            at("a", "new", "new", State::Done),
            at("b", "old", "new", State::Working),
            cordoned,
            at("d", "old", "new", State::Degraded),
            at("e", "old", "old", State::Done),
            layered,
        ];
        let status =
            compute(&pool("worker"), &nodes.iter().collect::<Vec<_>>(), None, &Published::default(), at_second(0));
        assert_eq!(
            (status.machines, status.updated, status.ready, status.unavailable, status.degraded),
            (6, 2, 1, 2, 1)
        );
        assert!(is(&status, "Updating") && is(&status, "Degraded") && is(&status, "NodeDegraded"));
        assert!(message(&status, "Updating").contains("new"));
    }

    #[test]
    fn degraded_tells_the_node_and_its_reason() {
        let mut node = at("n1", "old", "new", State::Unreconcilable);
        node.reason = "no way".into();
        let status = settled(&pool("worker"), &[&node]);
        assert_eq!(message(&status, "Degraded"), r#"Node n1 is reporting: "no way""#);
    }

    #[test]
    fn row_6_a_failed_render_degrades_and_says_why() {
        let status = compute(&pool("worker"), &[], Some("nothing matches"), &Published::default(), at_second(0));
        assert!(is(&status, "RenderDegraded") && is(&status, "Degraded"));
        assert_eq!(message(&status, "Degraded"), "nothing matches");
    }

    #[test]
    fn updating_is_published_once_per_target_however_fast_the_nodes_are() {
        let node = at("a", "new", "new", State::Done);
        for nodes in [&[&node][..], &[]] {
            let before = Published { configuration: "old".into(), ..Published::default() };
            let first = compute(&pool("worker"), nodes, None, &before, at_second(0));
            assert!(is(&first, "Updating") && !is(&first, "Updated") && !first.reached);
            let before = publish(&pool("worker"), &before, &first);
            let second = compute(&pool("worker"), nodes, None, &before, at_second(1));
            assert!(!is(&second, "Updating") && is(&second, "Updated") && second.reached);
            let before = publish(&pool("worker"), &before, &second);
            let third = compute(&pool("worker"), nodes, None, &before, at_second(2));
            assert_eq!(third, second, "and never again, times included");
        }
    }

    #[test]
    fn row_12_a_paused_pool_is_neither_updated_nor_updating() {
        let paused = PoolView { paused: true, ..pool("worker") };
        let node = at("n1", "old", "old", State::Done);
        let status = settled(&paused, &[&node]);
        assert!(!is(&status, "Updated") && !is(&status, "Updating"));
        assert_eq!(message(&status, "Updating"), "Pool is paused; will not update to new; waiting: n1");
    }

    #[test]
    fn row_5_the_reached_configuration_follows_the_last_node() {
        let (mut a, b) = (at("a", "old", "new", State::Working), at("b", "new", "new", State::Done));
        assert!(!settled(&pool("worker"), &[&a, &b]).reached);
        a = at("a", "new", "new", State::Done);
        assert!(settled(&pool("worker"), &[&a, &b]).reached);
    }

    #[test]
    fn times_move_only_when_a_status_flips() {
        let node = at("a", "old", "new", State::Working);
        let first = compute(&pool("worker"), &[&node], None, &Published::default(), at_second(0));
        let before = publish(&pool("worker"), &Published::default(), &first);
        let second = compute(&pool("worker"), &[&node], Some("x"), &before, at_second(60));
        let time = |status: &Computed, kind: &str| {
            status
                .conditions
                .iter()
                .find(|one| one.kind == kind)
                .and_then(|one| one.last_transition_time.clone())
                .unwrap()
        };
        assert_eq!(time(&second, "Updating"), "1970-01-01T00:00:00Z");
        assert_eq!(time(&second, "Degraded"), "1970-01-01T00:01:00Z");
    }
}
