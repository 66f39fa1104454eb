//! Every state users can see, by watches: nothing between two looks is missed.

use std::time::Duration;

use osc_testkit::{
    cluster::Cluster,
    command::{Background, until},
    kubectl::Kubectl,
};
use serde_json::Value;

/// How long a watch may take to tell what has happened.
const LATE: Duration = Duration::from_secs(10);

const LISTS: [&str; 7] = [
    "installed",
    "installing",
    "waitingToInstall",
    "failedToInstall",
    "uninstalling",
    "waitingToUninstall",
    "failedToUninstall",
];

/// A KataConfig in one line: reason, whether its rollout is waited for, ready and all
/// nodes, and every list that has nodes.
pub fn state(config: &Value) -> String {
    let status = &config["status"];
    let [_, reason, _] = super::condition(config, "InProgress");
    let reason = if reason.is_empty() { "idle" } else { &reason };
    let waiting = if status["waitingForMcoToStart"] == true { " waiting" } else { "" };
    let nodes = &status["kataNodes"];
    let count = |name: &str| nodes[name].as_i64().unwrap_or(0);
    let mut line = format!("{reason}{waiting} {}/{}", count("readyNodeCount"), count("nodeCount"));
    for list in LISTS {
        let names: Vec<&str> = nodes[list].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            line.push_str(&format!(" {list}={}", names.join(",")));
        }
    }
    line
}

/// Watches of KataConfigs, as data and as the table people look at, and of the table of
/// pools.
pub struct Watching {
    configs: Background,
    table: Background,
    pools: Background,
}

impl Watching {
    pub fn start(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.root.join("kubeconfig");
        let kubectl = Kubectl { kubeconfig: &kubeconfig, program: "kubectl".into(), namespace: "default".into() };
        let pools = kubectl.start("get mcp --watch", &[]);
        // The first row proves that the watch is there; the others begin with a list, too.
        pools.expect("worker", LATE);
        Self {
            configs: kubectl.start("get kataconfig --watch --output json", &[]),
            table: kubectl.start("get kataconfig --watch --no-headers", &[]),
            pools,
        }
    }

    /// All states so far, one after another.
    pub fn states(&self) -> Vec<String> {
        let text = self.configs.shown();
        let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        // The last one may not be whole yet; a list is what there was before.
        let configs = objects.map_while(Result::ok).filter(|object| object["kind"] == "KataConfig");
        changes(configs.filter(|config| config["status"]["conditions"].is_array()).map(|config| state(&config)))
    }

    /// Rows of `kubectl get kataconfig`, without name and age.
    pub fn rows(&self) -> Vec<String> {
        rows(&self.table, super::CONFIG)
    }

    /// Rows of `kubectl get mcp kata-oc`, the configuration without its hash, without
    /// name and age.
    pub fn pools(&self) -> Vec<String> {
        let hashless = |row: String| match row.split_once("rendered-kata-oc-") {
            Some((_, rest)) => format!("rendered {}", rest.split_once(' ').unwrap_or_default().1),
            None => row,
        };
        changes(rows(&self.pools, "kata-oc").into_iter().map(hashless))
    }

    /// Waits until the states from `from` on contain some that begin like `wanted`, in this
    /// order. Others may lie between.
    #[track_caller]
    pub fn pass(&self, from: usize, wanted: &[&str]) {
        let all = || self.states();
        let seen = until(LATE, || in_order(&all()[from.min(all().len())..], wanted));
        assert!(seen, "wanted {wanted:#?}\nin {:#?}", &all()[from.min(all().len())..]);
    }

    /// How many states there were.
    pub fn now(&self) -> usize {
        self.states().len()
    }
}

/// Whether `all` contains, in this order, some that begin like `wanted`.
pub fn in_order<T: AsRef<str>>(all: &[T], wanted: &[&str]) -> bool {
    let mut all = all.iter();
    wanted.iter().all(|wanted| all.any(|one| one.as_ref().starts_with(wanted)))
}

fn rows(table: &Background, name: &str) -> Vec<String> {
    let text = table.shown();
    let rows = text.lines().filter_map(|line| line.strip_prefix(name));
    changes(rows.map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        words[..words.len().saturating_sub(1)].join(" ")
    }))
}

/// Without repetitions.
fn changes(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    all.dedup();
    all
}
