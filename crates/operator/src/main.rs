//! `osc-operator`: the operator as a program.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::Client;
use osc_operator::{Options, Prober, ReachedBy, WebhookOptions, bundle};
use osc_service::program;
use tokio_util::sync::CancellationToken;

/// Installs, updates and removes sandboxed containers on the nodes of a cluster.
#[derive(Parser)]
#[command(name = "osc-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(Run),
    /// Find out whether sandboxes can run on this node, and serve the verdict.
    Probe(Probe),
    /// Write manifests.
    Bundle(Bundle),
}

#[derive(Args)]
struct Probe {
    /// Where the file system of the node is, for a prober in a container: the command runs
    /// inside.
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// Serve the verdict here.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    listen: SocketAddr,
    /// Seconds between two questions.
    #[arg(long, default_value = "600", value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// What to ask: it ends with 0 when sandboxes can run, with 1 when they cannot.
    #[arg(last = true, default_values = ["osc", "check", "--json"])]
    command: Vec<String>,
}

#[derive(Args)]
struct Run {
    /// Name of this process among its replicas.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = osc_objects::names::NAMESPACE)]
    namespace: String,
    /// Extension that nodes get.
    #[arg(long, env = "SANDBOXED_CONTAINERS_EXTENSION", default_value = "kata-containers")]
    extension: String,
    /// Image of the monitor.
    #[arg(long, env = "RELATED_IMAGE_KATA_MONITOR")]
    monitor_image: Option<String>,
    /// Serve metrics and health here.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Serve the admission webhook behind this Service, with a certificate made here.
    #[arg(long, value_name = "SERVICE", conflicts_with = "webhook_certificates")]
    webhook: Option<String>,
    /// Serve the admission webhook with the platform's certificate in this directory.
    #[arg(long, value_name = "DIRECTORY")]
    webhook_certificates: Option<PathBuf>,
    /// Where the webhook listens.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9443")]
    webhook_listen: SocketAddr,
}

#[derive(Args)]
struct Bundle {
    /// Kind of bundle.
    #[arg(long, value_enum, default_value = "kustomize")]
    kind: Kind,
    /// Image of the operator.
    #[arg(long)]
    image: String,
    /// Image of the monitor.
    #[arg(long)]
    monitor_image: Option<String>,
    /// Image of machine-config controller and daemon; leave it out on OpenShift, which has its
    /// own.
    #[arg(long, value_name = "IMAGE", requires = "payload_image")]
    machine_config_image: Option<String>,
    /// Image with what nodes need to run sandboxes.
    #[arg(long, value_name = "IMAGE", requires = "machine_config_image")]
    payload_image: Option<String>,
    /// Version of the bundle.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    bundle_version: String,
    /// Version it replaces.
    #[arg(long)]
    replaces: Option<String>,
    /// Extension that nodes get.
    #[arg(long, default_value = "sandboxed-containers")]
    extension: String,
    /// Directory to write to.
    directory: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// For `kubectl apply -k`.
    Kustomize,
    /// For the Operator Lifecycle Manager.
    Olm,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Probe(probe) => probe.run(),
        Command::Bundle(bundle) => bundle.write(),
    }
}

impl Run {
    fn run(self) -> anyhow::Result<()> {
        with_client(async |client, stop| {
            osc_operator::run(client, self.options(), stop).await.context("operator failed")
        })
    }

    fn options(self) -> Options {
        let defaults = Options::default();
        let reached_by = match (self.webhook, self.webhook_certificates) {
            (_, Some(directory)) => Some(ReachedBy::Platform(directory)),
            (service, None) => service.map(ReachedBy::Service),
        };
        Options {
            namespace: self.namespace,
            extension: self.extension,
            monitor_image: self.monitor_image.filter(|image| !image.is_empty()),
            identity: self.identity.unwrap_or(defaults.identity),
            metrics: self.metrics,
            webhook: reached_by.map(|reached_by| WebhookOptions { listen: self.webhook_listen, reached_by }),
            ..Options::default()
        }
    }
}

impl Probe {
    fn run(self) -> anyhow::Result<()> {
        if let Some(root) = &self.root {
            // Before anything else: the command has to find what the node has.
            std::os::unix::fs::chroot(root)
                .and_then(|()| std::env::set_current_dir("/"))
                .with_context(|| format!("cannot make {} the root directory", root.display()))?;
        }
        let prober = Prober { command: self.command, every: Duration::from_secs(self.every), listen: self.listen };
        until_stopped(async |stop| prober.run(stop).await.context("prober failed"))
    }
}

/// What everything that speaks to an API needs.
fn with_client(work: impl AsyncFnOnce(Client, CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
    until_stopped(async |stop| {
        let client = Client::try_default().await.context("no access to an API: is this a pod, or KUBECONFIG set?")?;
        work(client, stop).await
    })
}

/// Logging and signals: what everything that stays needs.
fn until_stopped(work: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
    program::log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async { work(program::stopped().context("no signals")?).await })
}

impl Bundle {
    fn write(self) -> anyhow::Result<()> {
        let settings = bundle::Settings {
            image: self.image,
            monitor_image: self.monitor_image,
            machine_config: self
                .machine_config_image
                .zip(self.payload_image)
                .map(|(programs, payload)| bundle::MachineConfigImages { programs, payload }),
            version: self.bundle_version,
            replaces: self.replaces,
            extension: self.extension,
        };
        let files = match self.kind {
            Kind::Kustomize => bundle::kustomize(&settings),
            Kind::Olm => bundle::olm(&settings),
        };
        for file in files {
            let path = self.directory.join(&file.path);
            let parent = path.parent().unwrap_or(&self.directory);
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
            fs::write(&path, file.text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
        Ok(())
    }
}
