//! MachineConfiguration `cluster`, and objects as kubectl prints them.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, api::ListParams};
use osc_machine_config::rights;
use osc_objects::{ConditionStatus, Conditions, MachineConfiguration, MachineConfigurationStatus};
use serde_json::{Value, json};

use crate::kit::{Cluster, PATIENCE};

/// Kinds of the actions for a path.
fn actions<'a>(status: &'a MachineConfigurationStatus, path: &str) -> Vec<&'a str> {
    let files = &status.node_disruption_policy_status.cluster_policies.files;
    let entries = files.iter().filter(|file| file.path == path);
    entries.flat_map(|file| &file.actions).map(|action| action.kind.as_str()).collect()
}

#[tokio::test]
async fn the_settings_exist_and_say_what_is_in_effect() {
    let cluster = Cluster::start().await;
    let settings: Api<MachineConfiguration> = Api::all(cluster.client.clone());
    let status = async |generation: i64| {
        let reported = |one: &MachineConfiguration| {
            one.status.as_ref().is_some_and(|status| status.observed_generation == generation)
        };
        cluster.until(&settings, "cluster", reported).await.status.unwrap()
    };
    let set = async |policy: Value| {
        cluster.change(&settings, "cluster", json!({"spec": {"nodeDisruptionPolicy": policy}})).await;
    };
    let built_in = status(1).await;
    assert_eq!(actions(&built_in, "/etc/containers/registries.conf"), ["Special"]);
    assert_eq!(built_in.conditions.of("Degraded").unwrap().status, ConditionStatus::False);

    let drain = json!([{"type": "Drain"}]);
    set(json!({"files": [{"path": "/etc/own", "actions": drain}], "units": [{"name": "a.service", "actions": drain}]}))
        .await;
    let own = status(2).await;
    assert_eq!(actions(&own, "/etc/own"), ["Drain"]);
    assert_eq!(own.node_disruption_policy_status.cluster_policies.units.len(), 1);

    set(json!({"files": [{"path": "/etc/own", "actions": [{"type": "Restart"}]}]})).await;
    let bad = status(3).await;
    let condition = bad.conditions.of("Degraded").unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::True, "InvalidNodeDisruptionPolicy"));
    assert!(condition.message.contains("file `/etc/own` names no service"), "{}", condition.message);
    assert_eq!(actions(&bad, "/etc/own"), ["Drain"], "what was in effect");

    set(json!({"files": null, "units": null})).await;
    let back = status(4).await;
    assert_eq!(back.node_disruption_policy_status, built_in.node_disruption_policy_status, "nothing is left over");
    // What only a status may say is no action to ask for.
    let special = json!({"spec": {"nodeDisruptionPolicy": {"sshkey": {"actions": [{"type": "Special"}]}}}});
    let patch = kube::api::Patch::Merge(special);
    let refusal = settings.patch("cluster", &Default::default(), &patch).await.unwrap_err().to_string();
    assert!(refusal.contains("Unsupported value: \"Special\""), "{refusal}");
    cluster.stop().await;
}

/// What people read is no reason to stop: a role of an older release lacks these rights.
#[tokio::test]
async fn a_status_that_cannot_be_written_stops_no_rollout() {
    let cluster = Cluster::played(1).await;
    let settings: Api<MachineConfiguration> = Api::all(cluster.client.clone());
    let observed = |one: &MachineConfiguration| one.status.as_ref().map(|status| status.observed_generation);
    cluster.until(&settings, "cluster", |one| observed(one) == Some(1)).await;
    let mut target = cluster.until_updated("worker", 1).await.target().unwrap().to_owned();
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let whole = roles.get(rights::CONTROLLER_ACCOUNT).await.unwrap().rules.unwrap();
    let mut fewer = whole.clone();
    fewer.retain(|rule| rule.resources.iter().flatten().all(|kind| !kind.starts_with("machineconfigurations")));
    let own: Api<MachineConfiguration> = Api::all(cluster.client_of(rights::CONTROLLER_ACCOUNT));
    for (rules, allowed, wanted) in [(fewer, false, 1), (whole, true, 2)] {
        cluster.change(&roles, rights::CONTROLLER_ACCOUNT, json!({"rules": rules})).await;
        let takes_effect = async {
            while own.list(&ListParams::default()).await.is_ok() != allowed {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, takes_effect).await.expect("the role counts");
        let policy = json!({"files": [{"path": "/etc/own", "actions": [{"type": "Drain"}]}]});
        cluster.change(&settings, "cluster", json!({"spec": {"nodeDisruptionPolicy": policy}})).await;
        cluster.file("00-worker", "worker", "/etc/a", &wanted.to_string()).await;
        target = cluster.until_retargeted("worker", &target).await;
        cluster.until_updated("worker", 1).await;
        cluster.until(&settings, "cluster", |one| observed(one) == Some(wanted)).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn row_28_columns_are_those_administrators_know() {
    let cluster = Cluster::played(1).await;
    cluster.until_updated("worker", 1).await;
    for (kind, columns, row) in [
        (
            "machineconfigpools",
            "Name Config Updated Updating Degraded MachineCount ReadyMachineCount UpdatedMachineCount \
             DegradedMachineCount Age",
            "worker rendered-worker-… True False False 1 1 1 0",
        ),
        ("machineconfigs", "Name GeneratedByController IgnitionVersion Age", "00-worker  3.2.0"),
    ] {
        let request = http::Request::get(format!("/apis/machineconfiguration.openshift.io/v1/{kind}"))
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .unwrap();
        let table: Value = cluster.client.request(request).await.unwrap();
        let names =
            table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>().join(" "), columns);
        let rows = table["rows"].as_array().unwrap().iter().map(|row| row["cells"].as_array().unwrap());
        let name = row.split(' ').next().unwrap();
        let cells = rows.into_iter().find(|cells| cells[0] == name).expect(name);
        // All but the age.
        let cells: Vec<String> = cells[..cells.len() - 1].iter().map(cell).collect();
        assert_eq!(cells.join(" "), row);
    }
    cluster.stop().await;
}

/// A cell as kubectl prints it, without the hash of a name.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.split_once("worker-").map_or(text.clone(), |(start, _)| format!("{start}worker-…")),
        other => other.to_string(),
    }
}
