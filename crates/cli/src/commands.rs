//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    Context, Failure, check,
    cluster::{Serve, Up, status::Status},
    down, exec, guest, image, logs, output, ps, run,
};

/// Run Kubernetes pods in virtual machines of their own.
///
/// A pod becomes one sandbox: a small virtual machine with its own kernel, in
/// which an agent runs the containers of the pod.
#[derive(Debug, Parser)]
#[command(name = "osc", version, max_term_width = 100, after_long_help = FIRST_STEPS)]
pub struct Line {
    /// Directory below which everything lives, so that several instances can
    /// run side by side
    #[arg(long, global = true, value_name = "DIR", default_value = "/", env = osc_runtime::dirs::ROOT_VARIABLE)]
    pub root: PathBuf,

    /// Say more about what happens (repeat for even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    #[command(subcommand)]
    pub command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  osc check                 see whether this machine can run sandboxes
  osc guest build           build the kernel and initramfs of the sandboxes
  osc run -it localhost/busybox sh
  osc up --sandboxes        a Kubernetes API for kubectl on this machine
  osc down                  delete and stop everything

Exit codes:
  0 success, 1 the answer is no, 2 wrong command line, 65 invalid input,
  66 not found, 69 something needed is missing, 70 a bug, 75 try again, 77 denied";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See whether this machine can run sandboxes
    Check(check::Check),
    /// Start a cluster on this machine
    Up(Up),
    /// Show the cluster of this machine
    Status(Status),
    /// Be the cluster, in the foreground
    #[command(hide = true)]
    Serve(Serve),
    /// Run pods, each in a sandbox of its own
    Run(run::Run),
    /// List the pods that were run here
    Ps(ps::Ps),
    /// Print what a container wrote
    Logs(logs::Logs),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Delete pods, or everything that runs here
    Down(down::Down),
    /// Build or look at the guest image
    #[command(subcommand)]
    Guest(guest::Command),
    /// Make container images without a container engine
    #[command(subcommand)]
    Image(image::Command),
    /// Print a completion script for a shell
    Completions(Completions),
}

impl Command {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Check(args) => args.run(context).await,
            Self::Up(args) => args.run(context).await,
            Self::Status(args) => args.run(context).await,
            Self::Serve(args) => args.run(context).await,
            Self::Run(args) => args.run(context).await,
            Self::Ps(args) => args.run(context).await,
            Self::Logs(args) => args.run(context).await,
            Self::Exec(args) => args.run(context).await,
            Self::Down(args) => args.run(context).await,
            Self::Guest(command) => command.run(context).await,
            Self::Image(command) => command.run(context).await,
            Self::Completions(args) => {
                let mut script = Vec::new();
                clap_complete::generate(args.shell, &mut Line::command(), "osc", &mut script);
                output::line(String::from_utf8_lossy(&script).trim_end())?;
                Ok(0)
            }
        }
    }
}

/// Arguments of `osc completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  osc completions bash > /etc/bash_completion.d/osc")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }
}
