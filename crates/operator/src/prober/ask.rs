//! On the node: asks, and serves the verdict.
//!
//! What decides is a command, `osc check --json`: it boots a guest and ends with 0 exactly
//! when a sandbox can run here. A command that cannot be asked changes nothing.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::StatusCode;
use osc_fault::chain;
use osc_service::web;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{READY, STARTED};
use crate::RunError;

/// A verdict may need a guest to be booted.
const ASK_LIMIT: Duration = Duration::from_secs(180);

/// What a prober needs to know.
#[derive(Clone, Debug)]
pub struct Prober {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Pause between two questions.
    pub every: Duration,
    /// Where the verdict is served.
    pub listen: SocketAddr,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no command to ask: name one, for example osc check --json")]
    Nothing,
    #[error("{command} cannot be started: is it on this node?")]
    Start { command: String, source: std::io::Error },
    #[error("{command} did not end within {limit:?}: run it by hand to see why")]
    Silent { command: String, limit: Duration },
    #[error("{command} ended with neither 0 nor 1: run it by hand to see why")]
    Unclear { command: String },
}

/// The last clear answer.
type Verdict = Arc<Mutex<Option<bool>>>;

impl Prober {
    /// Asks and serves until stopped.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), RunError> {
        let listener = web::listen("the verdict", self.listen).await?;
        let verdict = Verdict::default();
        let shown = Arc::clone(&verdict);
        let serving = web::serve_with(listener, move |_, path| {
            answer(path, *shown.lock().unwrap_or_else(PoisonError::into_inner))
        });
        tokio::select! {
            () = stop.cancelled() => {}
            () = serving => {}
            () = self.keep_asking(&verdict) => {}
        }
        Ok(())
    }

    async fn keep_asking(&self, verdict: &Verdict) {
        loop {
            match self.ask().await {
                Ok(able) => {
                    let old = verdict.lock().unwrap_or_else(PoisonError::into_inner).replace(able);
                    if old != Some(able) {
                        tracing::info!(able, "node probed");
                    }
                }
                Err(error) => tracing::warn!(error = chain(&error), "node not probed"),
            }
            tokio::time::sleep(self.every).await;
        }
    }

    async fn ask(&self) -> Result<bool, ProbeError> {
        let (program, arguments) = self.command.split_first().ok_or(ProbeError::Nothing)?;
        let command = || program.clone();
        let mut asked = Command::new(program);
        // What it finds goes to the log: it names what is missing.
        asked.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(ASK_LIMIT, asked.status()).await;
        let ended = ended.map_err(|_| ProbeError::Silent { command: command(), limit: ASK_LIMIT })?;
        match ended.map_err(|source| ProbeError::Start { command: command(), source })?.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(ProbeError::Unclear { command: command() }),
        }
    }
}

fn answer(path: &str, verdict: Option<bool>) -> (StatusCode, String) {
    let text = match verdict {
        None => "not asked yet",
        Some(true) => "sandboxes can run here",
        Some(false) => "sandboxes cannot run here",
    };
    let holds = match path {
        STARTED => verdict.is_some(),
        READY => verdict == Some(true),
        _ => return (StatusCode::NOT_FOUND, format!("not found: try {STARTED} or {READY}")),
    };
    (if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_clear_answer_counts() {
        for (command, wanted) in [
            (vec!["true"], Some(true)),
            (vec!["false"], Some(false)),
            (vec!["sh", "-c", "exit 7"], None),
            (vec!["/nowhere/at-all"], None),
            (vec![], None),
        ] {
            let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let prober = Prober { command: command.clone(), every: Duration::from_secs(1), listen };
            assert_eq!(prober.ask().await.ok(), wanted, "{command:?}");
        }
    }

    #[test]
    fn a_verdict_is_told_from_none() {
        for (path, verdict, wanted) in [
            (STARTED, None, 503),
            (READY, None, 503),
            (STARTED, Some(false), 200),
            (READY, Some(false), 503),
            (STARTED, Some(true), 200),
            (READY, Some(true), 200),
            ("/", Some(true), 404),
        ] {
            assert_eq!(answer(path, verdict).0.as_u16(), wanted, "{path} {verdict:?}");
        }
    }
}
