//! `osc serve`: the process that is the cluster. `osc up` starts it in the
//! background; a service manager may start it in the foreground.

use std::{collections::BTreeMap, fs, net::IpAddr, sync::Arc};

use clap::Args;
use k8s_openapi::{
    api::node::v1::{Overhead, RuntimeClass},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use osc_access::Identity;
use osc_agent_protocol::Kind;
use osc_control_plane::{Config, ControlPlane};
use osc_node::{names::Zone, pod::KATA_OVERHEAD, proxy};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    instance::{Claim, Instance},
    join,
    layout::{Layout, worker},
    nodes::{self, Nodes},
    owner, sandboxing,
};
use crate::{Context, Failure};

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
        // Before anything else, so that an early request is not lost.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut asked_to_grow = signal(SignalKind::hangup())?;
        let mut asked_to_end = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let layout = Layout::new(&context.dirs);
        let Some(claim) = Claim::take(&layout.instance())? else {
            let owner = Instance::running(&layout.instance()).unwrap_or_default();
            let text = format!("process {} is the cluster of {} already", owner.pid, context.dirs.root().display());
            return Err(Failure::new(Kind::Busy, text));
        };
        join::forget(&layout);
        let mut cluster = Cluster::new(claim, context, layout, self);
        let outcome = tokio::select! {
            outcome = cluster.start() => outcome.map(Some),
            () = asked_to_end() => Ok(None),
        };
        let ended = match outcome {
            Ok(Some(mut running)) => {
                let ended = loop {
                    tokio::select! {
                        () = asked_to_end() => break Ok(()),
                        ended = running.ended() => break ended,
                        Some(ended) = cluster.sandboxing.join_next() => break sandboxing::outcome(ended),
                        _ = asked_to_grow.recv() => tokio::select! {
                            grown = cluster.grow(&running) => if let Err(failure) = grown { break Err(failure) },
                            () = asked_to_end() => break Ok(()),
                        },
                    }
                };
                tracing::info!("control plane ends, pods go on");
                ended
            }
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        cluster.end().await?;
        ended.map(|()| 0)
    }
}

/// A cluster that comes up, runs, and ends.
struct Cluster {
    claim: Claim,
    layout: Layout,
    args: Serve,
    stop: CancellationToken,
    nodes: Nodes,
    names: Option<watch::Sender<Arc<Zone>>>,
    proxy: Option<JoinHandle<()>>,
    sandboxing: sandboxing::Running,
}

/// The parts that end only when asked.
struct Running {
    plane: ControlPlane,
    administrator: Client,
    controllers: JoinHandle<Result<(), osc_controllers::RunError>>,
}

impl Running {
    async fn ended(&mut self) -> Result<(), Failure> {
        let ended = (&mut self.controllers).await;
        self.plane.shutdown().await;
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(Kind::Bug, error)),
            Err(error) => Err(Failure::new(Kind::Bug, error)),
        }
    }
}

impl Cluster {
    fn new(claim: Claim, context: &Context, layout: Layout, args: Serve) -> Self {
        let stop = CancellationToken::new();
        let (names, zone) = watch::channel(Arc::default());
        let nodes = Nodes {
            dirs: context.dirs.clone(),
            layout: layout.clone(),
            advertised: advertised(args.listen),
            sandboxes: args.sandboxes,
            defined: None,
            zone,
            payload: sandboxing::payload(&context.dirs),
            stop: stop.clone(),
            agents: Vec::new(),
        };
        let (names, sandboxing) = (Some(names), sandboxing::Running::new());
        Self { claim, layout, args, stop, nodes, names, proxy: None, sandboxing }
    }

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
        if let Some(names) = self.names.take() {
            let table = self.layout.service_table();
            let services = proxy::run(administrator.clone(), table, names, self.stop.child_token());
            self.proxy = Some(tokio::spawn(services));
        }
        if self.args.sandboxes {
            offer_sandboxes(&administrator).await?;
        } else {
            self.nodes.defined = Some(sandboxing::define(administrator.clone()));
        }
        for number in 1..=self.args.workers {
            self.say(&format!("starting node {}", worker(number)))?;
            self.nodes.add(number, self.args.workers, &plane, &mut self.sandboxing).await?;
        }
        self.say("waiting for the nodes")?;
        nodes::ready(&administrator, self.args.workers).await?;
        if let Some(defined) = self.nodes.defined.clone() {
            self.say("starting the operator")?;
            sandboxing::is_defined(defined).await?;
            sandboxing::start(&mut self.sandboxing, &plane, &self.stop).await?;
        }
        let server = format!("https://{}", plane.address());
        self.claim.say(&Instance { server, ..self.instance() })?;
        Ok(Running { plane, administrator, controllers })
    }

    /// Adds the nodes somebody asked for. One that cannot join is told of and takes
    /// nothing down with it; it joins when it is asked for again.
    async fn grow(&mut self, running: &Running) -> Result<(), Failure> {
        let Some(wanted) = join::take(&self.layout) else { return Ok(()) };
        let server = format!("https://{}", running.plane.address());
        let mut failed = String::new();
        for number in self.args.workers + 1..=wanted {
            let step = format!("starting node {}", worker(number));
            tracing::info!(step, "cluster grows");
            self.claim.say(&Instance { server: server.clone(), joining: step, ..self.instance() })?;
            if let Err(failure) = self.join(number, wanted, running).await {
                failed = failure.to_string();
                tracing::error!(node.name = worker(number), error = failed, "node does not join");
                break;
            }
            self.args.workers = number;
        }
        Ok(self.claim.say(&Instance { server, failed, ..self.instance() })?)
    }

    async fn join(&mut self, number: u32, all: u32, running: &Running) -> Result<(), Failure> {
        // An attempt that failed half-way left an agent that goes on.
        if self.nodes.agents.len() < number as usize {
            self.nodes.add(number, all, &running.plane, &mut self.sandboxing).await?;
        }
        nodes::ready(&running.administrator, number).await
    }

    /// Ends everything that runs, pods excepted.
    async fn end(self) -> Result<(), Failure> {
        self.stop.cancel();
        for agent in self.nodes.agents {
            agent.stop().await;
        }
        sandboxing::finish(self.sandboxing).await;
        match self.proxy {
            Some(proxy) => proxy.await.map_err(|error| Failure::new(Kind::Bug, error)),
            None => Ok(()),
        }
    }

    fn instance(&self) -> Instance {
        Instance {
            pid: std::process::id().cast_signed(),
            step: String::new(),
            server: String::new(),
            nodes: (1..=self.args.workers).map(worker).collect(),
            sandboxes: self.args.sandboxes,
            ..Instance::default()
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
