//! `osc serve`: the process that is the cluster. `osc up` starts it in the
//! background; a service manager may start it in the foreground.

use std::{collections::BTreeMap, fs, net::IpAddr, sync::Arc, time::Duration};

use clap::Args;
use k8s_openapi::{
    api::{
        core::v1::Node,
        node::v1::{Overhead, RuntimeClass},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use osc_access::Identity;
use osc_agent_protocol::Kind;
use osc_control_plane::{Config, ControlPlane};
use osc_node::{
    agent::{NodeAgent, Options},
    engine::{Engine, Kata},
    names::{Server, Zone},
    pod::{KATA_OVERHEAD, machine_cpus, machine_memory, model::Amounts},
    proxy,
};
use osc_runtime::deadline::Deadline;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    access::Agent,
    instance::{Claim, Instance},
    layout::{Layout, worker},
    owner, sandboxing,
};
use crate::{Context, Failure};

/// How long nodes may take to become ready.
const NODES_READY: Duration = Duration::from_secs(60);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// Marks nodes that run what is not the control plane.
const WORKER: &str = "node-role.kubernetes.io/worker";
/// Marks what this program wrote into objects.
pub(super) const MANAGER: &str = "osc";

/// Arguments of `osc serve`.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Address the API listens on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub listen: IpAddr,
    /// Port the API listens on
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub port: u16,
    /// Offer the runtime class kata on all nodes at once, without a KataConfig
    #[arg(long)]
    pub sandboxes: bool,
}

impl Serve {
    /// Runs the command until it is asked to end.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        // Before anything else, so that an early request to end is not lost.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let layout = Layout::new(&context.dirs);
        let Some(claim) = Claim::take(&layout.instance())? else {
            let owner = Instance::running(&layout.instance()).unwrap_or_default();
            let text = format!("process {} is the cluster of {} already", owner.pid, context.dirs.root().display());
            return Err(Failure::new(Kind::Busy, text));
        };
        let stop = CancellationToken::new();
        let mut cluster = Cluster {
            claim,
            context,
            layout,
            args: self,
            stop: stop.clone(),
            agents: Vec::new(),
            proxy: None,
            sandboxing: sandboxing::Running::new(),
        };
        let outcome = tokio::select! {
            outcome = cluster.start() => outcome.map(Some),
            _ = terminate.recv() => Ok(None),
            _ = interrupt.recv() => Ok(None),
        };
        let ended = match outcome {
            Ok(Some(running)) => {
                let ended = tokio::select! {
                    _ = terminate.recv() => Ok(()),
                    _ = interrupt.recv() => Ok(()),
                    ended = running.ended() => ended,
                    Some(ended) = cluster.sandboxing.join_next() => sandboxing::outcome(ended),
                };
                tracing::info!("control plane ends, pods go on");
                ended
            }
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        stop.cancel();
        for agent in cluster.agents {
            agent.stop().await;
        }
        sandboxing::finish(cluster.sandboxing).await;
        if let Some(proxy) = cluster.proxy {
            proxy.await.map_err(|error| Failure::new(Kind::Bug, error))?;
        }
        ended.map(|()| 0)
    }
}

/// A cluster on its way up.
struct Cluster<'a> {
    claim: Claim,
    context: &'a Context,
    layout: Layout,
    args: Serve,
    stop: CancellationToken,
    agents: Vec<NodeAgent>,
    proxy: Option<JoinHandle<()>>,
    sandboxing: sandboxing::Running,
}

/// The parts that end only when asked.
struct Running {
    plane: ControlPlane,
    controllers: JoinHandle<Result<(), osc_controllers::RunError>>,
}

impl Running {
    async fn ended(self) -> Result<(), Failure> {
        let ended = self.controllers.await;
        self.plane.shutdown().await;
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(Kind::Bug, error)),
            Err(error) => Err(Failure::new(Kind::Bug, error)),
        }
    }
}

impl Cluster<'_> {
    async fn start(&mut self) -> Result<Running, Failure> {
        self.say("opening the store")?;
        let plane = self.open().await?;
        fs::write(self.layout.kubeconfig(), "").and_then(|()| private(&self.layout.kubeconfig()))?;
        let kubeconfig = plane.administrator().map_err(|error| Failure::new(Kind::Bug, error))?;
        fs::write(self.layout.kubeconfig(), kubeconfig)?;

        self.say("starting the controllers")?;
        let client = |identity| Client::new(plane.service(identity), "default");
        let options = osc_controllers::Options {
            ca_pem: plane.authority().certificate_pem().to_owned(),
            ..osc_controllers::Options::default()
        };
        let administrator = client(Identity::administrator());
        let controllers = tokio::spawn(osc_controllers::run(administrator.clone(), options, self.stop.child_token()));
        let (names, zone) = watch::channel(Arc::default());
        let services = proxy::run(administrator.clone(), self.layout.service_table(), names, self.stop.child_token());
        self.proxy = Some(tokio::spawn(services));
        let payload = sandboxing::payload(&self.context.dirs);
        let mut defined = None;
        if self.args.sandboxes {
            offer_sandboxes(&administrator).await?;
        } else {
            defined = Some(sandboxing::define(administrator.clone()));
        }
        for number in 1..=self.args.workers {
            let name = worker(number);
            self.say(&format!("starting node {name}"))?;
            let client = client(Identity::node(&name));
            let mut options = self.node(&name, &plane)?;
            options.dns = self.serve_names(options.address, zone.clone());
            let agent = NodeAgent::start(client, options, self.stop.child_token()).await?;
            plane.nodes().register(&name, Arc::new(Agent(agent.access())));
            if let Some(defined) = &defined {
                let before = (defined.clone(), payload.clone());
                sandboxing::start_daemon(&mut self.sandboxing, &plane, &name, agent.engine(), before, &self.stop);
            }
            self.agents.push(agent);
        }
        self.say("waiting for the nodes")?;
        nodes_ready(&administrator, self.args.workers).await?;
        if let Some(defined) = defined {
            self.say("starting the operator")?;
            sandboxing::is_defined(defined).await?;
            sandboxing::start(&mut self.sandboxing, &plane, &self.stop).await?;
        }
        self.claim.say(&Instance { server: format!("https://{}", plane.address()), ..self.instance() })?;
        Ok(Running { plane, controllers })
    }

    /// Serves names on the address of a node; that address, unless somebody else has
    /// the port there.
    fn serve_names(&self, address: IpAddr, zone: watch::Receiver<Arc<Zone>>) -> Option<IpAddr> {
        let IpAddr::V4(v4) = address else { return None };
        match Server::bind(v4) {
            Ok(server) => {
                // Ends with the cluster, which nothing of it has to wait for.
                tokio::spawn(server.run(zone, self.stop.child_token()));
                Some(address)
            }
            Err(error) => {
                tracing::warn!(address = %address, error = %error, "pods get no names of services: the DNS port is taken");
                None
            }
        }
    }

    fn instance(&self) -> Instance {
        Instance {
            pid: std::process::id().cast_signed(),
            step: String::new(),
            server: String::new(),
            nodes: (1..=self.args.workers).map(worker).collect(),
            sandboxes: self.args.sandboxes,
        }
    }

    fn say(&mut self, step: &str) -> Result<(), Failure> {
        tracing::info!(step, "cluster comes up");
        Ok(self.claim.say(&Instance { step: step.into(), ..self.instance() })?)
    }

    async fn open(&self) -> Result<ControlPlane, Failure> {
        let mut config = Config::new(self.layout.control_plane());
        config.listen = (self.args.listen, self.args.port).into();
        config.advertise = advertised(self.args.listen);
        ControlPlane::open(config).await.map_err(|error| {
            let owner = match &error {
                osc_control_plane::StartError::Listen { .. } => owner::of_port(self.args.port),
                _ => None,
            };
            match owner {
                Some(owner) => Failure::new(
                    Kind::Busy,
                    format!("port {} is in use by {owner}: choose another with --port", self.args.port),
                ),
                None => Failure::new(Kind::Unavailable, error),
            }
        })
    }

    fn node(&self, name: &str, plane: &ControlPlane) -> Result<Options, Failure> {
        let dirs = self.layout.node(name);
        fs::create_dir_all(dirs.state())?;
        let subnets = Engine::new(dirs.clone()).subnets()?;
        // The bridge its pods are on has the first address of their network.
        let address = std::net::Ipv4Addr::from(u32::from(subnets.v4) + 1);
        let kata = self.args.sandboxes.then(|| Kata::installed(&self.context.dirs));
        let mut options = Options::new(name, address.into(), dirs, kata);
        options.labels.insert(WORKER.into(), String::new());
        options.api = Some((advertised(self.args.listen).to_string(), plane.address().port()));
        if self.args.workers > 1 {
            options.capacity = share(self.args.workers);
        }
        Ok(options)
    }
}

/// One of `workers` equal parts of this machine.
fn share(workers: u32) -> Amounts {
    let parts = u64::from(workers);
    Amounts { cpu_milli: Some(machine_cpus() * 1000 / parts), memory: Some(machine_memory() / parts) }
}

/// The address under which pods reach this machine.
fn advertised(listen: IpAddr) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    // Nothing is sent: connecting a datagram socket only looks at the routes.
    let outward = || {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        socket.connect(("192.0.2.1", 9)).ok()?;
        socket.local_addr().ok()
    };
    outward().map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
}

/// Only its owner may read the administrator's key.
fn private(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// Makes the runtime class that pods name.
async fn offer_sandboxes(client: &Client) -> Result<(), Failure> {
    let quantity = |amount: Option<u64>, unit: &str| Quantity(format!("{}{unit}", amount.unwrap_or_default()));
    let fixed = BTreeMap::from([
        ("cpu".to_owned(), quantity(KATA_OVERHEAD.cpu_milli, "m")),
        ("memory".to_owned(), quantity(KATA_OVERHEAD.memory.map(|bytes| bytes >> 20), "Mi")),
    ]);
    let class = RuntimeClass {
        metadata: kube::api::ObjectMeta { name: Some("kata".into()), ..Default::default() },
        handler: "kata".into(),
        overhead: Some(Overhead { pod_fixed: Some(fixed) }),
        scheduling: None,
    };
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    let applied = classes.patch("kata", &PatchParams::apply(MANAGER), &Patch::Apply(&class)).await;
    applied.map(drop).map_err(|error| Failure::new(Kind::Unavailable, error))
}

async fn nodes_ready(client: &Client, wanted: u32) -> Result<(), Failure> {
    let nodes: Api<Node> = Api::all(client.clone());
    let by = Deadline::after(NODES_READY);
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
            let text = format!("not ready after {NODES_READY:?}: {}; see `kubectl describe node`", waiting.join(", "));
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
