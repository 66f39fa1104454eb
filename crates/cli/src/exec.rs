//! `osc exec`: another process in a container.

use clap::Args;
use osc_agent_protocol::Kind;
use osc_node::{
    cri::messages::ExecRequest,
    stream::{self, Ends},
};
use tokio::io::{stderr, stdout};

use crate::{
    Context, Failure, node,
    terminal::{self, Raw},
};

/// Arguments of `osc exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is that of the command.

Examples:
  osc exec hello-openshift -- uname -r
  osc exec -it hello-openshift -- sh
  echo hello | osc exec -i hello-openshift -- cat")]
pub struct Exec {
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the process a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// The container, if not the first
    #[arg(short, long)]
    container: Option<String>,
    /// The pod: its name, namespace/name, or the beginning of its sandbox's id
    #[arg(value_name = "SANDBOX")]
    sandbox: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (pods, record) = node::find(context, &self.sandbox).await?;
        let summary = pods.summary(&record).await?;
        let name = node::container(&summary, &record.container_names(), self.container.as_deref())?.to_owned();
        let running = summary.containers.get(&name).filter(|_| summary.is_running(&name));
        let Some(id) = running else {
            return Err(Failure::new(Kind::Unavailable, format!("container {name} does not run: see `osc ps`")));
        };
        let request = ExecRequest {
            container_id: id.id.clone(),
            cmd: self.command,
            tty: self.tty,
            stdin: self.stdin,
            stdout: true,
            // A terminal has one output.
            stderr: !self.tty,
        };
        let url = pods.client().exec(request).await?;
        let raw = if self.tty && self.stdin { Some(Raw::enter()?) } else { None };
        let ends = Ends {
            stdin: self.stdin.then(terminal::input),
            stdout: Some(stdout()),
            stderr: (!self.tty).then(stderr),
            resize: if self.tty { Some(terminal::sizes()?) } else { None },
        };
        let code = stream::run(&url, ends).await;
        drop(raw);
        Ok(exit_code(code?))
    }
}

/// The shell sees the low eight bits, as of any process.
pub fn exit_code(code: i32) -> u8 {
    code.to_le_bytes()[0]
}
