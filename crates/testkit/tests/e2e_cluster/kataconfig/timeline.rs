//! The documentation's timeline, state by state: what users see while nodes get
//! sandboxes, come, go, are reconfigured, upgraded, emptied, and are plain again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use osc_testkit::{cluster::Cluster, processes};
use serde_json::json;

use super::{
    CONFIG, apply, described, eventually, identity, installed, kernel, kill,
    nodes::Node,
    run, told,
    watching::{Watching, in_order},
};

#[test]
fn a_kataconfig_goes_through_the_documented_states() {
    let mut cluster = Cluster::up_with(&["--workers", "2"]);
    run(&cluster, "plain", "worker-1", false);
    let plain = identity(&cluster, "plain");
    let before: Vec<_> = ["worker-1", "worker-2"].map(|name| Node::of(&cluster, name).files()).into();
    let watching = Watching::start(&cluster);

    install(&cluster, &watching);
    run(&cluster, "first", "worker-1", true);
    assert_ne!(kernel(&cluster, "first"), nix::sys::utsname::uname().unwrap().release().to_str().unwrap());
    let first = identity(&cluster, "first");
    labels(&cluster, &watching);
    let from = watching.now();
    cluster.up_again_with(&["--workers", "3"]);
    another_worker(&cluster, &watching, from);
    log_level(&cluster, &watching);
    drop(watching);
    let old = upgrade(&cluster);
    kernel(&cluster, "first");
    assert_eq!((identity(&cluster, "plain"), identity(&cluster, "first")), (plain, first), "nobody started them again");
    collected(&cluster, &old);

    let watching = Watching::start(&cluster);
    drain(&cluster, &watching);
    uninstall(&cluster, &watching);
    for (name, before) in ["worker-1", "worker-2"].iter().zip(before) {
        let node = Node::of(&cluster, name);
        cluster.eventually("as if nothing had been", || node.files() == before);
    }
    drop(watching);
    cluster.end();
}

fn install(cluster: &Cluster, watching: &Watching) {
    apply(cluster);
    installed(cluster, &["worker-1", "worker-2"]);
    watching.pass(
        0,
        &[
            "Installing waiting 0/0",
            "Installing 0/2 waitingToInstall=worker-1,worker-2",
            "Installing 0/2 installing=worker-1 waitingToInstall=worker-2",
            "Installing 1/2 installed=worker-1 installing=worker-2",
            "idle 2/2 installed=worker-1,worker-2",
        ],
    );
    // IN PROGRESS, COMPLETED, TOTAL
    let rows = watching.rows();
    assert!(in_order(&rows, &["True 0 0", "True 0 2", "True 1 2", "False 2 2"]), "{rows:#?}");
    // CONFIG, UPDATED, UPDATING, DEGRADED; machines, ready, updated, degraded
    let pools = watching.pools();
    let wanted = ["False True False 2 0 0 0", "False True False 2 1 1 0", "rendered True False False 2 2 2 0"];
    assert!(in_order(&pools, &wanted), "{pools:#?}");
    described(
        cluster,
        &[
            "Runtime Classes:",
            "kata",
            "Node Count: 2",
            "Ready Node Count: 2",
            "Installed:",
            "Status: False",
            "Reason: AsExpected",
            "Performing initial installation of kata on cluster",
        ],
    );
    let class = cluster.get(&["runtimeclass", "kata"]);
    assert_eq!(class["overhead"]["podFixed"]["cpu"], "250m");
    assert_eq!(class["scheduling"]["nodeSelector"], json!({"node-role.kubernetes.io/kata-oc": ""}));
    assert_eq!(class["metadata"]["ownerReferences"][0]["name"], CONFIG);
    told(cluster, &["2 of 2 nodes can run sandboxes", "pool           kata-oc: 2 of 2 nodes updated"]);
}

/// A node leaves the selection and comes back.
fn labels(cluster: &Cluster, watching: &Watching) {
    let from = watching.now();
    cluster.kubectl(&["label", "node", "worker-2", "sandboxes=no"], "").ok();
    installed(cluster, &["worker-1"]);
    let node = Node::of(cluster, "worker-2");
    assert!(node.current().is_none() && !node.drop_in().exists());
    cluster.kubectl(&["label", "node", "worker-2", "sandboxes-"], "").ok();
    installed(cluster, &["worker-1", "worker-2"]);
    watching.pass(
        from,
        &[
            "Updating 1/1 installed=worker-1",
            "idle 1/1 installed=worker-1",
            "Updating 1/2 installed=worker-1",
            "idle 2/2 installed=worker-1,worker-2",
        ],
    );
}

/// A node that joins is selected, and goes straight to what the others have.
fn another_worker(cluster: &Cluster, watching: &Watching, from: usize) {
    installed(cluster, &["worker-1", "worker-2", "worker-3"]);
    watching.pass(from, &["Updating", "idle 3/3"]);
    let current = |name| Node::of(cluster, name).current();
    assert_eq!(current("worker-3"), current("worker-1"));
}

/// Engines take over another log level one after another, and so do new sandboxes.
fn log_level(cluster: &Cluster, watching: &Watching) {
    let from = watching.now();
    let engine = Node::of(cluster, "worker-2").engine();
    cluster
        .kubectl(&["patch", "kataconfig", CONFIG, "--type=merge", "--patch", r#"{"spec":{"logLevel":"debug"}}"#], "")
        .ok();
    watching.pass(from, &["Updating 1/3 installed=worker-1 installing=worker-2 waitingToInstall=worker-3"]);
    installed(cluster, &["worker-1", "worker-2", "worker-3"]);
    assert_eq!(cluster.get(&["ctrcfg", "kata-crio-config"])["spec"]["containerRuntimeConfig"]["logLevel"], "debug");
    let node = Node::of(cluster, "worker-2");
    assert_ne!(node.engine(), engine, "it was restarted");
    let drop_in = fs::read_to_string(node.root.join("etc/crio/crio.conf.d/01-ctrcfg-logLevel")).unwrap();
    assert!(drop_in.contains("log_level = \"debug\""), "{drop_in}");
    run(cluster, "second", "worker-2", true);
    let debugging = |node: &str| {
        let shims = processes::with(&["containerd-shim-kata-v2", " -debug"]);
        let root = Node::of(cluster, node).root;
        shims.iter().filter(|shim| program(shim.pid).starts_with(&root)).count()
    };
    assert_eq!((debugging("worker-1"), debugging("worker-2")), (0, 1), "the old one goes on as it began");
}

/// File a process was started from.
fn program(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

/// The cluster begins anew with another payload; returns the old version. Pods stay on
/// theirs, new ones run from the new one.
fn upgrade(cluster: &Cluster) -> String {
    let old = Node::of(cluster, "worker-1").current().unwrap();
    let guest = cluster.root.join("var/lib/sandboxed-containers/guest");
    another_guest(&guest);
    kill(cluster, cluster.pid());
    cluster.again();
    let nodes = ["worker-1", "worker-2", "worker-3"].map(|name| Node::of(cluster, name));
    cluster.eventually("all nodes have the new version", || {
        nodes.iter().all(|node| node.current().is_some_and(|version| version != old))
    });
    installed(cluster, &["worker-1", "worker-2", "worker-3"]);
    run(cluster, "third", "worker-3", true);
    let machines =
        |version: &str| processes::of_sandboxes(&["qemu-system", version, cluster.root.to_str().unwrap()]).len();
    assert_eq!((machines(&old), machines(&nodes[2].current().unwrap())), (2, 1));
    assert!(nodes[0].versions().contains(&old), "a pod of it runs");
    cluster.eventually("nobody uses the old version on worker-3", || nodes[2].versions().len() == 1);
    old
}

/// The same guest with other bytes: zeros after an archive mean nothing to the kernel.
fn another_guest(place: &Path) {
    let source = fs::canonicalize(place).unwrap();
    fs::remove_file(place).unwrap();
    fs::create_dir(place).unwrap();
    fs::copy(source.join("vmlinux"), place.join("vmlinux")).unwrap();
    let mut initrd = fs::read(source.join("initrd.img")).unwrap();
    initrd.extend([0; 512]);
    fs::write(place.join("initrd.img"), initrd).unwrap();
}

/// A version goes with the last pod that runs from it.
fn collected(cluster: &Cluster, old: &str) {
    cluster.kubectl(&["delete", "pod", "first", "second"], "").ok();
    let nodes = ["worker-1", "worker-2"].map(|name| Node::of(cluster, name));
    cluster.eventually("the old version is gone", || nodes.iter().all(|node| !node.versions().contains(old)));
}

/// A configuration that moves pods away waits for their disruption budget, and says so.
fn drain(cluster: &Cluster, watching: &Watching) {
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "keep"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "third"}}}});
    cluster.kubectl(&["apply", "-f", "-"], &budget.to_string()).ok();
    let mirror = "data:,%5B%5Bregistry%5D%5D%0Alocation%20%3D%20%22a.example%22%0A\
                  %5B%5Bregistry.mirror%5D%5D%0Alocation%20%3D%20%22m.example%22%0A";
    let files = json!([{"path": "/etc/containers/registries.conf", "contents": {"source": mirror}}]);
    let config = json!({"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
        "metadata": {"name": "60-mirrors", "labels": {"machineconfiguration.openshift.io/role": "kata-oc"}},
        "spec": {"config": {"ignition": {"version": "3.2.0"}, "storage": {"files": files}}}});
    cluster.kubectl(&["apply", "-f", "-"], &config.to_string()).ok();

    eventually(cluster, "Updating 2/3 installed=worker-1,worker-2 installing=worker-3");
    described(cluster, &["Reason: Updating", "Message: Adding and/or removing kata-enabled nodes", "Installing:"]);
    let status = told(cluster, &["worker-3: is being emptied; still there: default/third"]);
    assert_eq!(status["nodes"][2]["doing"], "is being emptied; still there: default/third");
    let nodes = cluster.kubectl(&["get", "nodes"], "").ok().text();
    assert!(nodes.contains("Ready,SchedulingDisabled"), "{nodes}");
    kernel(cluster, "third");

    cluster.kubectl(&["delete", "pdb", "keep"], "").ok();
    installed(cluster, &["worker-1", "worker-2", "worker-3"]);
    assert!(cluster.kubectl(&["get", "pod", "third"], "").code != 0, "it was moved away");
    let nodes = cluster.kubectl(&["get", "nodes"], "").ok().text();
    assert!(!nodes.contains("SchedulingDisabled"), "{nodes}");
    watching.pass(0, &["Updating 0/3 installing=worker-1 waitingToInstall=worker-2,worker-3"]);
}

/// Deletion waits for pods, and takes everything away once they are gone.
fn uninstall(cluster: &Cluster, watching: &Watching) {
    run(cluster, "last", "worker-2", true);
    let from = watching.now();
    cluster.kubectl(&["delete", "kataconfig", CONFIG, "--wait=false"], "").ok();
    eventually(cluster, "BlockedByExistingKataPods 3/3 installed=worker-1,worker-2,worker-3");
    described(
        cluster,
        &[
            "Message: existing pods using \"kata\" RuntimeClass found. Please delete the pods manually for KataConfig \
           deletion to proceed",
            "Reason: BlockedByPods",
        ],
    );
    told(cluster, &["deletion waits for pods in sandboxes to end: delete default/last"]);
    cluster.kubectl(&["delete", "pod", "last"], "").ok();
    super::gone(cluster);
    watching.pass(
        from,
        &[
            "BlockedByExistingKataPods 3/3 installed=worker-1,worker-2,worker-3",
            "Uninstalling waiting 3/3 installed=worker-1,worker-2,worker-3",
            "Uninstalling 0/0",
            "idle 0/0",
        ],
    );
}
