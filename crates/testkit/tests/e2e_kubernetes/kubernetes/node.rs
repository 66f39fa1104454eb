//! A node: a private containerd, a real kubelet, and our daemon, in a view of the
//! machine of their own. A thread owns them: what a thread starts shares its view,
//! and ends with it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use osc_machine_config::daemon::{self, Embedded};
use osc_node::engine::{Engine, PAUSE_IMAGE};
use osc_runtime::dirs::Dirs;
use osc_testkit::host::built;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{part::Part, view};

/// How long a node may take until its kubelet runs.
const START: Duration = Duration::from_secs(90);

/// What a node is made of.
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Prefix of all its directories.
    pub root: PathBuf,
    /// Its address, where the API server finds the kubelet.
    pub address: String,
    /// Port of the kubelet.
    pub port: u16,
    /// The kubelet.
    pub program: PathBuf,
    /// Whom the kubelet trusts.
    pub authority: PathBuf,
    /// Access of the kubelet: the node's own rights, nothing else.
    pub kubelet: PathBuf,
    /// Access of our daemon.
    pub daemon: PathBuf,
    /// What our daemon installs.
    pub payload: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
}

/// A running node; stopped with all its pods when dropped.
pub struct Node {
    /// Prefix of all its directories.
    pub root: PathBuf,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl Node {
    /// Starts a node; returns when its kubelet runs.
    pub fn start(settings: Settings) -> Self {
        let (tell, started) = mpsc::channel();
        let (root, name, stop) = (settings.root.clone(), settings.name.clone(), CancellationToken::new());
        let (own_stop, builder) = (stop.clone(), thread::Builder::new().name(name.clone()));
        let thread = builder.spawn(move || live(&settings, &own_stop, &tell)).unwrap();
        let mut node = Self { root, stop, thread: Some(thread) };
        if started.recv_timeout(START).is_err() {
            panic!("node {name} does not start: {:?}", node.end());
        }
        node
    }

    /// Ends everything of it.
    pub fn end(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        match self.thread.take().map(thread::JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => anyhow::bail!("its thread panicked"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error:#}", self.root.display());
        }
    }
}

fn live(settings: &Settings, stop: &CancellationToken, started: &mpsc::Sender<()>) -> anyhow::Result<()> {
    fs::create_dir_all(&settings.root)?;
    view::take(&settings.root).context("no view of its own")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let engine = Engine::new(Dirs::new(&settings.root));
    runtime.block_on(async {
        let served = serve(settings, &engine, stop, started).await;
        let stopped = engine.stop(true).await.context("the engine does not end");
        served.and(stopped)
    })
}

async fn serve(
    settings: &Settings,
    engine: &Engine,
    stop: &CancellationToken,
    started: &mpsc::Sender<()>,
) -> anyhow::Result<()> {
    // Without a runtime `kata`: that is the daemon's to install.
    let cri = engine.start(None).await?;
    for image in ["busybox", "hello-openshift"] {
        engine.import(&cri, &built(&format!("target/images/{image}.tar"))).await?;
    }
    let mut kubelet = kubelet(settings, engine)?;
    started.send(())?;
    let daemon = daemon::run(client(&settings.daemon).await?, options(settings, engine), stop.clone());
    let ended = daemon.await;
    kubelet.end();
    Ok(ended?)
}

/// A client with the access of a kubeconfig.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
}

/// The daemon of this node, as for any node that has no systemd.
fn options(settings: &Settings, engine: &Engine) -> daemon::Options {
    let inside = |path: PathBuf| Path::new("/").join(path.strip_prefix(&settings.root).unwrap_or(&path));
    let config = inside(engine.paths().config());
    let drop_ins = inside(engine.paths().drop_ins());
    let own = engine.clone();
    let actions = Arc::new(Embedded::new(move |_| {
        let engine = own.clone();
        Box::pin(async move { engine.restart(None).await.map(drop).map_err(|error| error.to_string()) })
    }));
    daemon::Options {
        root: settings.root.clone(),
        payload: Some(settings.payload.clone()),
        engine: Some(daemon::Engine::Containerd { config, drop_ins }),
        ..daemon::Options::node(&settings.name, actions)
    }
}

fn kubelet(settings: &Settings, engine: &Engine) -> anyhow::Result<Part> {
    let cgroup = engine.paths().cgroup();
    make_cgroup(&cgroup)?;
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": settings.address,
        "port": settings.port,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": settings.authority}},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        // The machine is not the kubelet's alone.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        // A test does not wait a minute for what a kubelet sees at its rounds.
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "4s",
    });
    let file = settings.root.join("kubelet.json");
    fs::write(&file, configuration.to_string())?;
    let words = [
        format!("--config={}", file.display()),
        format!("--kubeconfig={}", settings.kubelet.display()),
        format!("--hostname-override={}", settings.name),
        format!("--node-ip={}", settings.address),
        "--container-runtime=remote".into(),
        format!("--container-runtime-endpoint=unix://{}", engine.paths().socket().display()),
        format!("--pod-infra-container-image={PAUSE_IMAGE}"),
    ];
    Ok(Part::start(&format!("kubelet-{}", settings.name), &settings.program, &words, &[], &settings.logs))
}

/// Kubelets want the root of their control groups to be there, in every hierarchy.
fn make_cgroup(cgroup: &Path) -> anyhow::Result<()> {
    let base = Path::new("/sys/fs/cgroup");
    let own = |hierarchy: &Path| hierarchy.join(cgroup.strip_prefix("/").unwrap_or(cgroup));
    if base.join("cgroup.controllers").exists() {
        fs::create_dir_all(own(base))?;
        return Ok(());
    }
    for hierarchy in fs::read_dir(base)? {
        let made = own(&hierarchy?.path());
        fs::create_dir_all(&made).with_context(|| format!("cannot create {}", made.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (above, here) = (made.parent().unwrap_or(base).join(file), made.join(file));
            if here.exists() {
                fs::write(&here, fs::read(&above)?)?;
            }
        }
    }
    Ok(())
}
