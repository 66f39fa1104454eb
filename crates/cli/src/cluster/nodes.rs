//! The nodes of the cluster: those it starts with, and those that join it later.

use std::{fs, net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams};
use osc_access::Identity;
use osc_agent_protocol::Kind;
use osc_control_plane::ControlPlane;
use osc_node::{
    agent::{NodeAgent, Options},
    engine::{Engine, Kata},
    names::{Server, Zone},
    pod::{machine_cpus, machine_memory, model::Amounts},
};
use osc_runtime::{deadline::Deadline, dirs::Dirs};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    access::Agent,
    layout::{Layout, worker},
    sandboxing,
};
use crate::Failure;

/// How long nodes may take to become ready.
const READY: Duration = Duration::from_secs(60);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// Marks nodes that run what is not the control plane.
const WORKER: &str = "node-role.kubernetes.io/worker";

/// All of them, and what a new one needs.
pub(super) struct Nodes {
    pub(super) dirs: Dirs,
    pub(super) layout: Layout,
    /// Address under which pods reach this machine.
    pub(super) advertised: IpAddr,
    /// Offer the runtime class at once, instead of running daemons.
    pub(super) sandboxes: bool,
    /// What daemons wait for; none, and nodes have none.
    pub(super) defined: Option<sandboxing::Defined>,
    pub(super) zone: watch::Receiver<Arc<Zone>>,
    pub(super) payload: sandboxing::Payload,
    pub(super) stop: CancellationToken,
    pub(super) agents: Vec<NodeAgent>,
}

impl Nodes {
    /// Starts the node with this number, one of `all`, with its daemon.
    pub(super) async fn add(
        &mut self,
        number: u32,
        all: u32,
        plane: &ControlPlane,
        daemons: &mut sandboxing::Running,
    ) -> Result<(), Failure> {
        let name = worker(number);
        let client = Client::new(plane.service(Identity::node(&name)), "default");
        let mut options = self.options(&name, all, plane)?;
        options.dns = self.serve_names(options.address);
        let agent = NodeAgent::start(client, options, self.stop.child_token()).await?;
        plane.nodes().register(&name, Arc::new(Agent(agent.access())));
        if let Some(defined) = &self.defined {
            let before = (defined.clone(), self.payload.clone());
            sandboxing::start_daemon(daemons, plane, &name, agent.engine(), before, &self.stop);
        }
        self.agents.push(agent);
        Ok(())
    }

    fn options(&self, name: &str, all: u32, plane: &ControlPlane) -> Result<Options, Failure> {
        let dirs = self.layout.node(name);
        fs::create_dir_all(dirs.state())?;
        let subnets = Engine::new(dirs.clone()).subnets()?;
        // The bridge its pods are on has the first address of their network.
        let address = std::net::Ipv4Addr::from(u32::from(subnets.v4) + 1);
        let kata = self.sandboxes.then(|| Kata::installed(&self.dirs));
        let mut options = Options::new(name, address.into(), dirs, kata);
        options.labels.insert(WORKER.into(), String::new());
        options.api = Some((self.advertised.to_string(), plane.address().port()));
        if all > 1 {
            options.capacity = share(all);
        }
        Ok(options)
    }

    /// Serves names on the address of a node; that address, unless somebody else has
    /// the port there.
    fn serve_names(&self, address: IpAddr) -> Option<IpAddr> {
        let IpAddr::V4(v4) = address else { return None };
        match Server::bind(v4) {
            Ok(server) => {
                // Ends with the cluster, which nothing of it has to wait for.
                tokio::spawn(server.run(self.zone.clone(), self.stop.child_token()));
                Some(address)
            }
            Err(error) => {
                tracing::warn!(address = %address, error = %error, "pods get no names of services: the DNS port is taken");
                None
            }
        }
    }
}

/// One of `nodes` equal parts of this machine.
fn share(nodes: u32) -> Amounts {
    let parts = u64::from(nodes);
    Amounts { cpu_milli: Some(machine_cpus() * 1000 / parts), memory: Some(machine_memory() / parts) }
}

/// Waits until the first `wanted` nodes are ready.
pub(super) async fn ready(client: &Client, wanted: u32) -> Result<(), Failure> {
    let nodes: Api<Node> = Api::all(client.clone());
    let by = Deadline::after(READY);
    loop {
        let list = nodes.list(&ListParams::default()).await.map_err(|error| Failure::new(Kind::Unavailable, error))?;
        let waiting: Vec<String> = (1..=wanted)
            .map(worker)
            .filter(|name| !list.items.iter().any(|node| node.metadata.name.as_ref() == Some(name) && is_ready(node)))
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if by.passed() {
            let text = format!("not ready after {READY:?}: {}; see `kubectl describe node`", waiting.join(", "));
            return Err(Failure::new(Kind::Timeout, text));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the node says of itself.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
