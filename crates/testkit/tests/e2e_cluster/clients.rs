//! The commands of people, typed at the embedded cluster with the newest and the oldest
//! client.

use std::time::Duration;

use osc_testkit::{
    cluster::Cluster,
    command::until,
    host::LIMIT,
    kubectl::{Kubectl, programs},
};
use serde_json::{Value, json};

use super::{commands, manifests, streams};

#[test]
fn old_and_new_clients_work_as_with_kubernetes() {
    let cluster = Cluster::up();
    let kubeconfig = cluster.root.join("kubeconfig");
    for (number, program) in programs().into_iter().enumerate() {
        let kubectl = Kubectl { kubeconfig: &kubeconfig, program, namespace: format!("client-{number}") };
        commands::looking_around(&kubectl);
        commands::objects(&kubectl);
        commands::life_of_a_pod(&kubectl);
        commands::services(&kubectl, "p");
        commands::debugging(&kubectl, "p", false);
        commands::ends_of_pods(&kubectl, Duration::from_secs(10));
        commands::late_runs_late(&kubectl);
        streams::logs(&kubectl);
        commands::rollouts(&kubectl);
        commands::autoscaling(&kubectl);
        commands::evictions(&kubectl, "v1");
        commands::custom_resources(&kubectl, true);
        commands::identities(&kubectl);
        commands::owners(&kubectl);
        kubectl.says(&format!("delete ns {}", kubectl.namespace), "", "deleted");
        kubectl.refuses(&format!("get ns {}", kubectl.namespace), "", "not found");
    }
    cluster.end();
}

#[test]
fn a_sandbox_can_be_worked_in_like_any_pod() {
    let cluster = Cluster::up();
    let kubeconfig = cluster.root.join("kubeconfig");
    for (number, program) in programs().into_iter().enumerate() {
        let kubectl = Kubectl { program, ..Kubectl::new(&kubeconfig) };
        if number == 0 {
            kubectl.says("apply -f -", &manifests::pod("box", streams::SERVER, true).to_string(), "created");
            kubectl.ok("wait pod/box --for=condition=Ready --timeout=120s");
            commands::overhead(&kubectl);
            one_view(&cluster);
            commands::services(&kubectl, "box");
        }
        streams::work(&kubectl, "box");
    }
    commands::debugging(&Kubectl::new(&kubeconfig), "box", true);
    cluster.end();
}

/// `osc` sees the pods of the cluster, too.
fn one_view(cluster: &Cluster) {
    let list = cluster.osc(&["ps"]).ok().text();
    let line = list.lines().find(|line| line.contains(" box ")).unwrap_or_else(|| panic!("{list}"));
    assert!(line.contains("kata") && line.contains("worker-1") && line.contains("Running"), "{line}");
    let json: Value = serde_json::from_slice(&cluster.osc(&["ps", "--json"]).ok().stdout).unwrap();
    assert_eq!((&json[0]["node"], &json[0]["name"]), (&json!("worker-1"), &json!("box")));
    assert!(until(LIMIT, || cluster.osc(&["logs", "box"]).ok().text() == "up"));
    let inside = cluster.osc(&["exec", "default/box", "--", "uname", "-r"]).ok().text();
    assert_ne!(inside, nix::sys::utsname::uname().unwrap().release().to_str().unwrap());
}
