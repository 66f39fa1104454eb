//! The Node object: what this node is and has, and that it is alive.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{self as core, Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use osc_agent_protocol::kind::chain;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    events::Recorder,
    machine::{Machine, problem},
};
use crate::{cri, pod::Note};

/// How often the node says that it is alive, and how long that holds.
const BEAT: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// How often an unchanged status is told all the same.
const STATUS: Duration = Duration::from_secs(300);
/// Pace of trying while the API is not there, and of looking whether the engine is back: who waits for this node goes
/// on with its word.
const RETRY: Duration = Duration::from_secs(1);
/// No answer of the API takes longer.
const ANSWER: Duration = Duration::from_secs(10);
const LEASES: &str = "kube-node-lease";

/// Keeps the Node object and its lease up to date.
pub(super) struct Heart {
    pub(super) client: Client,
    pub(super) options: Options,
    pub(super) machine: Machine,
    pub(super) engine: cri::Client,
    pub(super) recorder: Recorder,
}

impl Heart {
    /// Makes the Node known. Tries until the API takes it.
    pub(super) async fn register(&self) -> Node {
        loop {
            match timely(self.put()).await {
                Ok(node) => return node,
                Err(error) => {
                    tracing::warn!(node.name = self.options.name, error, "node is not registered, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn put(&self) -> kube::Result<Node> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let wanted = self.machine.node(&self.options);
        let node = match nodes.get_opt(&self.options.name).await? {
            None => nodes.create(&PostParams::default(), &wanted).await?,
            Some(_) => {
                let labels = json!({"metadata": {"labels": wanted.metadata.labels}, "spec": {"podCIDR": self.machine.pod_cidr, "podCIDRs": [self.machine.pod_cidr]}});
                nodes.patch(&self.options.name, &PatchParams::default(), &Patch::Merge(&labels)).await?
            }
        };
        self.recorder.node(&self.options.name, Note::pod(false, "Starting", "Starting the node agent."));
        Ok(node)
    }

    /// Beats until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut told: Option<(NodeStatus, Instant)> = None;
        let mut renewed: Option<Instant> = None;
        loop {
            let problem = problem(&self.engine).await;
            let before = told.as_ref().map(|(status, _)| status.clone());
            let status = self.machine.status(&self.options, problem, before.as_ref(), Timestamp::now());
            let due = told.as_ref().is_none_or(|(before, at)| !same(before, &status) || at.elapsed() >= STATUS);
            if due {
                match timely(self.tell(&status)).await {
                    Ok(()) => {
                        self.note_ready(before.as_ref(), &status);
                        told = Some((status, Instant::now()));
                    }
                    Err(error) => {
                        tracing::warn!(node.name = self.options.name, error, "status of the node is not told")
                    }
                }
            }
            if renewed.is_none_or(|at| at.elapsed() >= BEAT) {
                match timely(self.renew()).await {
                    Ok(()) => renewed = Some(Instant::now()),
                    Err(error) => {
                        tracing::warn!(node.name = self.options.name, error, "lease of the node is not renewed");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause(told.as_ref().map(|(status, _)| status))) => {}
            }
        }
    }

    async fn tell(&self, status: &NodeStatus) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        // By type, so that conditions of others stay.
        let patch = json!({"status": status});
        let told = nodes.patch_status(&self.options.name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
        if let Err(kube::Error::Api(error)) = &told
            && error.code == 404
        {
            self.put().await?;
            return nodes
                .patch_status(&self.options.name, &PatchParams::default(), &Patch::Strategic(&patch))
                .await
                .map(drop);
        }
        told.map(drop)
    }

    fn note_ready(&self, before: Option<&NodeStatus>, now: &NodeStatus) {
        let name = &self.options.name;
        match (before.is_some_and(is_ready), is_ready(now)) {
            (false, true) => {
                let message = format!("Node {name} status is now: NodeReady");
                self.recorder.node(name, Note::pod(false, "NodeReady", message));
            }
            (true, false) => {
                let message = format!("Node {name} status is now: NodeNotReady");
                self.recorder.node(name, Note::pod(true, "NodeNotReady", message));
            }
            _ => {}
        }
    }

    async fn renew(&self) -> kube::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let name = &self.options.name;
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
        let patch = json!({"spec": spec});
        match leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(error)) if error.code == 404 => {
                let lease = json!({"metadata": {"name": name, "namespace": LEASES}, "spec": spec});
                let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
                leases.create(&PostParams::default(), &lease).await.map(drop)
            }
            renewed => renewed.map(drop),
        }
    }
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How long nothing new is looked for, after the API was told this.
fn pause(told: Option<&NodeStatus>) -> Duration {
    if told.is_some_and(is_ready) { BEAT } else { RETRY }
}

/// The reason, in words, where there is no good answer in time.
async fn timely<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    }
}

/// Whether two statuses differ in nothing but the times of heartbeats.
fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let without = |status: &NodeStatus| {
        let mut value = json!(status);
        for condition in value["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastHeartbeatTime"] = Value::Null;
        }
        value
    };
    without(a) == without(b)
}

impl Machine {
    /// The object as it is created.
    fn node(&self, options: &Options) -> Node {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), options.name.clone()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), self.architecture().to_owned()),
        ]);
        labels.extend(options.labels.clone());
        let mut node = Node::default();
        node.metadata.name = Some(options.name.clone());
        node.metadata.labels = Some(labels);
        node.spec = Some(core::NodeSpec {
            pod_cidr: Some(self.pod_cidr.clone()),
            pod_cidrs: Some(vec![self.pod_cidr.clone()]),
            provider_id: Some(format!("osc://{}", options.name)),
            taints: (!options.taints.is_empty()).then(|| options.taints.clone()),
            ..Default::default()
        });
        node
    }

    /// The status; `problem` is why pods cannot be started, if they cannot.
    fn status(
        &self,
        options: &Options,
        problem: Option<String>,
        before: Option<&NodeStatus>,
        now: Timestamp,
    ) -> NodeStatus {
        let pressure = self.pressure();
        let ready = match problem {
            None => ("Ready", true, "NodeAgentReady", "node agent is posting ready status".to_owned()),
            Some(problem) => ("Ready", false, "NodeAgentNotReady", problem),
        };
        let calm = |kind, pressed: bool, yes, no, what: &str| {
            let word = if pressed { "has" } else { "has no" };
            (kind, pressed, if pressed { yes } else { no }, format!("node {word} {what} pressure"))
        };
        let conditions = [
            calm("MemoryPressure", pressure.memory, "InsufficientMemory", "SufficientMemory", "memory"),
            calm("DiskPressure", pressure.disk, "DiskFull", "NoDiskPressure", "disk"),
            calm("PIDPressure", pressure.processes, "InsufficientPID", "SufficientPID", "process id"),
            ready,
        ];
        let capacity = self.capacity(options);
        NodeStatus {
            addresses: Some(addresses(options)),
            allocatable: Some(capacity.clone()),
            capacity: Some(capacity),
            conditions: Some(conditions.map(|given| condition(given, before, now)).to_vec()),
            node_info: Some(self.info()),
            daemon_endpoints: None,
            ..Default::default()
        }
    }

    fn capacity(&self, options: &Options) -> BTreeMap<String, Quantity> {
        let cpu = options.capacity.cpu_milli.unwrap_or(self.cpus * 1000);
        let cpu = if cpu.is_multiple_of(1000) { (cpu / 1000).to_string() } else { format!("{cpu}m") };
        let memory = options.capacity.memory.unwrap_or(self.memory);
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu)),
            ("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024))),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", self.disk / 1024))),
            ("pods".to_owned(), Quantity(options.max_pods.to_string())),
        ])
    }

    fn info(&self) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: self.architecture().to_owned(),
            boot_id: self.boot_id.clone(),
            container_runtime_version: self.engine.clone(),
            kernel_version: self.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: concat!("v", env!("CARGO_PKG_VERSION"), "-osc").to_owned(),
            machine_id: self.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: self.os.clone(),
            system_uuid: self.machine_id.clone(),
            ..Default::default()
        }
    }
}

fn addresses(options: &Options) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let ip: IpAddr = options.address;
    vec![address("InternalIP", ip.to_string()), address("Hostname", options.name.clone())]
}

fn condition(
    (kind, is, reason, message): (&str, bool, &str, String),
    before: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeCondition {
    let status = if is { "True" } else { "False" };
    let old = before.and_then(|before| before.conditions.as_ref()?.iter().find(|old| old.type_ == kind));
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_alone_is_no_change() {
        let (machine, options) = (Machine::sample(), Options::sample());
        let at = |second: i64| Timestamp::from_second(second).expect("time");
        let first = machine.status(&options, None, None, at(1));
        let later = machine.status(&options, None, Some(&first), at(2));
        assert!(same(&first, &later));
        let ready = |status: &NodeStatus| status.conditions.clone().expect("conditions")[3].clone();
        assert_eq!(ready(&later).last_transition_time, Some(Time(at(1))));
        assert_eq!(ready(&later).last_heartbeat_time, Some(Time(at(2))));
        let broken = machine.status(&options, Some("containerd is gone".into()), Some(&later), at(3));
        assert!(!same(&later, &broken));
        assert_eq!((ready(&broken).status.as_str(), ready(&broken).last_transition_time), ("False", Some(Time(at(3)))));
        assert_eq!([None, Some(&first), Some(&broken)].map(pause), [RETRY, BEAT, RETRY]);
    }

    #[test]
    fn capacity_can_be_a_share() {
        let mut options = Options::sample();
        let capacity = |options: &Options| Machine::sample().capacity(options);
        assert_eq!(capacity(&options)["cpu"].0, "2");
        options.capacity.cpu_milli = Some(1500);
        options.capacity.memory = Some(1 << 30);
        assert_eq!(
            (capacity(&options)["cpu"].0.as_str(), capacity(&options)["memory"].0.as_str()),
            ("1500m", "1048576Ki")
        );
        assert_eq!(capacity(&options)["pods"].0, "110");
    }
}
