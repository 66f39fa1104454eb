//! What changes of configuration do to a node, from the MachineConfig to its files.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use osc_machine_config::names;
use osc_objects::ContainerRuntimeConfig;
use serde_json::{Value, json};

use crate::{
    kit::{Cluster, note, object},
    services::{Services, until_state},
};

const REGISTRY: &str = "[[registry]]\nlocation = \"a.example\"\n";
const MIRROR: &str = "[[registry.mirror]]\nlocation = \"m.example\"\n";

/// Deletes a MachineConfig and waits until nobody runs it any more.
async fn without(cluster: &Cluster, name: &str) {
    let old = cluster.pools.get("worker").await.unwrap().target().unwrap().to_owned();
    cluster.configs.delete(name, &DeleteParams::default()).await.unwrap();
    cluster.until_retargeted("worker", &old).await;
    cluster.until_updated("worker", 1).await;
}

#[tokio::test]
async fn rows_14_16_17_and_26_a_change_asks_for_what_its_rule_says() {
    let mut cluster = Cluster::start().await;
    let node = Services::of(&mut cluster).await;
    cluster.until_updated("worker", 1).await;
    assert_eq!(node.asked(), Vec::<String>::new(), "nothing was changed yet");
    let digest = format!("{REGISTRY}{MIRROR}pull-from-mirror = \"digest-only\"\n");
    let tag = format!("{digest}[[registry.mirror]]\nlocation = \"t.example\"\npull-from-mirror = \"tag-only\"\n");
    for (name, path, text, asked) in [
        ("10-none", "/var/lib/kubelet/config.json", "{}", &[][..]),
        ("10-any", "/etc/any", "x", &[]),
        ("10-policy", "/etc/containers/policy.json", "{}", &["Reload engine"]),
        ("10-registries", "/etc/containers/registries.conf", REGISTRY, &["Reload engine"]),
        ("10-registries", "/etc/containers/registries.conf", &digest, &["Reload engine"]),
    ] {
        let old = cluster.pools.get("worker").await.unwrap().target().unwrap().to_owned();
        cluster.file(name, "worker", path, text).await;
        cluster.until_retargeted("worker", &old).await;
        cluster.until_updated("worker", 1).await;
        let seen = cluster.nodes.get("n1").await.unwrap();
        assert_eq!(node.text(path).as_deref(), Some(text), "{path}");
        assert_eq!(node.asked(), asked, "{path}");
        assert_eq!((note(&seen, names::DESIRED_DRAIN), note(&seen, names::POST_ACTION)), <_>::default(), "{path}");
        assert_eq!((note(&seen, names::STATE).as_str(), note(&seen, names::REASON).as_str()), ("Done", ""));
    }
    blocked_drain(&cluster, &node, &digest, &tag).await;
    tuned(&cluster, &node).await;
    cluster.stop().await;
}

/// Rows 14 and 17: a mirror for tags drains the node, which waits for a budget.
async fn blocked_drain(cluster: &Cluster, node: &Services, before: &str, after: &str) {
    let pods = cluster.pod("kept", "n1", None).await;
    cluster.budget().await;
    cluster.file("10-registries", "worker", "/etc/containers/registries.conf", after).await;
    let asked = |node: &k8s_openapi::api::core::v1::Node| {
        note(node, names::DESIRED_DRAIN).starts_with("drain-")
            && node.spec.as_ref().unwrap().unschedulable == Some(true)
    };
    let seen = cluster.until(&cluster.nodes, "n1", asked).await;
    assert_eq!((note(&seen, names::STATE).as_str(), note(&seen, names::APPLIED_DRAIN).as_str()), ("Working", ""));
    assert_eq!(node.text("/etc/containers/registries.conf").as_deref(), Some(before), "nothing is touched before");
    assert!(pods.get_opt("kept").await.unwrap().is_some());
    cluster.allow(1).await;
    cluster.until_gone(&pods, "kept").await;
    node.until_text("/etc/containers/registries.conf", Some(after)).await;
    let target = cluster.until_updated("worker", 1).await.target().unwrap().to_owned();
    let seen = cluster.nodes.get("n1").await.unwrap();
    assert_eq!(note(&seen, names::APPLIED_DRAIN), format!("uncordon-{target}"));
    assert_ne!(seen.spec.unwrap().unschedulable, Some(true));
    assert_eq!(node.asked(), ["Reload engine"]);
}

/// Row 26: settings of the engine come to the node's disk, and go.
async fn tuned(cluster: &Cluster, node: &Services) {
    let all: Api<ContainerRuntimeConfig> = Api::all(cluster.client.clone());
    let selector = json!({"matchLabels": {format!("{}worker", names::POOL_PREFIX): ""}});
    let debug = json!({"metadata": {"name": "debug"}, "spec": {"machineConfigPoolSelector": selector,
        "containerRuntimeConfig": {"logLevel": "debug"}}});
    all.create(&PostParams::default(), &object(debug)).await.unwrap();
    let path = "/etc/crio/crio.conf.d/01-ctrcfg-logLevel";
    node.until_text(path, Some("[crio]\n  [crio.runtime]\n    log_level = \"debug\"\n")).await;
    cluster.until_updated("worker", 1).await;
    all.delete("debug", &DeleteParams::default()).await.unwrap();
    node.until_text(path, None).await;
    cluster.until_updated("worker", 1).await;
    assert_eq!(node.asked(), ["Restart engine", "Restart engine"], "CRI-O reads it only when it starts");
}

#[tokio::test]
async fn rows_18_to_23_and_25_files_of_a_node_are_guarded_refused_undone_and_given_back() {
    let mut cluster = Cluster::start().await;
    let node = Services::of(&mut cluster).await;
    node.put("/etc/issue", "theirs");
    node.put("/etc/neighbour", "theirs");
    fs::set_permissions(node.at("/etc/issue"), Permissions::from_mode(0o600)).unwrap();
    let old = cluster.until_updated("worker", 1).await.target().unwrap().to_owned();
    cluster.file("10-issue", "worker", "/etc/issue", "ours").await;
    cluster.file("10-new", "worker", "/etc/new", "ours").await;
    cluster.until_retargeted("worker", &old).await;
    node.until_text("/etc/new", Some("ours")).await;
    node.until_text("/etc/issue", Some("ours")).await;
    cluster.until_updated("worker", 1).await;

    guarded(&cluster, &node).await;
    refused(&cluster, &node).await;
    undone(&cluster, &node).await;

    // Row 22: a file of the system comes back, one that was new goes.
    without(&cluster, "10-issue").await;
    without(&cluster, "10-new").await;
    assert_eq!((node.text("/etc/issue").as_deref(), node.text("/etc/new")), (Some("theirs"), None));
    assert_eq!(fs::metadata(node.at("/etc/issue")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(node.text("/etc/neighbour").as_deref(), Some("edited"));
    cluster.stop().await;
}

/// Rows 18 and 19: a managed file is watched, with its mode; its neighbour is not.
async fn guarded(cluster: &Cluster, node: &Services) {
    node.put("/etc/neighbour", "edited");
    let begun = Instant::now();
    fs::set_permissions(node.at("/etc/new"), Permissions::from_mode(0o600)).unwrap();
    let reason = until_state(cluster, "Degraded", &["/etc/new: mode is 0600, expected 0644"]).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(!reason.contains("neighbour"), "{reason}");
    fs::set_permissions(node.at("/etc/new"), Permissions::from_mode(0o644)).unwrap();
    until_state(cluster, "Done", &[]).await;
}

/// Rows 21 and 25: what no node can become is told by its pool and reaches nobody.
async fn refused(cluster: &Cluster, node: &Services) {
    let ignition = |section: &str, value: Value| json!({"config": {"ignition": {"version": "3.2.0"}, section: value}});
    let target = cluster.until_updated("worker", 1).await.target().unwrap().to_owned();
    let (before, version) = (disk(node), cluster.nodes.get("n1").await.unwrap().resource_version());
    for (spec, part) in [
        (ignition("passwd", json!({"users": [{"name": "bob"}]})), "passwd.users.bob"),
        (ignition("storage", json!({"links": [{"path": "/etc/link", "target": "/etc/new"}]})), "storage.links"),
        (
            ignition("storage", json!({"files": [{"path": "/etc/new", "append": [{"source": "data:,x"}]}]})),
            "storage.files[/etc/new].append",
        ),
        (json!({"fips": true}), "fips"),
        (json!({"extensions": ["emacs"]}), "unknown extension `emacs`"),
    ] {
        cluster.config("50-bad", "worker", spec).await;
        let pool = cluster
            .until(&cluster.pools, "worker", |pool| {
                pool.is("RenderDegraded")
                    && pool.is("Degraded")
                    && ["50-bad", part]
                        .iter()
                        .all(|word| pool.condition("RenderDegraded").unwrap().message.contains(word))
            })
            .await;
        assert_eq!(pool.target(), Some(target.as_str()), "{part}");
        cluster.configs.delete("50-bad", &DeleteParams::default()).await.unwrap();
        cluster.until(&cluster.pools, "worker", |pool| !pool.is("RenderDegraded")).await;
    }
    assert_eq!(cluster.nodes.get("n1").await.unwrap().resource_version(), version, "nobody told the node anything");
    assert_eq!(disk(node), before);
}

/// Every file below the node's `/etc`.
fn disk(node: &Services) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, out: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, out);
            } else {
                out.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(&node.at("/etc"), &mut out);
    out
}

/// Row 23: a unit that cannot be enabled takes everything back that came with it.
async fn undone(cluster: &Cluster, node: &Services) {
    node.put("/broken/b.service", "");
    let old = cluster.pools.get("worker").await.unwrap().target().unwrap().to_owned();
    let contents = json!({"source": "data:,second"});
    let spec = json!({"config": {"ignition": {"version": "3.2.0"},
        "storage": {"files": [{"path": "/etc/new", "contents": contents}]},
        "systemd": {"units": [{"name": "b.service", "contents": "[Service]", "enabled": true}]}}});
    cluster.config("20-unit", "worker", spec).await;
    until_state(cluster, "Degraded", &["systemctl enable b.service", "bad unit file setting"]).await;
    cluster.until(&cluster.pools, "worker", |pool| pool.is("Degraded")).await;
    node.until_text("/etc/new", Some("ours")).await;
    node.until_text("/etc/systemd/system/b.service", None).await;
    fs::remove_file(node.at("/broken/b.service")).unwrap();
    cluster.until_retargeted("worker", &old).await;
    cluster.until_updated("worker", 1).await;
    assert_eq!(node.text("/etc/new").as_deref(), Some("second"));
    assert!(node.asked().contains(&"Restart b.service".to_owned()));
    without(cluster, "20-unit").await;
    assert_eq!(node.text("/etc/new").as_deref(), Some("ours"));
    assert_eq!(node.text("/etc/systemd/system/b.service"), None);
}
