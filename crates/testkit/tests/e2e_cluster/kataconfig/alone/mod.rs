//! Operator, controller, and the daemon of a node, each killed alone while the others live:
//! whatever it was at goes on, and nothing is done twice.
//!
//! They are the released programs, beside a cluster that has none of them inside.

mod gate;
mod program;

use std::process::Command;

use osc_testkit::{
    cluster::Cluster,
    command,
    host::{LIMIT, built},
};

use self::program::Program;
use super::{
    CONFIG, apply, gone, installed,
    kills::{point, update},
    names,
    nodes::Node,
    watching,
};
use crate::{delivery, node_root::NodeRoot};

const NODES: [&str; 2] = ["worker-1", "worker-2"];
const EXTENSION: &str = "50-enable-sandboxed-containers-extension";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Operator,
    Controller,
    /// Of the second node.
    Daemon,
}

/// Everything of the test, in the order in which it ends.
struct World {
    operator: Program,
    controller: Program,
    daemons: [Program; 2],
    roots: [NodeRoot; 2],
    cluster: Cluster,
}

#[test]
fn a_program_killed_alone_at_any_write_goes_on() {
    let mut world = World::start();
    for victim in [Victim::Operator, Victim::Controller, Victim::Daemon] {
        world.comes_and_goes(victim);
    }
    let World { cluster, operator, controller, daemons, roots } = world;
    drop((operator, controller, daemons, roots));
    cluster.end();
}

impl World {
    fn start() -> Self {
        let cluster = Cluster::up_with(&["--sandboxes", "--workers", "2"]);
        delivery::define(&cluster);
        let payload = cluster.root.join("payload");
        let mut pack = Command::new(built("target/release/osc"));
        pack.args(["image", "payload", "--guest"]).arg(built("target/guest")).arg(&payload);
        command::run(pack, b"", LIMIT).ok();
        let roots = NODES.map(|node| NodeRoot::make(cluster.root.join(node)));
        roots.iter().for_each(|root| root.borrow(&payload, "payload"));
        let daemons = [0, 1].map(|at| Program::daemon(&cluster, NODES[at], &roots[at]));
        let (operator, controller) = (Program::operator(&cluster), Program::controller(&cluster));
        let is_worker = |node: &Node| node.has_recorded("rendered-worker-") && !node.is_changing();
        cluster.eventually("nodes are plain workers", || roots.iter().all(|root| is_worker(&root.node)));
        Self { operator, controller, daemons, roots, cluster }
    }

    /// Sandboxes come to both nodes, leave the second and come back, and are gone.
    fn comes_and_goes(&mut self, victim: Victim) {
        let before = self.roots.each_ref().map(|root| (root.node.files(), root.told().len()));
        apply(&self.cluster);
        let mut killed = self.cut(victim, true, "idle 2/2 installed=worker-1,worker-2");
        let made = self.whole();
        self.cluster.kubectl(&["label", "node", NODES[1], "sandboxes=no"], "").ok();
        killed += self.cut(victim, false, "idle 1/1 installed=worker-1");
        self.cluster.eventually("nothing stays there", || self.roots[1].node.files() == before[1].0);
        self.cluster.kubectl(&["label", "node", NODES[1], "sandboxes-"], "").ok();
        killed += self.cut(victim, true, "idle 2/2 installed=worker-1,worker-2");
        assert_eq!(self.whole(), made, "nothing was made anew");
        self.cluster.kubectl(&["delete", "kataconfig", CONFIG, "--wait=false"], "").ok();
        killed += self.cut(victim, false, "");
        gone(&self.cluster);
        eprintln!("{victim:?} was killed {killed} times");
        assert!(killed > 8, "{victim:?} was killed {killed} times only");

        for (at, (files, told)) in before.into_iter().enumerate() {
            let root = &self.roots[at];
            self.cluster.eventually("nodes are as they were", || root.node.files() == files);
            let restarts = root.told().len() - told;
            let steps = [2, 4][at];
            // A daemon cannot know whether the restart it was killed at was done.
            let most = if (victim, at) == (Victim::Daemon, 1) { steps + killed } else { steps };
            assert!((steps..=most).contains(&restarts), "{restarts} restarts of the engine of {}", NODES[at]);
        }
    }

    /// Kills the victim again and again until the KataConfig is in this state, or gone.
    fn cut(&mut self, victim: Victim, arrives: bool, wanted: &str) -> usize {
        let (cluster, daemon) = (&self.cluster, &self.roots[1].node);
        let offered = || names(cluster, "runtimeclasses") == ["kata"];
        let done = || state(cluster) == wanted && (wanted.is_empty() || offered());
        let step = format!("{victim:?} on the way to {wanted:?}");
        match victim {
            Victim::Operator => self.operator.cut(&step, Vec::new(), done),
            Victim::Controller => self.controller.cut(&step, Vec::new(), done),
            Victim::Daemon => {
                let mut points = Vec::from(update(daemon, arrives));
                if arrives {
                    points.insert(0, point("a payload is being unpacked", || !daemon.versions().is_empty()));
                }
                self.daemons[1].cut(&step, points, done)
            }
        }
    }

    /// Everything is there once; the identities of what was made.
    fn whole(&self) -> Vec<String> {
        installed(&self.cluster, &NODES);
        assert_eq!(names(&self.cluster, "mcp"), ["kata-oc", "master", "worker"]);
        assert_eq!(names(&self.cluster, "runtimeclasses"), ["kata"]);
        let rendered = names(&self.cluster, "mc").into_iter().filter(|name| name.starts_with("rendered-kata-oc-"));
        let rendered: Vec<_> = rendered.collect();
        assert_eq!(rendered.len(), 1, "{rendered:?}");
        for root in &self.roots {
            assert_eq!(Vec::from_iter(root.node.versions()), [root.node.current().unwrap()]);
            assert!(!root.node.is_changing() && root.engine_knows());
        }
        let made = [["mc", EXTENSION], ["mcp", "kata-oc"], ["mc", &rendered[0]], ["runtimeclass", "kata"]];
        made.iter().map(|object| self.cluster.get(object)["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
    }
}

/// State of the KataConfig; empty when there is none.
fn state(cluster: &Cluster) -> String {
    let configs = cluster.get(&["kataconfigs"]);
    let config = &configs["items"][0];
    if config.is_null() { String::new() } else { watching::state(config) }
}
