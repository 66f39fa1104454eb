//! `osc run`: pods in sandboxes, without a cluster.

mod arguments;
mod background;
mod foreground;
mod output;

use std::{io::Read, path::PathBuf};

use clap::Args;
use osc_node::pod::{Manifest, PodError, Pods};

use crate::{Context, Failure, node, progress::Progress};

/// Arguments of `osc run`.
#[derive(Debug, Args)]
#[command(after_help = "\
In the foreground the pod's output is copied, Ctrl-C deletes the pod, and the
exit code is that of its first container that failed, 127 if one does not
start. Output comes by way of the container's log, which drops a carriage
return before a newline; for binary data use osc exec.

Examples:
  osc run localhost/busybox uname -a
  osc run -it localhost/busybox sh
  osc run --detach --name web -p 8080:8888 localhost/hello-openshift
  osc run -f pod.yaml --image-archive image.tar
  osc run --runtime runc localhost/busybox id")]
pub struct Run {
    /// Run the pods of this manifest, YAML or JSON (- for standard input)
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["image", "env", "name", "publish", "stdin", "tty"])]
    file: Option<PathBuf>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the container a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Return when all containers have been started
    #[arg(short, long, conflicts_with_all = ["stdin", "tty"])]
    detach: bool,
    /// kata for a virtual machine of its own, runc for none
    #[arg(long, value_parser = ["kata", "runc"])]
    runtime: Option<String>,
    /// Name of the pod
    #[arg(long)]
    name: Option<String>,
    /// Set a variable, or take it over from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Forward a port of this machine
    #[arg(short, long, value_name = "HOST:CONTAINER[/udp]")]
    publish: Vec<String>,
    /// Load images from this archive first (OCI layout or docker save)
    #[arg(long, value_name = "FILE")]
    image_archive: Vec<PathBuf>,
    /// The image
    #[arg(required_unless_present_any = ["file", "supervise"])]
    image: Option<String>,
    /// The command and its arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, requires = "image")]
    command: Vec<String>,
    /// Look after a pod that has been started; how --detach goes on
    #[arg(long, value_name = "UID", hide = true)]
    supervise: Option<String>,
}

impl Run {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        if let Some(uid) = &self.supervise {
            return background::supervise(context, uid).await;
        }
        let progress = Progress::on_terminal_only();
        progress.step("starting the engine");
        let given = self.file.as_deref().map(read_manifests).transpose()?;
        let (engine, pods) = node::start(context).await?;
        for archive in &self.image_archive {
            progress.step(format_args!("loading {}", archive.display()));
            engine.import(pods.client(), archive).await?;
        }
        let manifests = match given {
            Some(manifests) => manifests,
            None => vec![self.describe(&pods).await?],
        };
        for path in manifests.iter().flat_map(|manifest| &manifest.pod.ignored) {
            eprintln!("osc: {path} has no effect on a single machine");
        }
        let planned = self.plan(manifests)?;
        if self.detach {
            background::start(context, &pods, planned, progress).await
        } else {
            foreground::run(&pods, planned, progress).await
        }
    }

    /// A pod out of an image and options.
    async fn describe(&self, pods: &Pods) -> Result<Manifest, Failure> {
        let image = resolve_image(pods, self.image.as_deref().unwrap_or_default()).await?;
        let given = arguments::pod(&arguments::Options {
            image: &image,
            command: &self.command,
            name: self.name.as_deref(),
            env: &self.env,
            publish: &self.publish,
            stdin: self.stdin,
            tty: self.tty,
        })?;
        Ok(Manifest::new("of the command line", given)?)
    }

    /// Each pod with its runtime: the option's, else the manifest's, else kata.
    fn plan(&self, manifests: Vec<Manifest>) -> Result<Vec<Planned>, Failure> {
        let planned = manifests.into_iter().map(|manifest| {
            let asked = manifest.pod.handler.as_deref();
            match (self.runtime.as_deref(), asked) {
                (Some(option), Some(asked)) if option != asked => Err(conflict(&manifest, asked, option)),
                (option, asked) => {
                    let handler = option.or(asked).unwrap_or("kata").to_owned();
                    Ok(Planned { manifest, handler })
                }
            }
        });
        planned.collect()
    }
}

/// A pod and what runs it.
struct Planned {
    manifest: Manifest,
    handler: String,
}

fn conflict(manifest: &Manifest, asked: &str, option: &str) -> Failure {
    let name = manifest.pod.full_name();
    let text = format!("pod {name} has runtimeClassName {asked}, which --runtime {option} contradicts: drop one");
    Failure::new(osc_agent_protocol::Kind::Invalid, text)
}

fn read_manifests(file: &std::path::Path) -> Result<Vec<Manifest>, Failure> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file).map_err(|source| PodError::Io {
            action: "read",
            path: file.to_owned(),
            source,
        })?;
    }
    Ok(Manifest::read(&file.display().to_string(), &text)?)
}

/// A short name means an image made on this machine, if there is one.
async fn resolve_image(pods: &Pods, image: &str) -> Result<String, Failure> {
    if !image.contains('/') && pods.client().image(image).await?.is_none() {
        let local = format!("localhost/{image}");
        if pods.client().image(&local).await?.is_some() {
            return Ok(local);
        }
    }
    Ok(image.to_owned())
}
