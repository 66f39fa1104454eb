//! Which nodes of a pool are told to update now.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{NodeView, PoolView};

/// Names of the nodes whose turn it is, in order. `host` is the node the
/// controller itself runs on: in `master` it comes last, so that the rollout is
/// not interrupted by its own progress.
pub fn next(pool: &PoolView, nodes: &[&NodeView], host: Option<&str>) -> Vec<String> {
    if pool.paused || pool.target.is_empty() {
        return Vec::new();
    }
    let managed = || nodes.iter().copied().filter(|node| node.managed());
    let mut waiting: Vec<&NodeView> = managed().filter(|node| node.desired != pool.target && node.ready).collect();
    let Some(capacity) = capacity(pool, nodes) else { return Vec::new() };
    if waiting.len() > capacity {
        waiting.sort_by_key(|node| (node.zone().is_none(), node.zone(), node.created, node.name.as_str()));
    }
    if pool.name == "master" && waiting.len() > 1 {
        waiting.retain(|node| Some(node.name.as_str()) != host);
    }
    waiting.into_iter().take(capacity).map(|node| node.name.clone()).collect()
}

/// How many more nodes may be started; none if none.
fn capacity(pool: &PoolView, nodes: &[&NodeView]) -> Option<usize> {
    let limit = max_unavailable(pool.max_unavailable.as_ref(), nodes.len());
    let away = nodes.iter().filter(|node| node.unavailable()).count();
    // They may recover at any moment and then be away all at once.
    let failing = nodes.iter().filter(|node| node.ready && node.failing() && node.desired == pool.target).count();
    limit.checked_sub(away + failing).filter(|left| *left > 0)
}

/// The limit as a number; percentages are rounded down, and at least one node is
/// always allowed, else nothing would ever move.
pub fn max_unavailable(limit: Option<&IntOrString>, nodes: usize) -> usize {
    let asked = match limit {
        None => Some(1),
        Some(IntOrString::Int(number)) => usize::try_from(*number).ok(),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<usize>().ok());
            percent.map(|percent| nodes * percent.min(100) / 100)
        }
    };
    asked.unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::{
        State,
        testing::{at, pool},
    };

    fn start(pool: &PoolView, nodes: &[NodeView]) -> Vec<String> {
        next(pool, &nodes.iter().collect::<Vec<_>>(), None)
    }

    fn idle(count: usize) -> Vec<NodeView> {
        (0..count).map(|n| at(&format!("n{n}"), "old", "old", State::Done)).collect()
    }

    fn allowing(limit: IntOrString) -> PoolView {
        PoolView { max_unavailable: Some(limit), ..pool("worker") }
    }

    #[test]
    fn row_9_no_limit_stops_everything() {
        let percent = |text: &str| IntOrString::String(text.into());
        for (limit, nodes, want) in [
            (None, 5, 1),
            (Some(IntOrString::Int(0)), 5, 1),
            (Some(IntOrString::Int(-3)), 5, 1),
            (Some(IntOrString::Int(2)), 5, 2),
            (Some(percent("10%")), 3, 1),
            (Some(percent("50%")), 5, 2),
            (Some(percent("100%")), 5, 5),
            (Some(percent("900%")), 5, 5),
            (Some(percent("half")), 5, 1),
        ] {
            assert_eq!(max_unavailable(limit.as_ref(), nodes), want, "{limit:?}");
        }
        for limit in [IntOrString::Int(0), percent("10%")] {
            assert_eq!(start(&allowing(limit), &idle(3)).len(), 1);
        }
    }

    #[test]
    fn row_10_never_more_than_the_limit_are_away() {
        let pool = allowing(IntOrString::Int(2));
        let mut nodes = idle(5);
        assert_eq!(start(&pool, &nodes), ["n0", "n1"]);
        // Told and not begun, begun, failing on the target, not ready: all of them count.
        nodes[0] = at("n0", "old", "new", State::Done);
        assert_eq!(start(&pool, &nodes), ["n1"]);
        nodes[1] = at("n1", "old", "new", State::Working);
        assert!(start(&pool, &nodes).is_empty());
        nodes[0] = at("n0", "new", "new", State::Done);
        nodes[1] = at("n1", "old", "new", State::Degraded);
        assert_eq!(start(&pool, &nodes), ["n2"]);
        nodes[2].ready = false;
        assert!(start(&pool, &nodes).is_empty());
    }

    #[test]
    fn row_11_a_foreign_cordon_uses_up_the_budget() {
        let mut nodes = idle(3);
        nodes[2].ready = false;
        assert!(start(&pool("worker"), &nodes).is_empty());
    }

    #[test]
    fn row_12_a_paused_pool_starts_nobody() {
        let paused = PoolView { paused: true, ..pool("worker") };
        assert!(start(&paused, &idle(3)).is_empty());
        let unrendered = PoolView { target: String::new(), ..pool("worker") };
        assert!(start(&unrendered, &idle(3)).is_empty());
    }

    #[test]
    fn row_13_zones_in_order_and_the_oldest_first() {
        let made = |second| Some(k8s_openapi::jiff::Timestamp::from_second(second).expect("a time"));
        let rows =
            [("a", Some("z2"), 1), ("b", None, 0), ("c", Some("z1"), 9), ("d", Some("z3"), 2), ("e", Some("z1"), 3)];
        let mut nodes: Vec<NodeView> = rows
            .iter()
            .map(|(name, zone, second)| {
                let mut node = at(name, "old", "old", State::Done);
                node.created = made(*second);
                node.labels.extend(zone.map(|zone| (crate::names::ZONE.to_owned(), zone.to_owned())));
                node
            })
            .collect();
        let mut order = Vec::new();
        while order.len() < nodes.len() {
            let name = start(&pool("worker"), &nodes).remove(0);
            let node = nodes.iter_mut().find(|node| node.name == name).expect("a node of ours");
            *node = NodeView { current: "new".into(), desired: "new".into(), ..node.clone() };
            order.push(name);
        }
        assert_eq!(order, ["e", "c", "a", "d", "b"]);
    }

    #[test]
    fn row_29_a_failing_node_takes_the_newer_target() {
        let nodes = [at("n0", "old", "bad", State::Degraded), at("n1", "old", "bad", State::Unreconcilable)];
        assert_eq!(start(&pool("worker"), &nodes), ["n0"]);
    }

    #[test]
    fn row_30_a_late_node_goes_straight_to_the_target() {
        let nodes = [at("n0", "new", "new", State::Done), at("late", "baseline", "baseline", State::Done)];
        assert_eq!(start(&pool("worker"), &nodes), ["late"]);
    }

    #[test]
    fn the_node_of_the_controller_comes_last_among_masters() {
        let masters = PoolView { name: "master".into(), ..pool("master") };
        let nodes = idle(2);
        let all: Vec<&NodeView> = nodes.iter().collect();
        assert_eq!(next(&masters, &all, Some("n0")), ["n1"]);
        assert_eq!(next(&masters, &all[..1], Some("n0")), ["n0"]);
    }
}
