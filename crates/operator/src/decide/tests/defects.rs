//! Defects of earlier operators, one test each; numbers are those of their issues.

use super::*;

/// Deletion hung where no node had sandboxes (314).
#[test]
fn deletion_with_no_matching_node_completes_without_waiting() {
    let mut seen = world(json!({"kataConfigPoolSelector": {"matchLabels": {"foo": "bar"}}}));
    assert_eq!(degraded(&settle(&mut seen)), "NoMatchingNodes");
    delete(&mut seen);
    // The pool was never seen by anybody, so the installation never began.
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 0, KATA, false));
    settle(&mut seen);
    assert!(settle(&mut seen).writes.contains(&Write::RemoveFinalizer));
}

/// Blocked deletion was only in the logs (88), and completed pods blocked it too.
#[test]
fn pods_in_sandboxes_block_deletion_and_completed_ones_do_not() {
    let pod = |phase: &str, class: Value| {
        serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"runtimeClassName": class, "containers": []}, "status": {"phase": phase}}))
        .unwrap()
    };
    for (phase, class, blocks) in [
        ("Running", json!("kata"), true),
        ("Pending", json!("kata"), true),
        ("Unknown", json!("kata"), true),
        ("Succeeded", json!("kata"), false),
        ("Failed", json!("kata"), false),
        ("Running", json!("other"), false),
        ("Running", Value::Null, false),
    ] {
        let mut seen = installed();
        delete(&mut seen);
        seen.pods = PodsSeen::Listed(PodSeen::of(&pod(phase, class.clone())).into_iter().collect());
        let plan = settle(&mut seen);
        assert_eq!(state(&plan) == "False/BlockedByExistingKataPods/2/2", blocks, "{phase} {class}");
        if blocks {
            assert_eq!(
                message(&plan),
                "existing pods using \"kata\" RuntimeClass found. Please delete the pods manually for KataConfig \
                 deletion to proceed"
            );
            assert!(plan.writes.is_empty());
            assert_eq!(degraded(&plan), "BlockedByPods", "not only in the logs");
        }
    }
    let mut seen = installed();
    delete(&mut seen);
    seen.pods = PodsSeen::Failed("no API".into());
    assert_eq!(message(&settle(&mut seen)), "failed to list kata pods: no API");
}

/// An invalid selector, no eligible node and a bad log level gave no condition.
#[test]
fn what_is_wrong_with_the_specification_is_a_condition_and_changes_nothing() {
    for (spec, reason) in [
        (
            json!({"kataConfigPoolSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
            "InvalidSelector",
        ),
        (json!({"checkNodeEligibility": true}), "NoEligibleNodes"),
    ] {
        let plan = settle(&mut world(spec.clone()));
        assert_eq!((degraded(&plan), state(&plan).as_str()), (reason, "False//0/0"), "{spec}");
        assert!(plan.writes.is_empty(), "{spec}: {:?}", plan.writes);
    }
    let plan = settle(&mut world(json!({"logLevel": "loud"})));
    assert_eq!(degraded(&plan), "InvalidLogLevel");
    let mut seen = world(json!({}));
    seen.machine_api = false;
    assert_eq!(degraded(&settle(&mut seen)), "MachineConfigAPIMissing");
}

/// Expressions got lost (118), and who stopped matching kept the label.
#[test]
fn match_expressions_are_kept_and_stale_labels_removed() {
    let selector = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
    let mut seen = world(json!({"kataConfigPoolSelector": selector}));
    the(&mut seen, "w0").labels.insert("zone".into(), "a".into());
    the(&mut seen, "w1").labels.insert(kata::ROLE_LABEL.into(), String::new());
    let plan = settle(&mut seen);
    assert_eq!(labelled(&plan), ["w0"]);
    assert!(plan.writes.contains(&Write::Unlabel("w1".into())));
}

/// Nodes of custom pools were taken into a second one (107).
#[test]
fn a_node_of_another_custom_pool_is_left_there_and_named() {
    let mut seen = world(json!({}));
    let mut infra = pool("infra", 1, WORKER, false);
    infra.spec.node_selector = Some(osc_objects::LabelSelector::label("infra", ""));
    seen.pools.insert("infra".into(), infra);
    the(&mut seen, "w1").labels.insert("infra".into(), String::new());
    let plan = settle(&mut seen);
    assert_eq!((labelled(&plan), degraded(&plan)), (vec!["w0"], "NodeInOtherPool"));
    assert!(plan.status.conditions.of("Degraded").unwrap().message.contains("w1 (infra)"));
}

/// A node that was taken out stayed as it was (KATA-1340).
#[test]
fn a_node_that_loses_its_label_is_followed_until_it_has_left() {
    let mut seen = installed();
    seen.configs[0].spec.kata_config_pool_selector = Some(osc_objects::LabelSelector::label("keep", "yes"));
    the(&mut seen, "w0").labels.insert("keep".into(), "yes".into());
    assert_eq!(settle(&mut seen).writes, [Write::Unlabel("w1".into())]);
    seen.pools.insert("worker".into(), pool("worker", 1, WORKER, true));
    assert_eq!(settle(&mut seen).status.kata_nodes.waiting_to_uninstall, ["w1"]);
    the(&mut seen, "w1").current = Some(WORKER.into());
    seen.pools.insert("worker".into(), pool("worker", 1, WORKER, false));
    assert_eq!(state(&settle(&mut seen)), "False//1/1");
}

/// Any rollout of workers showed as one of ours.
#[test]
fn unrelated_worker_rollouts_do_not_show_updating() {
    let mut seen = installed();
    seen.nodes.push(node("gpu", &[role::WORKER_LABEL, "only=x"], WORKER, NodeState::Working));
    seen.configs[0].spec.kata_config_pool_selector =
        serde_json::from_value(json!({"matchExpressions": [{"key": "only", "operator": "DoesNotExist"}]})).unwrap();
    seen.pools.insert("worker".into(), pool("worker", 1, "rendered-worker-2", true));
    let plan = settle(&mut seen);
    assert_eq!(state(&plan), "False//2/2");
}

/// A failure was told in logs, or not at all when it was a state of its own.
#[test]
fn failed_nodes_are_conditions_with_what_to_do() {
    for (bad, reason) in [(NodeState::Degraded, "NodeDegraded"), (NodeState::Unreconcilable, "NodeUnreconcilable")] {
        let mut seen = world(json!({}));
        settle(&mut seen);
        seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
        let broken = the(&mut seen, "w0");
        (broken.state, broken.reason) = (Some(bad), "disk full".into());
        let plan = settle(&mut seen);
        assert_eq!(state(&plan), "True/Failed/2/0");
        assert_eq!(message(&plan), format!("Node w0 {}: disk full", bad.as_str()));
        assert_eq!(
            (degraded(&plan), plan.status.kata_nodes.failed_to_install.as_slice()),
            (reason, &["w0".to_owned()][..])
        );
        // The pool pausing does not hide it, and repair ends it.
        the(&mut seen, "w0").state = Some(NodeState::Working);
        assert_eq!(state(&settle(&mut seen)), "True/Installing/2/0");
    }
}

/// An installation stuck on a node that cannot be emptied without a word (60).
#[test]
fn a_blocked_drain_is_a_condition_after_a_while() {
    let mut seen = world(json!({}));
    settle(&mut seen);
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
    the(&mut seen, "w0").state = Some(NodeState::Working);
    for (since, wanted) in [(1000 - 599, "AsExpected"), (1000 - 600, "DrainBlocked")] {
        seen.draining = BTreeMap::from([("w0".to_owned(), at(since))]);
        assert_eq!(degraded(&settle(&mut seen)), wanted);
    }
}

/// One node that nobody manages yet hid all others.
#[test]
fn a_node_without_annotations_does_not_hide_the_others() {
    let mut seen = world(json!({}));
    settle(&mut seen);
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
    let silent = the(&mut seen, "w0");
    (silent.current, silent.state, silent.created) = (None, None, Some(at(0)));
    let plan = settle(&mut seen);
    assert_eq!(plan.status.kata_nodes.waiting_to_install, ["w1"]);
    assert_eq!(degraded(&plan), "NodeDegraded");
}

/// Masters that take pods waited for ever (2629, 135).
#[test]
fn schedulable_masters_of_a_hybrid_cluster_are_left_alone() {
    let mut seen = world(json!({}));
    the(&mut seen, "m0").labels.insert(role::WORKER_LABEL.into(), String::new());
    assert_eq!(labelled(&settle(&mut seen)), ["w0", "w1"]);
    assert_eq!(settle(&mut seen).status.kata_nodes.waiting_to_install, Vec::<String>::new());
}

/// A name that no platform knows for the extension stopped the pool without a word (113).
#[test]
fn a_bad_extension_name_is_a_condition_that_names_it() {
    let mut seen = world(json!({}));
    settle(&mut seen);
    let mut broken = pool("kata-oc", 2, "", false);
    let why = "MachineConfig 50-enable-sandboxed-containers-extension asks for unknown extension `x`";
    let condition = json!({"type": "RenderDegraded", "status": "True", "message": why});
    broken.status.as_mut().unwrap().conditions.push(serde_json::from_value(condition).unwrap());
    seen.pools.insert("kata-oc".into(), broken);
    let plan = settle(&mut seen);
    assert_eq!((degraded(&plan), state(&plan).as_str()), ("PoolDegraded", "True/Installing/0/0"));
    let text = &plan.status.conditions.of("Degraded").unwrap().message;
    assert!(text.contains(why) && text.contains("correct the MachineConfig it names"), "{text}");
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
    assert_eq!(degraded(&settle(&mut seen)), "AsExpected");
}

/// A paused pool was waited for, for ever and in silence: while nodes come, and while they go.
#[test]
fn a_paused_pool_is_a_condition_while_somebody_waits_for_it() {
    let paused = |name: &str, target: &str, paused: bool| {
        let mut pool = pool(name, 2, target, false);
        pool.spec.paused = paused;
        pool
    };
    let mut seen = world(json!({}));
    settle(&mut seen);
    seen.pools.insert("kata-oc".into(), paused("kata-oc", KATA, true));
    let plan = settle(&mut seen);
    assert_eq!((degraded(&plan), state(&plan).as_str()), ("PoolPaused", "True/Installing/0/0"));
    assert!(plan.status.conditions.of("Degraded").unwrap().message.contains("kata-oc is paused"));
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
    assert_eq!(degraded(&settle(&mut seen)), "AsExpected");

    let mut seen = installed();
    seen.pools.insert("kata-oc".into(), paused("kata-oc", KATA, true));
    assert_eq!(degraded(&settle(&mut seen)), "AsExpected", "nobody waits");
    delete(&mut seen);
    seen.pools.insert("worker".into(), paused("worker", WORKER, true));
    settle(&mut seen);
    let plan = settle(&mut seen);
    assert_eq!((degraded(&plan), state(&plan).as_str()), ("PoolPaused", "True/Uninstalling/2/2"));
    assert!(plan.status.conditions.of("Degraded").unwrap().message.contains("worker is paused"));
}

/// A failure was forgotten in the pass that saw it when its pool did not say that it updates.
#[test]
fn a_failure_stays_whatever_its_pool_says() {
    for updating in [true, false] {
        let mut seen = world(json!({}));
        settle(&mut seen);
        seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, true));
        settle(&mut seen);
        seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, updating));
        let broken = the(&mut seen, "w0");
        (broken.state, broken.reason) = (Some(NodeState::Degraded), "disk full".into());
        for pass in 0..2 {
            assert_eq!(state(&settle(&mut seen)), "True/Failed/2/0", "pass {pass}, updating {updating}");
        }
    }
}

/// The monitor was started before its policy was on the node (183, 242).
#[test]
fn a_monitor_waits_until_nodes_have_what_it_needs() {
    let options = Options { monitor_image: Some("monitor:1".into()), ..Options::default() };
    let mut seen = world(json!({}));
    seen.scc = Constraints::Absent;
    settle(&mut seen);
    let writes = |seen: &Seen| decide(seen, &options).remove(0).writes;
    for (target, updating) in [("", false), (KATA, true)] {
        seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, target, updating));
        assert_eq!(writes(&seen), [], "{target} {updating}");
        settle(&mut seen);
    }
    for name in ["w0", "w1"] {
        the(&mut seen, name).current = Some(KATA.into());
    }
    seen.pools.insert("kata-oc".into(), pool("kata-oc", 2, KATA, false));
    let writes = writes(&seen);
    let [Write::CreateRuntimeClass(_), Write::CreateScc(_), Write::ApplyMonitor(_)] = writes.as_slice() else {
        panic!("{writes:?}")
    };
}

/// Labels were taken from who matched at the end, so who had stopped matching kept theirs.
#[test]
fn removal_takes_every_label_whoever_matches_by_then() {
    let mut seen = installed();
    seen.configs[0].spec.kata_config_pool_selector = Some(osc_objects::LabelSelector::label("nobody", "has-it"));
    delete(&mut seen);
    let plan = settle(&mut seen);
    for name in ["w0", "w1"] {
        assert!(plan.writes.contains(&Write::Unlabel(name.into())), "{:?}", plan.writes);
    }
}

/// Every pass moved the time of the condition, and the status woke the next pass.
#[test]
fn a_pass_that_changes_nothing_leaves_the_status_as_it_is() {
    let mut seen = installed();
    let before = settle(&mut seen).status;
    seen.now = at(5000);
    assert_eq!(settle(&mut seen).status, before);
}
