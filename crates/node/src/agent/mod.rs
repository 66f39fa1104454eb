//! The node agent: makes a machine a node of a cluster, and runs the pods that are
//! bound to it.
//!
//! ```text
//!  API ──watch──► pods ──► one worker each ──► pod::Supervisor ──► engine
//!   ▲                          │  status, events                    │
//!   └──────────────────────────┘        relist: who changed? ◄──────┘
//!   ▲
//!   └── heart: Node status, lease
//! ```
//!
//! Ending the agent ends no pod: the next one finds records on disk, pods in the
//! engine and objects in the API, and goes on.

mod access;
mod events;
mod handlers;
mod images;
mod links;
mod machine;
mod node;
mod relist;
mod statics;
mod status;
mod watch;
mod worker;
mod writer;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Taint;
use kube::Client;
use osc_agent_protocol::kind::chain;
use osc_runtime::dirs::Dirs;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, EngineError, Kata},
    pod::{
        Pods,
        cluster::{Cluster, NodeFacts},
        model::Amounts,
    },
};
pub use access::{Access, AccessError, Wanted};
use events::Recorder;
use handlers::Handlers;
use links::Links;
use machine::Machine;
use node::Heart;
use relist::Wakers;
use statics::Statics;

/// Manifests of static pods, below the root of the node.
const MANIFESTS: &str = "etc/kubernetes/manifests";
/// How often it is checked that the engine runs.
const ENGINE: Duration = Duration::from_secs(1);
/// How often sandboxes nobody knows are looked for.
const CLEAN: Duration = Duration::from_secs(60);

/// What a node is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// Its address; pods in the host's network have it too.
    pub address: IpAddr,
    /// Labels besides those every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints it is registered with.
    pub taints: Vec<Taint>,
    /// Where it keeps everything. Nodes on one machine have roots of their own.
    pub dirs: Dirs,
    /// What the `kata` runtime needs; none, and a daemon of the node brings it, if anybody.
    pub kata: Option<Kata>,
    /// A /24 network for its pods; one that is free is taken otherwise.
    pub subnet: Option<Ipv4Addr>,
    /// Its share of the machine; all of it where nothing is said.
    pub capacity: Amounts,
    /// How many pods it takes.
    pub max_pods: u32,
    /// Where pods reach the API.
    pub api: Option<(String, u16)>,
    /// Who tells its pods the addresses of Services.
    pub dns: Option<IpAddr>,
    /// Runtime handler of pods that name no runtime class.
    pub default_handler: String,
}

impl Options {
    /// A node with all of this machine.
    pub fn new(name: impl Into<String>, address: IpAddr, dirs: Dirs, kata: Option<Kata>) -> Self {
        Self {
            name: name.into(),
            address,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            dirs,
            kata,
            subnet: None,
            capacity: Amounts::default(),
            max_pods: 110,
            api: None,
            dns: None,
            default_handler: "runc".into(),
        }
    }

    #[cfg(test)]
    fn sample() -> Self {
        let kata = Kata { shim: "/shim".into(), configuration: String::new() };
        Self::new("node1", IpAddr::from([10, 0, 0, 1]), Dirs::new("/nowhere"), Some(kata))
    }
}

/// What the workers of a node share.
struct Shared {
    pods: Pods,
    cluster: Arc<Cluster>,
    recorder: Recorder,
    handlers: Handlers,
    links: Links,
    wakers: Wakers,
}

/// A running node agent.
pub struct NodeAgent {
    access: Access,
    engine: Engine,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl NodeAgent {
    /// Starts or adopts the engine, registers the node and begins to look after
    /// its pods, until `stop`.
    ///
    /// # Errors
    /// When the engine does not start. The API is waited for.
    pub async fn start(client: Client, options: Options, stop: CancellationToken) -> Result<Self, EngineError> {
        let stop = stop.child_token();
        let engine = Engine::new(options.dirs.clone()).with_subnet(options.subnet);
        let cri = engine.start(options.kata.as_ref()).await?;
        let machine = Machine::look(&engine, &cri).await?;
        let pods = Pods::new(engine.paths(), cri.clone());
        let facts = NodeFacts {
            name: options.name.clone(),
            address: options.address,
            api: options.api.clone(),
            dns: options.dns,
        };
        let (recorder, record) = Recorder::new(client.clone(), options.name.clone(), stop.clone());
        let shared = Arc::new(Shared {
            pods: pods.clone(),
            cluster: Arc::new(Cluster::new(client.clone(), facts)),
            recorder: recorder.clone(),
            handlers: Handlers::new(client.clone(), options.default_handler.clone()),
            links: Links::new(engine.paths().log_links()),
            wakers: Wakers::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(record);
        tasks.spawn(relist::run(cri.clone(), shared.wakers.clone(), stop.clone()));
        tasks.spawn(keep_clean(pods.clone(), stop.clone()));
        tasks.spawn(images::run(cri.clone(), options.dirs.state(), stop.clone()));
        tasks.spawn(keep_engine(engine.clone(), options.kata.clone(), stop.clone()));
        let statics =
            Statics { client: client.clone(), node: options.name.clone(), dir: options.dirs.root().join(MANIFESTS) };
        let (name, until) = (options.name.clone(), stop.clone());
        let heart = Heart { client: client.clone(), options, machine, engine: cri.clone(), recorder };
        tasks.spawn(async move {
            tokio::select! {
                () = until.cancelled() => return,
                node = heart.register() => tracing::info!(node.name = node.metadata.name, "node registered"),
            }
            let pods = watch::run(client, name, shared, until.clone());
            tokio::join!(heart.run(until.clone()), statics.run(until), pods);
        });
        Ok(Self { access: Access::new(pods), engine, tasks, stop })
    }

    /// What the API server may ask of this node.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// The engine of this node.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ends the agent, and nothing else: pods and engine stay.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Removes what no record knows. A pod that is deleted while its sandbox is being
/// made may get it all the same, a moment after it was looked for.
async fn keep_clean(pods: Pods, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CLEAN) => {}
        }
        if let Err(error) = pods.delete_unknown().await {
            tracing::debug!(error = chain(&error), "unknown sandboxes are not removed, trying again");
        }
    }
}

/// Starts the engine again whenever it has ended. Pods outlive it.
async fn keep_engine(engine: Engine, kata: Option<Kata>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ENGINE) => {}
        }
        if engine.running().is_none() {
            tracing::warn!("engine has ended, starting it again");
            if let Err(error) = engine.start(kata.as_ref()).await {
                tracing::error!(error = chain(&error), "engine does not start");
            }
        }
    }
}
