//! `osc up`: a cluster on this machine.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::Args;
use osc_agent_protocol::Kind;
use osc_node::engine::Engine;
use osc_runtime::{deadline::Deadline, dirs::ROOT_VARIABLE};

use super::{instance::Instance, join, layout::Layout, serve::Serve};
use crate::{Context, Failure, output, progress::Progress};

/// How long a cluster may take until everything runs.
const LIMIT: Duration = Duration::from_secs(120);
/// How long an engine may take to come back.
const ENGINE: Duration = Duration::from_secs(10);
/// How often the instance file is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Arguments of `osc up`.
#[derive(Debug, Args)]
#[command(after_help = "\
The cluster is one process and one container engine per node. It outlives the
command; started again after `osc down`, a crash or a reboot it has the objects
it had. Its API is a subset of Kubernetes for this one machine.

Examples:
  osc up --sandboxes
  export KUBECONFIG=$(osc status --kubeconfig)
  kubectl get nodes -o wide
  osc up --workers 3        with three nodes; a running cluster gets those it lacks
  osc down                  stop it; --purge forgets its objects, too")]
pub struct Up {
    #[command(flatten)]
    serve: Serve,
    /// Load images from this archive into all nodes (OCI layout or docker save)
    #[arg(long, value_name = "FILE")]
    image_archive: Vec<PathBuf>,
}

impl Up {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let layout = Layout::new(&context.dirs);
        self.check(context)?;
        let progress = Progress::new();
        let already = Instance::running(&layout.instance());
        let instance = match &already {
            Some(instance) => {
                self.same(instance)?;
                let ready = wait(&layout, None, &progress).await?;
                join::ask(&layout, ready, self.serve.workers, &progress).await?
            }
            None => {
                let mut child = self.spawn(context, &layout)?;
                wait(&layout, Some(&mut child), &progress).await?
            }
        };
        for archive in &self.image_archive {
            progress.step(format_args!("loading {}", archive.display()));
            load(&layout, &instance, archive).await?;
        }
        drop(progress);
        let state = match &already {
            Some(before) if before.nodes.len() < instance.nodes.len() => "has grown",
            Some(_) => "runs already",
            None => "is up",
        };
        output::line(format_args!("cluster {state}: {} with nodes {}", instance.server, instance.nodes.join(", ")))?;
        output::line(format_args!("export KUBECONFIG={}", layout.kubeconfig().display()))?;
        Ok(0)
    }

    /// What would fail later, and less clearly.
    fn check(&self, context: &Context) -> Result<(), Failure> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Failure::new(Kind::Denied, "nodes need root: run `sudo osc up`"));
        }
        if let Some(missing) = self.image_archive.iter().find(|archive| !archive.is_file()) {
            return Err(Failure::new(Kind::NotFound, format!("image archive {} is not there", missing.display())));
        }
        let kernel = context.dirs.guest().join("vmlinux");
        if self.serve.sandboxes && !kernel.is_file() {
            let text = format!("guest kernel {} is not there: build it with `osc guest build`", kernel.display());
            return Err(Failure::new(Kind::NotFound, text));
        }
        Ok(())
    }

    /// A second `osc up` adds nodes and changes nothing else: what it cannot give must
    /// be said.
    fn same(&self, instance: &Instance) -> Result<(), Failure> {
        let nodes = instance.nodes.len();
        let other = if nodes > self.serve.workers as usize {
            format!("with {nodes} nodes")
        } else if self.serve.sandboxes && !instance.sandboxes {
            "without sandboxes".into()
        } else {
            return Ok(());
        };
        Err(Failure::new(Kind::Busy, format!("a cluster runs already, {other}: stop it with `osc down` first")))
    }

    /// Starts the process that is the cluster, in a session of its own, so that it
    /// survives the terminal.
    fn spawn(&self, context: &Context, layout: &Layout) -> Result<Child, Failure> {
        std::fs::create_dir_all(context.dirs.state())?;
        let log = OpenOptions::new().create(true).append(true).open(layout.log())?;
        let Serve { workers, listen, port, sandboxes } = &self.serve;
        let mut command = Command::new("setsid");
        command
            .arg(std::env::current_exe()?)
            .args(["serve", "-v", "--workers", &workers.to_string()])
            .args(["--listen", &listen.to_string(), "--port", &port.to_string()])
            .args(sandboxes.then_some("--sandboxes"))
            .env(ROOT_VARIABLE, context.dirs.root())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command.spawn()?)
    }
}

/// Waits until everything runs, or the process that was to run it has ended.
async fn wait(layout: &Layout, mut child: Option<&mut Child>, progress: &Progress) -> Result<Instance, Failure> {
    let by = Deadline::after(LIMIT);
    let mut step = String::new();
    loop {
        let seen = Instance::running(&layout.instance());
        match &seen {
            Some(instance) if instance.is_ready() => return Ok(instance.clone()),
            Some(instance) if instance.step != step => {
                step.clone_from(&instance.step);
                progress.step(&step);
            }
            None if child.is_none() => {
                let text = format!("the cluster ended while it was waited for: see {}", layout.log().display());
                return Err(Failure::new(Kind::Unavailable, text));
            }
            _ => {}
        }
        if let Some(child) = child.as_deref_mut()
            && let Some(status) = child.try_wait()?
        {
            let text = format!("{} (more in {})", last_words(&layout.log()), layout.log().display());
            return Err(Failure::new(crate::failure::kind_of(status.code()), text));
        }
        if by.passed() {
            let text = format!("the cluster is not up after {LIMIT:?}, still {step}: see {}", layout.log().display());
            return Err(Failure::new(Kind::Timeout, text));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The error the process ended with.
fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("osc: "));
    last.unwrap_or("the cluster ended without saying why").to_owned()
}

/// Loads an archive into every node. The daemon of a node may restart its engine at any
/// moment, so a failure counts only when it lasts.
async fn load(layout: &Layout, instance: &Instance, archive: &Path) -> Result<(), Failure> {
    for name in &instance.nodes {
        let engine = Engine::new(layout.node(name));
        let by = Deadline::after(ENGINE);
        while let Err(failure) = import(&engine, archive).await {
            if by.passed() {
                let text = format!("node {name}: {failure} (more in {})", layout.log().display());
                return Err(Failure::new(failure.kind(), text));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn import(engine: &Engine, archive: &Path) -> Result<(), Failure> {
    match engine.running() {
        Some(client) => Ok(engine.import(&client, archive).await.map(drop)?),
        None => Err(Failure::new(Kind::Unavailable, "its engine does not run")),
    }
}
