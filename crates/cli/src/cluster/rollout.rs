//! How far sandboxes have got on the nodes, in words.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use osc_agent_protocol::Kind;
use osc_objects::{
    ConditionStatus, KataConfig, KataConfigStatus, KataNodes, MachineConfigPool,
    kata_config::ConditionType,
    names::machine::{self, NodeState},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Failure;

/// Most pods that are named.
const MOST: usize = 5;
/// In place of what a later line says in full.
const BELOW: &str = "see below";
/// Shorter texts may be part of a message by chance.
const TELLING: usize = 8;

/// A KataConfig.
#[derive(Debug, Serialize)]
pub struct KataReport {
    name: String,
    ready: i64,
    nodes: i64,
    /// What happens, or what is waited for; empty at rest.
    doing: String,
    /// What is in the way, and what to do; empty if nothing is.
    problem: String,
}

/// A pool of nodes.
#[derive(Debug, Serialize)]
pub struct PoolReport {
    name: String,
    updated: i32,
    failed: i32,
    nodes: i32,
    /// What its conditions say; empty when it is updated.
    message: String,
}

/// All of them; none where the kinds are unknown.
pub async fn look(client: &Client) -> Result<(Vec<KataReport>, Vec<PoolReport>), Failure> {
    let configs = all::<KataConfig>(client).await?;
    let pools = all::<MachineConfigPool>(client).await?;
    Ok((configs.iter().map(kata).collect(), pools.iter().map(pool).collect()))
}

async fn all<K>(client: &Client) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    match Api::<K>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(Failure::new(Kind::Unavailable, error)),
    }
}

fn kata(config: &KataConfig) -> KataReport {
    let status = config.status.clone().unwrap_or_default();
    let lists = &status.kata_nodes;
    let problem = said(&status, ConditionType::Degraded);
    let failed = !lists.failed_to_install.is_empty() || !lists.failed_to_uninstall.is_empty();
    // The problem is that very failure, with what to do.
    let words = if failed && !problem.is_empty() { String::new() } else { said(&status, ConditionType::InProgress) };
    KataReport {
        name: config.name_any(),
        ready: lists.ready_node_count,
        nodes: lists.node_count,
        doing: joined([words, nodes(lists)]),
        problem,
    }
}

fn joined<const N: usize>(parts: [String; N]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// `text` without what others tell in full.
fn without(text: &str, told: &[String]) -> String {
    let told = told.iter().filter(|told| told.len() >= TELLING);
    // Pools quote.
    told.fold(text.to_owned(), |text, told| text.replace(&format!("{told:?}"), BELOW).replace(told.as_str(), BELOW))
}

/// The message of a condition that is true, or of one that says why it is not.
fn said(status: &KataConfigStatus, type_: ConditionType) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_.as_str());
    let told =
        condition.filter(|condition| condition.status == ConditionStatus::True || type_ == ConditionType::InProgress);
    told.map(|condition| condition.message.clone()).unwrap_or_default()
}

/// Nodes that are not where they shall be.
fn nodes(nodes: &KataNodes) -> String {
    let lists = [
        ("installing", &nodes.installing),
        ("waiting", &nodes.waiting_to_install),
        ("failed", &nodes.failed_to_install),
        ("uninstalling", &nodes.uninstalling),
        ("waiting to uninstall", &nodes.waiting_to_uninstall),
        ("failed to uninstall", &nodes.failed_to_uninstall),
    ];
    let told = lists.iter().filter(|(_, names)| !names.is_empty());
    told.map(|(word, names)| format!("{word}: {}", names.join(", "))).collect::<Vec<_>>().join("; ")
}

fn pool(pool: &MachineConfigPool) -> PoolReport {
    let status = pool.status.clone().unwrap_or_default();
    let telling = ["Degraded", "RenderDegraded", "NodeDegraded", "Updating"];
    let message = telling.iter().find(|type_| pool.is(type_)).and_then(|type_| pool.condition(type_));
    PoolReport {
        name: pool.name_any(),
        updated: status.updated_machine_count,
        failed: status.degraded_machine_count,
        nodes: status.machine_count,
        message: message.map(|condition| condition.message.clone()).unwrap_or_default(),
    }
}

/// Why a node did not become what its pool asks for; empty if nothing failed.
pub fn failure(node: &Node) -> String {
    let note = |name: &str| node.annotations().get(name).cloned().unwrap_or_default();
    match NodeState::parse(&note(machine::STATE)) {
        Some(NodeState::Degraded | NodeState::Unreconcilable) => note(machine::REASON),
        _ => String::new(),
    }
}

/// What happens to a node, or keeps it from happening; empty at rest.
pub fn node(node: &Node, pods: &[&Pod]) -> String {
    let note = |name: &str| node.annotations().get(name).map(String::as_str).unwrap_or_default();
    let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let drain = note(machine::DESIRED_DRAIN);
    match NodeState::parse(note(machine::STATE)) {
        Some(NodeState::Degraded) => format!("failed, it is tried again: {}", note(machine::REASON)),
        Some(NodeState::Unreconcilable) => {
            format!("cannot become what its pool asks for: {}", note(machine::REASON))
        }
        Some(NodeState::Working) if drain.starts_with("drain-") && drain != note(machine::LAST_APPLIED_DRAIN) => {
            format!("is being emptied; still there: {}", staying(pods))
        }
        Some(NodeState::Working) => "changes its configuration".into(),
        _ if cordoned => "is cordoned and takes no pods".into(),
        _ => String::new(),
    }
}

/// Names of pods that have not ended; not too many.
fn staying(pods: &[&Pod]) -> String {
    let phase = |pod: &&&Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let left = pods.iter().filter(|pod| !matches!(phase(pod).as_str(), "Succeeded" | "Failed"));
    let names: Vec<String> =
        left.map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())).collect();
    match names.len() {
        0 => "no pods".into(),
        many if many > MOST => format!("{} and {} more", names[..MOST].join(", "), many - MOST),
        _ => names.join(", "),
    }
}

impl KataReport {
    /// In one line; `told` is what lines below it say.
    pub fn line(&self, told: &[String]) -> String {
        let head = format!("kataconfig     {}: {} of {} nodes can run sandboxes", self.name, self.ready, self.nodes);
        joined([head, without(&self.doing, told), without(&self.problem, told)])
    }
}

impl PoolReport {
    /// Whether it is worth a line: pools without nodes are not.
    pub fn matters(&self) -> bool {
        self.nodes > 0 || !self.message.is_empty()
    }

    /// What it says that nobody below it does.
    pub fn message(&self, told: &[String]) -> String {
        let message = without(&self.message, told);
        if message.contains(BELOW) { String::new() } else { message }
    }

    /// In one line; `told` is what lines below it say.
    pub fn line(&self, told: &[String]) -> String {
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let head = format!("pool           {}: {} of {} nodes updated{failed}", self.name, self.updated, self.nodes);
        joined([head, self.message(told)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kataconfig_says_what_it_waits_for() {
        let config = |status: serde_json::Value| -> KataConfig {
            serde_json::from_value(json!({"apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig",
                "metadata": {"name": "example"}, "spec": {}, "status": status}))
            .unwrap()
        };
        let condition = |type_: &str, status: &str, message: &str| json!({"type": type_, "status": status, "reason": "", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        for (status, want) in [
            (json!({}), "kataconfig     example: 0 of 0 nodes can run sandboxes"),
            (
                json!({"kataNodes": {"nodeCount": 2, "readyNodeCount": 1, "installed": ["a"], "installing": ["b"]},
                    "conditions": [condition("InProgress", "True", "Performing")]}),
                "kataconfig     example: 1 of 2 nodes can run sandboxes; Performing; installing: b",
            ),
            (
                json!({"kataNodes": {"nodeCount": 1, "readyNodeCount": 1, "installed": ["a"]},
                    "conditions": [condition("InProgress", "False", ""), condition("Degraded", "True", "pool paused")]}),
                "kataconfig     example: 1 of 1 nodes can run sandboxes; pool paused",
            ),
            (
                json!({"kataNodes": {"nodeCount": 1, "failedToInstall": ["a"]},
                    "conditions": [condition("InProgress", "True", "Node a Degraded: why"),
                        condition("Degraded", "True", "node a could not be updated (why)")]}),
                "kataconfig     example: 0 of 1 nodes can run sandboxes; failed: a; node a could not be updated (why)",
            ),
        ] {
            assert_eq!(kata(&config(status)).line(&[]), want);
        }
    }

    #[test]
    fn a_failure_is_told_once_by_whom_it_befell() {
        let why = "cannot write /etc/\"x\": disk full".to_owned();
        let rendered = "MachineConfig 50-x: no such key".to_owned();
        let config = KataReport {
            name: "example".into(),
            ready: 0,
            nodes: 1,
            doing: "failed: w0".into(),
            problem: format!("node w0 could not be updated ({why}): correct that. pool p ({rendered}): correct it"),
        };
        let pool = |message: &str, failed| PoolReport {
            name: "p".into(),
            updated: 0,
            failed,
            nodes: 1,
            message: message.into(),
        };
        assert_eq!(
            config.line(&[String::new(), why.clone(), rendered.clone()]),
            "kataconfig     example: 0 of 1 nodes can run sandboxes; failed: w0; node w0 could not be updated \
             (see below): correct that. pool p (see below): correct it"
        );
        for (message, failed, want) in [
            (format!("Node w0 is reporting: {why:?}"), 1, "pool           p: 0 of 1 nodes updated, 1 failed"),
            (rendered, 0, "pool           p: 0 of 1 nodes updated; MachineConfig 50-x: no such key"),
        ] {
            assert_eq!(pool(&message, failed).line(std::slice::from_ref(&why)), want);
        }
    }

    #[test]
    fn a_node_says_what_it_waits_for() {
        let pod = |name: &str, phase: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name}, "status": {"phase": phase}}))
                .unwrap()
        };
        let pods = [pod("a", "Running"), pod("done", "Succeeded")];
        for (state, drain, cordoned, want) in [
            ("", "", false, ""),
            ("Done", "", false, ""),
            ("Done", "", true, "is cordoned and takes no pods"),
            ("Working", "", false, "changes its configuration"),
            ("Working", "drain-x", true, "is being emptied; still there: n/a"),
            ("Working", "applied", true, "changes its configuration"),
            ("Degraded", "", false, "failed, it is tried again: why"),
            ("Unreconcilable", "", false, "cannot become what its pool asks for: why"),
        ] {
            let seen: Node = serde_json::from_value(json!({
                "metadata": {"name": "w", "annotations": {machine::STATE: state, machine::REASON: "why",
                    machine::DESIRED_DRAIN: drain, machine::LAST_APPLIED_DRAIN: "applied"}},
                "spec": {"unschedulable": cordoned},
            }))
            .unwrap();
            assert_eq!(node(&seen, &pods.iter().collect::<Vec<_>>()), want, "{state} {drain}");
            assert_eq!(failure(&seen), if want.ends_with("why") { "why" } else { "" }, "{state} {drain}");
        }
        let many: Vec<Pod> = (0..8).map(|number| pod(&format!("p{number}"), "Running")).collect();
        assert!(staying(&many.iter().collect::<Vec<_>>()).ends_with("n/p4 and 3 more"));
    }
}
