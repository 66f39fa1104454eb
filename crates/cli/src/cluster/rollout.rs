//! How far sandboxes have got on the nodes, in words.

use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use osc_agent_protocol::Kind;
use osc_objects::{
    ConditionStatus, KataConfig, KataConfigStatus, KataNodes, MachineConfigPool, kata_config::ConditionType,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Failure;

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
    let words = |type_: ConditionType| said(&status, type_);
    KataReport {
        name: config.name_any(),
        ready: status.kata_nodes.ready_node_count,
        nodes: status.kata_nodes.node_count,
        doing: [words(ConditionType::InProgress), nodes(&status.kata_nodes)]
            .iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join("; "),
        problem: words(ConditionType::Degraded),
    }
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
        nodes: status.machine_count,
        message: message.map(|condition| condition.message.clone()).unwrap_or_default(),
    }
}

impl KataReport {
    /// In one line.
    pub fn line(&self) -> String {
        let head = format!("kataconfig     {}: {} of {} nodes can run sandboxes", self.name, self.ready, self.nodes);
        [head, self.doing.clone(), self.problem.clone()]
            .iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl PoolReport {
    /// Whether it is worth a line: pools without nodes are not.
    pub fn matters(&self) -> bool {
        self.nodes > 0 || !self.message.is_empty()
    }

    /// In one line.
    pub fn line(&self) -> String {
        let head = format!("pool           {}: {} of {} nodes updated", self.name, self.updated, self.nodes);
        if self.message.is_empty() { head } else { format!("{head}; {}", self.message) }
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
        ] {
            assert_eq!(kata(&config(status)).line(), want);
        }
    }
}
