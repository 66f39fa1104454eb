//! Nodes that fail half-way: what fails is told, undone, tried again, and keeps nobody
//! else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use osc_testkit::cluster::Cluster;

use super::{
    CONFIG, apply, condition, described, identity, installed, kernel, nodes::Node, run, told, uninstalled,
    watching::state,
};

/// A mount over a directory of a node; gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// The directory itself, but nothing can be written.
    fn read_only(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let none = None::<&str>;
        mount(Some(dir), dir, none, MsFlags::MS_BIND, none).unwrap();
        let mounted = Self(dir.to_owned());
        mount(none, dir, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
        mounted
    }

    /// An empty disk on which little has room.
    fn small(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        Self(dir.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Not worth a second panic: the end of the cluster would tell.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Waits until a node has failed for a reason that has all of `words`, and everybody says
/// so: KataConfig, pool, and `osc status`.
#[track_caller]
fn failed(cluster: &Cluster, node: &str, words: &[&str]) {
    let config = || cluster.get(&["kataconfig", CONFIG]);
    cluster.eventually(&format!("{node} fails"), || {
        let [_, reason, message] = condition(&config(), "InProgress");
        reason == "Failed" && words.iter().all(|word| message.contains(word))
    });
    let [status, _, message] = condition(&config(), "InProgress");
    assert_eq!(status, "True");
    assert!(message.starts_with(&format!("Node {node} Degraded: ")), "{message}");
    let [status, reason, message] = condition(&config(), "Degraded");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "NodeDegraded"));
    assert!(message.contains("it is tried again by itself"), "{message}");
    described(cluster, &["Reason: Failed", "Reason: NodeDegraded", &format!("Message: Node {node} Degraded:")]);

    let pools = cluster.get(&["mcp"]);
    let failing: Vec<_> =
        pools["items"].as_array().unwrap().iter().filter(|pool| pool["status"]["degradedMachineCount"] == 1).collect();
    assert_eq!(failing.len(), 1, "{pools}");
    let name = failing[0]["metadata"]["name"].as_str().unwrap();
    let row = cluster.kubectl(&["get", "mcp", name, "--no-headers"], "").ok().text();
    let row: Vec<&str> = row.split_whitespace().rev().collect();
    assert_eq!((row[1], row[5]), ("1", "True"), "one machine is degraded, and so is the pool: {row:?}");

    let status = told(cluster, &[&format!("{node}: failed, it is tried again: "), "pool "]);
    let mut nodes = status["nodes"].as_array().unwrap().iter();
    let doing = nodes.find(|one| one["name"] == node).unwrap()["doing"].as_str().unwrap().to_owned();
    assert!(words.iter().all(|word| doing.contains(word)), "{doing}");
}

fn now(cluster: &Cluster) -> String {
    state(&cluster.get(&["kataconfig", CONFIG]))
}

#[test]
fn a_node_that_fails_is_what_it_was_and_goes_on_when_the_cause_is_gone() {
    let cluster = Cluster::up_with(&["--workers", "2"]);
    run(&cluster, "plain", "worker-1", false);
    let plain = identity(&cluster, "plain");
    let [one, two] = ["worker-1", "worker-2"].map(|name| Node::of(&cluster, name));

    // The last of three files cannot be written: the first two are taken back.
    let before = one.files();
    let mounted = Mounted::read_only(&one.root.join("usr/local/bin"));
    apply(&cluster);
    failed(&cluster, "worker-1", &["usr/local/bin", "Read-only file system"]);
    assert_eq!(now(&cluster), "Failed 0/2 waitingToInstall=worker-2 failedToInstall=worker-1");
    assert!(one.current().is_none() && !one.drop_in().exists() && !one.is_changing());
    let payload = |path: &PathBuf| path.starts_with(one.payloads());
    assert_eq!(one.files().into_iter().filter(|path| !payload(path)).collect::<Vec<_>>(), Vec::from_iter(before));
    assert_eq!(cluster.get(&["runtimeclasses"])["items"].as_array().unwrap().len(), 0, "nothing is offered too early");
    assert_eq!(identity(&cluster, "plain"), plain);
    drop(mounted);
    installed(&cluster, &["worker-1", "worker-2"]);
    assert_eq!(condition(&cluster.get(&["kataconfig", CONFIG]), "Degraded")[..2], ["False", "AsExpected"]);

    run(&cluster, "sandboxed", "worker-1", true);
    let sandboxed = identity(&cluster, "sandboxed");
    full_disk(&cluster, &two);
    engine_that_does_not_come_back(&cluster, &one, &two);
    kernel(&cluster, "sandboxed");
    assert_eq!((identity(&cluster, "plain"), identity(&cluster, "sandboxed")), (plain, sandboxed));

    cluster.kubectl(&["delete", "pod", "plain", "sandboxed"], "").ok();
    uninstalled(&cluster);
    cluster.end();
}

fn full_disk(cluster: &Cluster, two: &Node) {
    cluster.kubectl(&["label", "node", "worker-2", "sandboxes=no"], "").ok();
    installed(cluster, &["worker-1"]);
    cluster.eventually("nobody uses the payload", || two.versions().is_empty());
    let mounted = Mounted::small(&two.payloads());
    cluster.kubectl(&["label", "node", "worker-2", "sandboxes-"], "").ok();
    failed(cluster, "worker-2", &["cannot copy", "No space left on device"]);
    assert_eq!(now(cluster), "Failed 1/2 installed=worker-1 failedToInstall=worker-2");
    assert!(two.versions().is_empty() && !two.is_changing(), "nothing half-way stays");
    kernel(cluster, "sandboxed");
    drop(mounted);
    installed(cluster, &["worker-1", "worker-2"]);
}

/// Somebody's file keeps the engine from starting, which shows when it is restarted for
/// another reason.
fn engine_that_does_not_come_back(cluster: &Cluster, one: &Node, two: &Node) {
    let engine = two.engine();
    let machines = cluster.processes("qemu-system");
    let broken = one.drop_in().with_file_name("10-broken.toml");
    fs::write(&broken, "oom_score = \"nonsense\"\n").unwrap();
    let level = r#"{"spec":{"logLevel":"warn"}}"#;
    cluster.kubectl(&["patch", "kataconfig", CONFIG, "--type=merge", "--patch", level], "").ok();
    failed(cluster, "worker-1", &["the engine did not take its new configuration"]);
    assert_eq!(now(cluster), "Failed 0/2 waitingToInstall=worker-2 failedToInstall=worker-1");
    assert_eq!(two.engine(), engine, "the other node waits for it");
    assert_eq!(cluster.processes("qemu-system"), machines, "pods need no engine to go on");
    fs::remove_file(&broken).unwrap();
    installed(cluster, &["worker-1", "worker-2"]);
    assert_ne!(two.engine(), engine);
}
