//! `osc check`: can this machine run sandboxes?
//!
//! Each requirement is observed the way the runtime will use it: tools are run,
//! devices opened, the traffic redirection set up in a network namespace of its
//! own. What merely costs speed or comfort is a warning and does not change the
//! exit code.

mod accelerator;
mod engine;
mod finding;
mod guest;
mod machine;
mod network;
mod tool;

use std::path::{Path, PathBuf};

use clap::Args;
use osc_node::engine::Parts;
use osc_runtime::config::{Config, Host};
use serde::Serialize;

use crate::{Context, Failure, output, payload, progress::Progress};
use finding::{Finding, Verdict};

/// Arguments of `osc check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 means sandboxes can run here, 1 that something is missing. Warnings
tell what would make them faster.

Examples:
  osc check
  osc check --json | jq '.requirements[] | select(.verdict != \"ok\")'")]
pub struct Check {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,

    /// Judge with the parts in this packed payload, not with installed ones
    #[arg(long, value_name = "DIR")]
    payload: Option<PathBuf>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether sandboxes can run here.
    able: bool,
    requirements: Vec<Finding>,
}

impl Check {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let requirements = examine(context, self.payload.as_deref()).await;
        let able = requirements.iter().all(|finding| finding.verdict != Verdict::Missing);
        let report = Report { able, requirements };
        if self.json {
            output::json(&report)?
        } else {
            print(&report)?
        }
        Ok(u8::from(!report.able))
    }
}

async fn examine(context: &Context, payload: Option<&Path>) -> Vec<Finding> {
    let progress = Progress::on_terminal_only();
    let mut findings = vec![machine::privileges(), machine::architecture()];
    let (config, finding) = configuration(context, payload);
    findings.push(finding);
    progress.step("looking at memory and disks");
    findings.push(machine::memory(config.as_ref()));
    findings.push(machine::disk(&context.dirs));
    findings.push(machine::cgroups());
    progress.step("trying the programs sandboxes need");
    if let Some(config) = &config {
        findings.push(tool::qemu(&config.hypervisor.path).await);
        findings.push(tool::virtiofsd(&config.hypervisor.virtio_fs.daemon).await);
        progress.step("verifying the guest image");
        let image = guest::image(config);
        let bootable = image.verdict == Verdict::Ok;
        findings.push(image);
        // The trial boots the guest, so without one there is nothing to learn.
        if bootable {
            progress.step("finding out whether KVM boots the guest");
            findings.push(accelerator::accelerator(config, &context.dirs).await);
        }
    }
    findings.push(machine::vsock());
    progress.step("setting up a network to try it");
    findings.push(network::redirection().await);
    findings.push(network::masquerade().await);
    findings.push(engine::engine().await);
    findings.push(engine::low_level_runtime().await);
    findings.push(engine::network_plugins());
    findings
}

fn configuration(context: &Context, payload: Option<&Path>) -> (Option<Config>, Finding) {
    let name = "configuration";
    let installed = payload.is_none() && context.dirs.configurations().iter().any(|file| file.exists());
    let loaded = if installed {
        Config::load(None, None, &context.dirs)
    } else {
        let parts = payload.map_or_else(|| Parts::installed(&context.dirs), |dir| payload::parts(dir, &context.dirs));
        Config::for_host(&parts.configuration(), Host::observe(&context.dirs))
    };
    match loaded {
        Ok(config) => {
            let files: Vec<_> = config.files().iter().map(|file| file.display().to_string()).collect();
            let found = if installed { files.join(", ") } else { "defaults, which osc run will install".to_owned() };
            (Some(config), Finding::ok(name, found))
        }
        Err(error) => {
            let found = osc_agent_protocol::kind::chain(&error);
            (None, Finding::missing(name, found, "correct the file; `osc check` names every problem at once"))
        }
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    let rows: Vec<_> = report
        .requirements
        .iter()
        .map(|finding| [finding.name.to_owned(), finding.verdict.to_string(), finding.found.clone()])
        .collect();
    output::table(["REQUIREMENT", "VERDICT", "FOUND"], &rows)?;
    let cures: Vec<_> = report.requirements.iter().filter_map(|f| Some((f.name, f.cure.as_ref()?))).collect();
    if !cures.is_empty() {
        output::line("")?;
    }
    for (name, cure) in cures {
        output::line(format_args!("{name}: {cure}"))?;
    }
    let answer = if report.able { "This machine can run sandboxes." } else { "This machine cannot run sandboxes yet." };
    output::line(format_args!("\n{answer}"))
}
