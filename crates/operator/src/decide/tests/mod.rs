//! Tables: what is seen, what is decided.

mod defects;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use osc_objects::{
    Conditions, KataConfig, MachineConfigPool,
    names::{kata, machine::NodeState, role},
};
use serde_json::{Value, json};

use super::decide;
use crate::{
    options::Options,
    plan::{Plan, Write},
    seen::{Constraints, NodeSeen, OwnConfig, PodSeen, PodsSeen, Seen},
};

const WORKER: &str = "rendered-worker-1";
const KATA: &str = "rendered-kata-oc-1";
const MASTER: &str = "rendered-master-1";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn config(spec: Value) -> KataConfig {
    serde_json::from_value(json!({
        "apiVersion": "kataconfiguration.openshift.io/v1",
        "kind": "KataConfig",
        "metadata": {"name": "example", "uid": "u", "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": spec,
    }))
    .unwrap()
}

fn pool(name: &str, count: i32, target: &str, updating: bool) -> MachineConfigPool {
    let yes = |yes: bool| if yes { "True" } else { "False" };
    serde_json::from_value(json!({
        "apiVersion": "machineconfiguration.openshift.io/v1",
        "kind": "MachineConfigPool",
        "metadata": {"name": name, "generation": 1},
        "spec": {"configuration": {"name": target}},
        "status": {"observedGeneration": 1, "machineCount": count, "conditions": [
            {"type": "Updating", "status": yes(updating)}, {"type": "Updated", "status": yes(!updating)}]},
    }))
    .unwrap()
}

fn node(name: &str, labels: &[&str], current: &str, state: NodeState) -> NodeSeen {
    NodeSeen {
        name: name.into(),
        labels: labels
            .iter()
            .map(|label| label.split_once('=').unwrap_or((label, "")))
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
        current: Some(current.into()),
        desired: Some(current.into()),
        state: Some(state),
        ..NodeSeen::default()
    }
}

/// Two workers, one control-plane node, idle pools, one new KataConfig.
fn world(spec: Value) -> Seen {
    let pools = [pool("worker", 2, WORKER, false), pool("master", 1, MASTER, false)];
    Seen {
        now: at(1000),
        configs: vec![config(spec)],
        nodes: vec![
            node("m0", &[role::MASTER_LABEL], MASTER, NodeState::Done),
            node("w0", &[role::WORKER_LABEL], WORKER, NodeState::Done),
            node("w1", &[role::WORKER_LABEL], WORKER, NodeState::Done),
        ],
        machine_api: true,
        pools: pools.into_iter().map(|pool| (pool.name_any(), pool)).collect(),
        ..Seen::default()
    }
}

/// The same, installed and idle.
fn installed() -> Seen {
    let mut seen = world(json!({}));
    for write in settle(&mut seen).writes {
        assert!(matches!(write, Write::CreateConfig(_) | Write::CreatePool(_) | Write::Label(_)), "{write:?}");
    }
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, false));
    for name in ["w0", "w1"] {
        the(&mut seen, name).current = Some(KATA.into());
    }
    settle(&mut seen);
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "False//2/2");
    seen
}

/// Decides, and does what was decided.
fn settle(seen: &mut Seen) -> Plan {
    let plan = decide(seen, &Options::default()).remove(0);
    seen.configs[0].status = Some(plan.status.clone());
    if plan.add_finalizer {
        seen.configs[0].metadata.finalizers = Some(vec![kata::FINALIZER.into()]);
    }
    for write in &plan.writes {
        match write {
            Write::CreateConfig(made) => {
                let role = made.labels()["machineconfiguration.openshift.io/role"].clone();
                seen.own_configs.push(OwnConfig { name: made.name_any(), role });
            }
            Write::DeleteConfig(name) => seen.own_configs.retain(|own| own.name != *name),
            Write::CreatePool(made) => drop(seen.pools.insert(made.name_any(), made.as_ref().clone())),
            Write::DeletePool(name) => drop(seen.pools.remove(name)),
            Write::Label(node) => drop(the(seen, node).labels.insert(kata::ROLE_LABEL.into(), String::new())),
            Write::Unlabel(node) => drop(the(seen, node).labels.remove(kata::ROLE_LABEL)),
            Write::CreateRuntimeClass(made) => drop(seen.runtime_classes.insert(made.name_any())),
            Write::CreateLogLevel(_) => seen.log_level = Some("debug".into()),
            Write::SetLogLevel(level) => seen.log_level = Some(level.clone()),
            _ => {}
        }
    }
    plan
}

fn the<'a>(seen: &'a mut Seen, name: &str) -> &'a mut NodeSeen {
    seen.nodes.iter_mut().find(|node| node.name == name).unwrap()
}

fn delete(seen: &mut Seen) {
    let time = serde_json::from_value(json!("2024-01-02T00:00:00Z")).unwrap();
    seen.configs[0].metadata.deletion_timestamp = Some(time);
    seen.pods = PodsSeen::Listed(Vec::new());
}

/// `status/reason/nodes/ready` of condition InProgress.
fn state(plan: &Plan) -> String {
    let condition = plan.status.conditions.of("InProgress").expect("always there");
    let nodes = &plan.status.kata_nodes;
    format!("{:?}/{}/{}/{}", condition.status, condition.reason, nodes.node_count, nodes.ready_node_count)
}

fn message(plan: &Plan) -> &str {
    &plan.status.conditions.of("InProgress").unwrap().message
}

fn degraded(plan: &Plan) -> &str {
    &plan.status.conditions.of("Degraded").unwrap().reason
}

fn labelled(plan: &Plan) -> Vec<&str> {
    plan.writes
        .iter()
        .filter_map(|write| if let Write::Label(node) = write { Some(node.as_str()) } else { None })
        .collect()
}

#[test]
fn a_new_kataconfig_gets_finalizer_config_pool_and_labels_and_waits() {
    let mut seen = world(json!({}));
    let plan = settle(&mut seen);
    assert!(plan.add_finalizer);
    assert_eq!(state(&plan), "True/Installing/0/0");
    assert_eq!(message(&plan), "Performing initial installation of kata on cluster");
    assert!(plan.status.waiting_for_mco_to_start);
    assert_eq!(labelled(&plan), ["w0", "w1"]);
    let Write::CreateConfig(made) = &plan.writes[0] else { panic!("{:?}", plan.writes) };
    assert_eq!(made.labels()["app"], "example");
    assert_eq!(made.spec.extensions, Some(vec!["kata-containers".to_owned()]));
    let again = settle(&mut seen);
    assert!(again.writes.is_empty() && again.status.waiting_for_mco_to_start, "nothing is asked for twice");
}

#[test]
fn nodes_pass_through_the_lists_of_the_worked_timeline() {
    let mut seen = world(json!({}));
    settle(&mut seen);
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
    let plan = settle(&mut seen);
    assert_eq!((state(&plan).as_str(), plan.status.waiting_for_mco_to_start), ("True/Installing/2/0", false));
    assert_eq!(plan.status.kata_nodes.waiting_to_install, ["w0", "w1"]);
    the(&mut seen, "w1").state = Some(NodeState::Working);
    let plan = settle(&mut seen);
    assert_eq!(plan.status.kata_nodes.installing, ["w1"]);
    assert_eq!(plan.status.kata_nodes.waiting_to_install, ["w0"]);
    assert!(plan.writes.is_empty(), "no RuntimeClass while nodes change");
    the(&mut seen, "w1").state = Some(NodeState::Done);
    the(&mut seen, "w1").current = Some(KATA.into());
    the(&mut seen, "w0").state = Some(NodeState::Working);
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "True/Installing/2/1");
    the(&mut seen, "w0").state = Some(NodeState::Done);
    the(&mut seen, "w0").current = Some(KATA.into());
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, false));
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "True/Installing/2/2", "who waits for the end could not use it yet");
    let Write::CreateRuntimeClass(class) = &plan.writes[0] else { panic!("{:?}", plan.writes) };
    let class = serde_json::to_value(class).unwrap();
    assert_eq!(class["overhead"]["podFixed"], json!({"cpu": "250m", "memory": "320Mi"}));
    assert_eq!(class["scheduling"]["nodeSelector"], json!({kata::ROLE_LABEL: ""}));
    assert_eq!(class["metadata"]["ownerReferences"][0]["kind"], "KataConfig");
    assert_eq!(plan.status.runtime_classes, ["kata"]);
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "False//2/2");
    assert!(plan.writes.is_empty(), "an edited RuntimeClass is left alone");
}

#[test]
fn removal_goes_backwards_and_the_finalizer_is_last() {
    let mut seen = installed();
    delete(&mut seen);
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "True/Uninstalling/2/2", "lists stay until somebody starts");
    assert_eq!(message(&plan), "Removing kata from cluster");
    assert_eq!(plan.writes.len(), 3, "two labels, one config: {:?}", plan.writes);
    seen.pools.insert("worker".into(), pool("worker", 2, WORKER, true));
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "True/Uninstalling/0/0");
    assert_eq!(plan.status.kata_nodes.waiting_to_uninstall, ["w0", "w1"]);
    the(&mut seen, "w1").state = Some(NodeState::Working);
    assert_eq!(settle(&mut seen).status.kata_nodes.uninstalling, ["w1"]);
    for name in ["w0", "w1"] {
        let node = the(&mut seen, name);
        (node.current, node.state) = (Some(WORKER.into()), Some(NodeState::Done));
    }
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "False//0/0");
    assert_eq!(plan.writes, [Write::DeletePool("kata-oc".into()), Write::RemoveFinalizer]);
}

#[test]
fn deletion_while_installing_removes_nothing_until_it_ends() {
    let mut seen = world(json!({}));
    settle(&mut seen);
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
    delete(&mut seen);
    assert!(settle(&mut seen).writes.is_empty());
    for name in ["w0", "w1"] {
        the(&mut seen, name).current = Some(KATA.into());
    }
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, false));
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "True/Uninstalling/2/0");
    assert!(plan.writes.contains(&Write::Unlabel("w0".into())));
}

#[test]
fn deletion_does_not_wait_for_a_rollout_that_is_frozen() {
    let mut seen = world(json!({}));
    settle(&mut seen);
    let mut frozen = pool("kata-oc", 2, KATA, false);
    frozen.spec.paused = true;
    seen.pools.insert("kata-oc".into(), frozen);
    assert_eq!(degraded(&settle(&mut seen)), "PoolPaused");
    delete(&mut seen);
    assert!(settle(&mut seen).writes.contains(&Write::DeleteConfig(kata::EXTENSION_CONFIG.into())));
}

#[test]
fn eligibility_proceeds_with_the_label_and_peer_pods_skip_the_check() {
    let mut seen = world(json!({"checkNodeEligibility": true}));
    settle(&mut seen);
    the(&mut seen, "w1").labels.insert(kata::ELIGIBLE_LABEL.into(), "true".into());
    assert_eq!(labelled(&settle(&mut seen)), ["w1"]);
    let mut seen = world(json!({"checkNodeEligibility": true, "enablePeerPods": true}));
    let plan = settle(&mut seen);
    assert!(labelled(&plan).is_empty() && !plan.writes.is_empty());
}

#[test]
fn a_late_worker_is_labelled_and_shows_updating() {
    let mut seen = installed();
    seen.nodes.push(node("w2", &[role::WORKER_LABEL], WORKER, NodeState::Done));
    let plan = settle(&mut seen);
    assert_eq!((labelled(&plan), state(&plan).as_str()), (vec!["w2"], "True/Updating/2/2"));
    assert_eq!(message(&plan), "Adding and/or removing kata-enabled nodes");
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 3, KATA, true));
    assert_eq!(settle(&mut seen).status.kata_nodes.waiting_to_install, ["w2"]);
}

#[test]
fn a_rollout_that_nobody_saw_is_recognised_by_its_result() {
    let mut seen = world(json!({}));
    settle(&mut seen);
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, false));
    assert_eq!(state(&settle(&mut seen)), "True/Installing/0/0", "nodes are not there yet");
    for name in ["w0", "w1"] {
        the(&mut seen, name).current = Some(KATA.into());
    }
    settle(&mut seen);
    assert_eq!(state(&settle(&mut seen)), "False//2/2");
}

#[test]
fn a_converged_cluster_uses_pool_master_and_ignores_the_selector() {
    let mut seen = world(json!({"kataConfigPoolSelector": {"matchLabels": {"foo": "bar"}}}));
    seen.nodes.retain(|node| node.name == "m0");
    the(&mut seen, "m0").labels.insert(role::WORKER_LABEL.into(), String::new());
    let mut third = seen.clone();
    seen.pools.insert("worker".into(), pool("worker", 0, WORKER, false));
    let plan = settle(&mut seen);
    assert_eq!(plan.writes.len(), 1, "{:?}", plan.writes);
    assert_eq!((seen.own_configs[0].role.as_str(), plan.status.waiting_for_mco_to_start), ("master", true));
    seen.pools.insert("master".into(), pool("master", 1, "rendered-master-2", true));
    seen.kata_rendered.insert("rendered-master-2".into());
    assert_eq!(settle(&mut seen).status.kata_nodes.waiting_to_install, ["m0"]);
    the(&mut seen, "m0").current = Some("rendered-master-2".into());
    seen.pools.insert("master".into(), pool("master", 1, "rendered-master-2", false));
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "True/Installing/1/1");
    let Write::CreateRuntimeClass(class) = &plan.writes[0] else { panic!("{:?}", plan.writes) };
    let selector = class.scheduling.as_ref().unwrap().node_selector.clone().unwrap();
    assert_eq!(selector, BTreeMap::from([(role::MASTER_LABEL.to_owned(), String::new())]));
    delete(&mut seen);
    assert_eq!(settle(&mut seen).writes, [Write::DeleteConfig(kata::EXTENSION_CONFIG.into())]);
    seen.pools.insert("master".into(), pool("master", 1, MASTER, true));
    assert_eq!(settle(&mut seen).status.kata_nodes.waiting_to_uninstall, ["m0"]);
    the(&mut seen, "m0").current = Some(MASTER.into());
    assert_eq!(settle(&mut seen).writes, [Write::RemoveFinalizer], "pool master is never deleted");

    third.pools.insert("worker".into(), pool("worker", 0, WORKER, false));
    third.pools.insert("infra".into(), pool("infra", 0, WORKER, false));
    settle(&mut third);
    assert_eq!(third.own_configs[0].role, "kata-oc", "a third pool, not converged");
}

#[test]
fn the_log_level_is_created_updated_and_never_deleted_before_the_end() {
    let mut seen = world(json!({"logLevel": "debug"}));
    let plan = settle(&mut seen);
    assert!(plan.writes.iter().any(|write| matches!(write, Write::CreateLogLevel(made)
        if made.spec.machine_config_pool_selector.as_ref().is_some_and(|selector|
            selector.match_labels.contains_key("pools.operator.machineconfiguration.openshift.io/kata-oc")))));
    seen.configs[0].spec.log_level = "info".into();
    assert_eq!(settle(&mut seen).writes, [Write::SetLogLevel("info".into())]);
}

#[test]
fn a_layered_image_is_only_taken_before_there_is_a_config() {
    let mut seen = world(json!({}));
    seen.gates = BTreeMap::from([("layeredImageDeployment".to_owned(), "true".to_owned())]);
    assert_eq!(degraded(&settle(&mut seen)), "InvalidFeatureGates");
    seen.layered_image = Some(BTreeMap::from([
        ("osImageURL".to_owned(), "quay.example/os:1".to_owned()),
        ("kernelArguments".to_owned(), " a=1  b ".to_owned()),
    ]));
    let plan = settle(&mut seen);
    let Write::CreateConfig(made) = &plan.writes[0] else { panic!("{:?}", plan.writes) };
    assert_eq!(made.name_any(), kata::IMAGE_CONFIG);
    assert_eq!(made.spec.kernel_arguments, Some(vec!["a=1".to_owned(), "b".to_owned()]));
    seen.gates.clear();
    assert!(settle(&mut seen).writes.is_empty());
}

#[test]
fn of_two_kataconfigs_the_first_counts_and_the_other_says_so() {
    let mut seen = world(json!({}));
    let mut other = config(json!({}));
    other.metadata.name = Some("another".into());
    seen.configs.push(other);
    // Same second: the name decides. Once acted upon, it stays the one.
    for (finalizer, first) in [(None, "another"), (Some(vec![kata::FINALIZER.to_owned()]), "example")] {
        seen.configs[0].metadata.finalizers = finalizer;
        let plans = decide(&seen, &Options::default());
        assert_eq!((plans[0].config.as_str(), degraded(&plans[1])), (first, "DuplicateKataConfig"));
        assert!(plans[1].writes.is_empty() && !plans[1].add_finalizer);
    }
}

#[test]
fn a_monitor_follows_its_image() {
    let mut seen = installed();
    let options = Options { monitor_image: Some("monitor:1".into()), ..Options::default() };
    let plan = decide(&seen, &options).remove(0);
    assert!(matches!(plan.writes.as_slice(), [Write::ApplyMonitor(_)]), "{:?}", plan.writes);
    seen.scc = Constraints::Absent;
    let plan = decide(&seen, &options).remove(0);
    assert!(matches!(plan.writes.as_slice(), [Write::CreateScc(_), Write::ApplyMonitor(_)]), "policy first");
    seen.scc = Constraints::Outdated;
    let plan = decide(&seen, &options).remove(0);
    assert!(matches!(plan.writes.as_slice(), [Write::RepairScc, Write::ApplyMonitor(_)]), "{:?}", plan.writes);
}

#[test]
fn a_legacy_status_is_read_and_goes_on_as_the_present_form() {
    let mut seen = installed();
    let legacy = json!({"runtimeClass": "kata", "totalNodesCount": 2, "installationStatus": {"IsInProgress": "False",
        "completed": {"completedNodesCount": 2, "completedNodesList": ["w0", "w1"]}}});
    seen.configs[0].status = Some(serde_json::from_value(legacy).unwrap());
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "False//2/2");
    assert_eq!(plan.status.runtime_classes, ["kata"]);
    assert!(plan.status.conditions.iter().any(|condition| condition.type_ == "InProgress"), "{:?}", plan.status);
}

#[test]
fn the_dashboard_is_copied_where_the_console_lacks_it() {
    let mut seen = installed();
    assert!(settle(&mut seen).writes.is_empty());
    seen.dashboard_to_copy = true;
    assert_eq!(decide(&seen, &Options::default()).remove(0).writes, [Write::CopyDashboard]);
}

/// Whatever is seen, decisions settle: what was decided twice from the same is the same.
#[test]
fn every_state_meets_every_event_and_settles() {
    let states = [Seen::default(), world(json!({})), installed()];
    let events: [fn(&mut Seen); 8] = [
        |_| {},
        |seen| seen.nodes.iter_mut().for_each(|node| node.state = Some(NodeState::Working)),
        |seen| seen.nodes.iter_mut().for_each(|node| node.state = Some(NodeState::Degraded)),
        |seen| seen.nodes.clear(),
        |seen| seen.pools.clear(),
        |seen| seen.pools.values_mut().for_each(|pool| pool.spec.paused = true),
        |seen| seen.machine_api = false,
        |seen| {
            if !seen.configs.is_empty() {
                delete(seen)
            }
        },
    ];
    for (number, state) in states.iter().enumerate() {
        for (event, happen) in events.iter().enumerate() {
            let mut seen = state.clone();
            happen(&mut seen);
            if seen.configs.is_empty() {
                assert!(decide(&seen, &Options::default()).is_empty());
                continue;
            }
            for _ in 0..3 {
                settle(&mut seen);
            }
            let (first, second) = (decide(&seen, &Options::default()), decide(&seen, &Options::default()));
            assert_eq!(first, second, "state {number}, event {event}");
            let quiet = first[0].writes.iter().all(|write| matches!(write, Write::RemoveFinalizer));
            assert!(quiet, "state {number}, event {event}: {:?}", first[0].writes);
        }
    }
}
