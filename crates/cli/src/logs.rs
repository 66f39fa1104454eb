//! `osc logs`: what a container wrote.

use clap::Args;
use osc_agent_protocol::Kind;
use osc_node::logs::{Follower, Sink, copy};
use tokio::io::{stderr, stdout};
use tokio_util::sync::CancellationToken;

use crate::{Context, Failure, node};

/// Arguments of `osc logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  osc logs hello-openshift\n  osc logs -f -c web default/shop")]
pub struct Logs {
    /// The pod: its name, namespace/name, or the beginning of its sandbox's id
    #[arg(value_name = "SANDBOX")]
    sandbox: String,
    /// The container, if not the first
    #[arg(short, long)]
    container: Option<String>,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (pods, record) = node::find(context, &self.sandbox).await?;
        let summary = pods.summary(&record).await?;
        let name = node::container(&summary, &record.container_names(), self.container.as_deref())?.to_owned();
        let place = pods.place(&record);
        let Some(attempt) = place.next_attempt(&name).checked_sub(1) else {
            return Err(Failure::new(Kind::NotFound, format!("container {name} has not been started yet")));
        };
        let log = place.log(&name, attempt);
        let mut sink = Sink::new(stdout(), stderr(), "");
        if !self.follow {
            copy(&log, &mut sink).await?;
            return Ok(0);
        }
        let follower = Follower::new(&log)?;
        let ended = CancellationToken::new();
        // Asked after the watch began: a container that ends later closes its log.
        if !pods.summary(&record).await?.is_running(&name) {
            ended.cancel();
        }
        follower.run(&mut sink, &ended, || ()).await?;
        Ok(0)
    }
}
