//! Which node gets a pod of a DaemonSet, which pod goes, and in which order pods
//! of an old template are replaced.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetStatus},
        core::v1::{
            Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
        },
    },
    jiff::Timestamp,
};

use crate::{
    deployments::rolling::portion,
    pods::{self, nonzero},
    scheduler::node_affinity,
    taints::{
        self, DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE,
        UNREACHABLE, UNSCHEDULABLE,
    },
};

/// One pod on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) current: bool,
    pub(super) ready: bool,
    pub(super) available: bool,
    pub(super) deleting: bool,
    pub(super) failed: bool,
    pub(super) created: Timestamp,
}

/// One node and the set's pods there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) node: String,
    /// A pod belongs here.
    pub(super) run: bool,
    /// A pod that is here may stay.
    pub(super) stay: bool,
    pub(super) pods: Vec<Member>,
}

/// How pods of an old template are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    OnDelete,
    /// Exactly one of the numbers is above zero.
    Rolling {
        surge: i32,
        unavailable: i32,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Create { node: String },
    Delete { pod: String, failed: bool },
}

/// Update strategy of a set for `nodes` nodes.
pub(super) fn update(set: &DaemonSet, nodes: usize) -> Update {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.clone()).unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return Update::OnDelete;
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
    let surge = rolling.max_surge.map_or(0, |surge| portion(&surge, nodes, true));
    let unavailable = rolling.max_unavailable.map_or(1, |unavailable| portion(&unavailable, nodes, true));
    if surge > 0 {
        Update::Rolling { surge, unavailable: 0 }
    } else {
        Update::Rolling { surge: 0, unavailable: unavailable.max(1) }
    }
}

/// Whether a pod of the set should be made on a node, and may stay there.
pub(super) fn eligible(template: &PodTemplateSpec, node: &Node) -> (bool, bool) {
    let spec = pod_spec(template);
    let named = spec.node_name.as_deref().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if !(named.is_empty() || named == name) || !node_affinity::admits(&spec, node) {
        return (false, false);
    }
    let node_taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let driven_away = taints::untolerated(node_taints, tolerations, &[NO_EXECUTE]).is_some();
    let kept_away = taints::untolerated(node_taints, tolerations, &[NO_SCHEDULE, NO_EXECUTE]).is_some();
    (!kept_away, !driven_away)
}

/// The template's spec with the tolerations every pod of a DaemonSet has.
pub(super) fn pod_spec(template: &PodTemplateSpec) -> PodSpec {
    let mut spec = template.spec.clone().unwrap_or_default();
    let mut tolerated = vec![
        (NOT_READY, NO_EXECUTE),
        (UNREACHABLE, NO_EXECUTE),
        (DISK_PRESSURE, NO_SCHEDULE),
        (MEMORY_PRESSURE, NO_SCHEDULE),
        (PID_PRESSURE, NO_SCHEDULE),
        (UNSCHEDULABLE, NO_SCHEDULE),
    ];
    if spec.host_network == Some(true) {
        tolerated.push((NETWORK_UNAVAILABLE, NO_SCHEDULE));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in tolerated {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec
}

/// Ties a pod to one node by its name; the scheduler does the rest.
pub(super) fn pin(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    // The set's own terms were checked when the node was chosen.
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// Node a pod is on or pinned to.
pub(super) fn node_of(pod: &Pod) -> Option<String> {
    let bound = pods::node(pod);
    if !bound.is_empty() {
        return Some(bound.to_owned());
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields.filter(|field| field.key == "metadata.name").find_map(|field| field.values.as_ref()?.first().cloned())
}

/// Everything to do now.
pub(super) fn plan(sites: &[Site], update: Update) -> Vec<Action> {
    let surging = matches!(update, Update::Rolling { surge, .. } if surge > 0);
    let mut actions: Vec<Action> = sites.iter().flat_map(|site| manage(site, surging)).collect();
    if let Update::Rolling { surge, unavailable } = update {
        let more = if surging { roll_with_surge(sites, surge) } else { roll(sites, unavailable) };
        actions.extend(more);
    }
    actions.sort();
    actions.dedup();
    actions
}

fn delete(pod: &Member) -> Action {
    Action::Delete { pod: pod.name.clone(), failed: pod.failed }
}

fn active(site: &Site) -> Vec<&Member> {
    let mut pods: Vec<_> = site.pods.iter().filter(|pod| !pod.deleting && !pod.failed).collect();
    pods.sort_by(|left, right| left.created.cmp(&right.created).then_with(|| left.name.cmp(&right.name)));
    pods
}

fn manage(site: &Site, surging: bool) -> Vec<Action> {
    if site.run && site.pods.is_empty() {
        return vec![Action::Create { node: site.node.clone() }];
    }
    if !site.stay {
        return site.pods.iter().filter(|pod| !pod.deleting).map(delete).collect();
    }
    let mut actions: Vec<_> = site.pods.iter().filter(|pod| pod.failed && !pod.deleting).map(delete).collect();
    // One pod per node; while surging, one per template.
    let pods = active(site);
    for current in [false, true] {
        let same: Vec<_> = pods.iter().filter(|pod| !surging || pod.current == current).collect();
        actions.extend(same.into_iter().skip(1).map(|pod| delete(pod)));
    }
    actions
}

/// Deletes old pods: unavailable ones at once, others as the budget allows.
fn roll(sites: &[Site], budget: i32) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut replaceable = Vec::new();
    let mut unavailable = 0;
    for site in sites.iter().filter(|site| site.run) {
        match active(site).first() {
            Some(pod) if pod.available && !pod.current => replaceable.push(*pod),
            Some(pod) if pod.available => {}
            Some(pod) => {
                unavailable += 1;
                if !pod.current {
                    actions.push(delete(pod));
                }
            }
            None => unavailable += 1,
        }
    }
    let left = usize::try_from(budget - unavailable).unwrap_or(0);
    actions.extend(replaceable.into_iter().take(left).map(delete));
    actions
}

/// Makes new pods beside old ones, and deletes old ones whose successor is available.
fn roll_with_surge(sites: &[Site], surge: i32) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut candidates = Vec::new();
    let mut surging = 0;
    for site in sites.iter().filter(|site| site.run) {
        let pods = active(site);
        let old = pods.iter().find(|pod| !pod.current);
        let new = pods.iter().find(|pod| pod.current);
        match (old, new) {
            (Some(old), Some(new)) if new.available || !old.available => actions.push(delete(old)),
            (Some(_), Some(_)) => surging += 1,
            (Some(old), None) if !old.available => actions.push(Action::Create { node: site.node.clone() }),
            (Some(_), None) => candidates.push(site.node.clone()),
            (None, _) => {}
        }
    }
    let left = usize::try_from(surge - surging).unwrap_or(0);
    actions.extend(candidates.into_iter().take(left).map(|node| Action::Create { node }));
    actions
}

/// Status of the set.
pub(super) fn status(set: &DaemonSet, sites: &[Site]) -> DaemonSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let count = |holds: &dyn Fn(&Site) -> bool| {
        i32::try_from(sites.iter().filter(|site| holds(site)).count()).unwrap_or(i32::MAX)
    };
    let any = |site: &Site, holds: fn(&Member) -> bool| site.run && active(site).into_iter().any(holds);
    let desired = count(&|site| site.run);
    let available = count(&|site| any(site, |pod| pod.available));
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: count(&|site| site.run && !active(site).is_empty()),
        number_misscheduled: count(&|site| !site.run && !active(site).is_empty()),
        number_ready: count(&|site| any(site, |pod| pod.ready)),
        number_available: nonzero(available),
        number_unavailable: nonzero(desired - available),
        updated_number_scheduled: nonzero(count(&|site| any(site, |pod| pod.current))),
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{object, pod};

    const DEFAULT: Update = Update::Rolling { surge: 0, unavailable: 1 };

    /// `c` current, `o` old; upper case available; `!` failed, `~` deleting before it.
    fn site(node: &str, run: bool, stay: bool, pods: &str) -> Site {
        let (mut failed, mut deleting) = (false, false);
        let mut members = Vec::new();
        for mark in pods.chars() {
            match mark {
                '!' => failed = true,
                '~' => deleting = true,
                _ => {
                    let available = mark.is_ascii_uppercase();
                    members.push(Member {
                        name: format!("{node}-{mark}{}", members.len()),
                        current: mark.eq_ignore_ascii_case(&'c'),
                        ready: available,
                        available,
                        deleting,
                        failed,
                        created: Timestamp::from_second(members.len() as i64).unwrap(),
                    });
                    (failed, deleting) = (false, false);
                }
            }
        }
        Site { node: node.into(), run, stay, pods: members }
    }

    fn on(pods: &[&str]) -> Vec<Site> {
        pods.iter().enumerate().map(|(n, pods)| site(&format!("n{n}"), true, true, pods)).collect()
    }

    fn short(actions: Vec<Action>) -> Vec<String> {
        let text = |action| match action {
            Action::Create { node } => format!("+{node}"),
            Action::Delete { pod, failed } => format!("{}{pod}", if failed { "!" } else { "-" }),
        };
        actions.into_iter().map(text).collect()
    }

    #[test]
    fn nodes_get_lose_and_keep_pods() {
        for (why, sites, update, want) in [
            ("missing", on(&["", "C"]), DEFAULT, vec!["+n0"]),
            ("ending pods are waited for", on(&["~c"]), DEFAULT, vec![]),
            ("failed pods are replaced", on(&["!c"]), DEFAULT, vec!["!n0-c0"]),
            ("one is enough", on(&["CC"]), DEFAULT, vec!["-n0-C1"]),
            ("not here any more", vec![site("n", false, false, "C~c")], DEFAULT, vec!["-n-C0"]),
            ("may stay but not come", vec![site("n", false, true, "C"), site("m", false, true, "")], DEFAULT, vec![]),
            ("old ones one by one", on(&["O", "O"]), DEFAULT, vec!["-n0-O0"]),
            ("wait for the new one", on(&["c", "O"]), DEFAULT, vec![]),
            ("then the next", on(&["C", "O"]), DEFAULT, vec!["-n1-O0"]),
            ("broken old ones at once", on(&["o", "O", "o"]), DEFAULT, vec!["-n0-o0", "-n2-o0"]),
            ("by hand only", on(&["O", "o"]), Update::OnDelete, vec![]),
            ("surge makes first", on(&["O", "O"]), Update::Rolling { surge: 1, unavailable: 0 }, vec!["+n0"]),
            ("surge waits", on(&["Oc", "O"]), Update::Rolling { surge: 1, unavailable: 0 }, vec![]),
            (
                "surge then deletes",
                on(&["OC", "O"]),
                Update::Rolling { surge: 1, unavailable: 0 },
                vec!["+n1", "-n0-O0"],
            ),
        ] {
            assert_eq!(short(plan(&sites, update)), want, "{why}");
        }
    }

    #[test]
    fn status_counts_nodes() {
        let sites = [
            site("a", true, true, "C"),
            site("b", true, true, "O"),
            site("c", true, true, "c"),
            site("d", true, true, ""),
            site("e", false, true, "C"),
        ];
        let status = status(&object(json!({"metadata": {"generation": 4}})), &sites);
        assert_eq!(
            (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled),
            (4, 3, 1)
        );
        assert_eq!((status.number_ready, status.number_available, status.number_unavailable), (2, Some(2), Some(2)));
        assert_eq!((status.updated_number_scheduled, status.observed_generation), (Some(2), Some(4)));
    }

    #[test]
    fn eligibility_by_selector_and_taints() {
        let template = |spec: Value| -> PodTemplateSpec {
            let mut spec = spec;
            spec["containers"] = json!([]);
            object(json!({"spec": spec}))
        };
        let node = |spec: Value| -> Node {
            object(json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": spec}))
        };
        let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "effect": effect}]});
        for (why, spec, node, want) in [
            ("plain", json!({}), node(json!({})), (true, true)),
            ("selected", json!({"nodeSelector": {"disk": "ssd"}}), node(json!({})), (true, true)),
            ("not selected", json!({"nodeSelector": {"disk": "hdd"}}), node(json!({})), (false, false)),
            ("tainted", json!({}), node(taint("x", "NoSchedule")), (false, true)),
            ("driven away", json!({}), node(taint("x", "NoExecute")), (false, false)),
            ("unreachable", json!({}), node(taint("node.kubernetes.io/unreachable", "NoExecute")), (true, true)),
            ("cordoned", json!({}), node(taint("node.kubernetes.io/unschedulable", "NoSchedule")), (true, true)),
            (
                "no network",
                json!({}),
                node(taint("node.kubernetes.io/network-unavailable", "NoSchedule")),
                (false, true),
            ),
            (
                "host network",
                json!({"hostNetwork": true}),
                node(taint("node.kubernetes.io/network-unavailable", "NoSchedule")),
                (true, true),
            ),
            ("another node", json!({"nodeName": "m"}), node(json!({})), (false, false)),
        ] {
            assert_eq!(eligible(&template(spec), &node), want, "{why}");
        }
    }

    #[test]
    fn a_pinned_pod_is_known_by_its_node() {
        let mut pod = pod(json!({}));
        assert_eq!(node_of(&pod), None);
        pin(pod.spec.as_mut().unwrap(), "n7");
        assert_eq!(node_of(&pod).as_deref(), Some("n7"));
        pod.spec.as_mut().unwrap().node_name = Some("n8".into());
        assert_eq!(node_of(&pod).as_deref(), Some("n8"));
    }
}
