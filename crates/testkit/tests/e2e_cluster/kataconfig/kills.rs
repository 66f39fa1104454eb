//! The cluster's process (operator, controller, daemons in one) is killed at every point
//! that shows: whatever was going on ends right when it is started again.

use std::fs;

use osc_testkit::{
    cluster::Cluster,
    command::{Background, until},
    host::LIMIT,
    processes,
};
use serde_json::Value;

use super::{CONFIG, apply, condition, gone, identity, installed, instance, kill, names, nodes::Node, run};

/// Something that shows how far a flow is; from then on it holds, or for a moment only.
pub type Point<'a> = (&'a str, Box<dyn Fn() -> bool + 'a>);

pub fn point<'a>(name: &'a str, seen: impl Fn() -> bool + 'a) -> Point<'a> {
    (name, Box::new(seen))
}

/// Kills the cluster at each point and starts it again, without waiting until it is up:
/// the next point may come before.
fn cut(cluster: &Cluster, points: &[Point<'_>]) {
    let mut killed = 0;
    let mut starting = None;
    for (name, seen) in points {
        assert!(until(2 * LIMIT, seen), "{name}: it does not come to that");
        killed = serving(cluster, killed);
        kill(cluster, killed);
        eprintln!("process {killed} was killed: {name}");
        starting = Some(Background::start(cluster.start_command()));
    }
    if let Some(starting) = starting {
        assert_eq!(starting.code(2 * LIMIT), 0);
    }
}

/// Process of the cluster, also of one that is not up yet, but not the one that `was`.
fn serving(cluster: &Cluster, was: i32) -> i32 {
    let mut pid = None;
    let found = until(LIMIT, || {
        let text = fs::read(instance(cluster)).unwrap_or_default();
        pid = serde_json::from_slice::<Value>(&text).ok().and_then(|said| said["pid"].as_i64());
        pid.is_some_and(|pid| pid != i64::from(was))
    });
    assert!(found, "nobody serves");
    i32::try_from(pid.unwrap()).unwrap()
}

/// What one step of an update leaves on a node, one after another.
pub fn update<'a>(node: &'a Node, arrives: bool) -> [Point<'a>; 3] {
    [
        point("an update is under way", move || node.is_changing() || node.has_arrived() == arrives),
        point("the engine's file is as it shall be", move || node.drop_in().exists() == arrives),
        point("the new configuration is recorded", move || node.has_arrived() == arrives),
    ]
}

#[test]
fn whatever_is_cut_off_ends_right() {
    let cluster = Cluster::up_with(&["--workers", "2"]);
    run(&cluster, "plain", "worker-1", false);
    let plain = identity(&cluster, "plain");
    let nodes = ["worker-1", "worker-2"].map(|name| Node::of(&cluster, name));
    let [one, two] = &nodes;
    let before = nodes.each_ref().map(Node::files);

    apply(&cluster);
    let mut points =
        vec![point("it was asked for", || true), point("a payload is being unpacked", || !one.versions().is_empty())];
    points.extend(update(one, true));
    points.push(point("a payload is being unpacked there, too", || !two.versions().is_empty()));
    points.extend(update(two, true));
    cut(&cluster, &points);
    installed(&cluster, &["worker-1", "worker-2"]);
    whole(&cluster, &nodes);

    cluster.kubectl(&["label", "node", "worker-2", "sandboxes=no"], "").ok();
    let mut points = vec![point("it was asked for", || true)];
    points.extend(update(two, false));
    cut(&cluster, &points);
    installed(&cluster, &["worker-1"]);
    assert_eq!(two.files(), before[1]);
    cluster.kubectl(&["label", "node", "worker-2", "sandboxes-"], "").ok();
    cut(&cluster, &update(two, true));
    installed(&cluster, &["worker-1", "worker-2"]);
    whole(&cluster, &nodes);

    cluster.kubectl(&["delete", "kataconfig", CONFIG, "--wait=false"], "").ok();
    let mut points = vec![point("it was asked for", || true)];
    points.extend(update(one, false));
    points.extend(update(two, false));
    cut(&cluster, &points);
    gone(&cluster);
    cluster.eventually("nodes are as they were", || nodes.each_ref().map(Node::files) == before);
    assert_eq!(identity(&cluster, "plain"), plain);
    assert!(!names(&cluster, "mc").contains(&"50-enable-sandboxed-containers-extension".to_owned()));
    cluster.end();
}

/// Everything is there, once, and nothing is left of what was cut off.
fn whole(cluster: &Cluster, nodes: &[Node; 2]) {
    let config = cluster.get(&["kataconfig", CONFIG]);
    assert_eq!(condition(&config, "Degraded")[1], "AsExpected", "{config}");
    assert_eq!(names(cluster, "mcp"), ["kata-oc", "master", "worker"]);
    assert_eq!(names(cluster, "runtimeclasses"), ["kata"]);
    let asked: Vec<_> = names(cluster, "mc").into_iter().filter(|name| name.contains("sandboxed")).collect();
    assert_eq!(asked, ["50-enable-sandboxed-containers-extension"]);
    for node in nodes {
        assert!(!node.is_changing());
        assert_eq!(Vec::from_iter(node.versions()), [node.current().unwrap()]);
        let left: Vec<_> = node.files().into_iter().filter(|path| path.to_string_lossy().contains("/.mcd-")).collect();
        assert!(left.is_empty(), "{left:?}");
        let engines = processes::with(&["containerd --config", node.root.to_str().unwrap()]);
        assert_eq!(engines.len(), 1, "{engines:?}");
    }
}
