//! What the daemon does on a node besides writing files. Two nodes exist: one
//! with systemd, and one inside a program that runs its own engine.

use std::{future::Future, pin::Pin, process::Stdio, time::Duration};

use async_trait::async_trait;
use tokio::process::Command;

use super::wanted::Capabilities;

/// How an engine takes over its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads what it can without ending.
    Reload,
    /// Ends and starts again; containers go on.
    Restart,
}

/// An action a node refused.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// A command failed.
    #[error("`{command}` failed ({output}): cure the cause; it is tried again")]
    Command {
        /// The command line.
        command: String,
        /// The end of what it said.
        output: String,
    },
    /// A command could not be run.
    #[error("`{command}` cannot be run")]
    Spawn {
        /// The command line.
        command: String,
        /// The cause.
        source: std::io::Error,
    },
    /// It did not end in time and was killed.
    #[error("`{command}` did not end within {limit:?}")]
    Timeout {
        /// The command line.
        command: String,
        /// How long it had.
        limit: Duration,
    },
    /// The engine did not come back.
    #[error("the engine did not take its new configuration: {0}")]
    Engine(String),
    /// The node has no such thing.
    #[error("this node cannot {0}")]
    Unsupported(&'static str),
}

/// What a node does for the daemon. Every call may be repeated, also after one
/// that was cut off half-way.
#[async_trait]
pub trait NodeActions: Send + Sync {
    /// What may be asked of it at all.
    fn capabilities(&self) -> Capabilities;
    /// Makes the engine take over its configuration; returns when it serves.
    async fn engine(&self, verb: Verb) -> Result<(), ActionError>;
    /// Makes the service manager read unit files again.
    async fn reload_units(&self) -> Result<(), ActionError>;
    /// Whether a unit is enabled now.
    async fn is_enabled(&self, unit: &str) -> Result<bool, ActionError>;
    /// Enables or disables a unit; none: as its preset says.
    async fn enable(&self, unit: &str, enabled: Option<bool>) -> Result<(), ActionError>;
    /// Restarts a unit whose text changed, or starts it.
    async fn restart_unit(&self, unit: &str) -> Result<(), ActionError>;
    /// Makes a service read its configuration again; one that cannot is restarted.
    async fn reload_unit(&self, unit: &str) -> Result<(), ActionError>;
    /// Rebuilds the store of trusted certificates.
    async fn update_trust(&self) -> Result<(), ActionError>;
    /// Writes the boot loader's menu anew.
    async fn update_boot_loader(&self) -> Result<(), ActionError>;
    /// Asks for a restart of the machine; may return before it happens.
    async fn reboot(&self) -> Result<(), ActionError>;
}

/// Longest run of one command; a unit may take systemd's 90 s to start.
const COMMAND: Duration = Duration::from_secs(150);

/// A node with systemd.
#[derive(Clone, Debug)]
pub struct Systemd {
    /// Unit of the engine.
    pub engine: String,
}

async fn run(program: &str, arguments: &[&str]) -> Result<std::process::Output, ActionError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ActionError::Spawn { command: command(), source })?;
    match tokio::time::timeout(COMMAND, spawned.wait_with_output()).await {
        Ok(output) => output.map_err(|source| ActionError::Spawn { command: command(), source }),
        Err(_) => Err(ActionError::Timeout { command: command(), limit: COMMAND }),
    }
}

async fn succeed(program: &str, arguments: &[&str]) -> Result<(), ActionError> {
    let output = run(program, arguments).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: String = said.trim().chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
    Err(ActionError::Command { command: format!("{program} {}", arguments.join(" ")), output: last })
}

#[async_trait]
impl NodeActions for Systemd {
    fn capabilities(&self) -> Capabilities {
        Capabilities { units: true, reboot: true }
    }

    async fn engine(&self, verb: Verb) -> Result<(), ActionError> {
        let verb = if verb == Verb::Reload { "reload-or-restart" } else { "restart" };
        succeed("systemctl", &[verb, &self.engine]).await
    }

    async fn reload_units(&self) -> Result<(), ActionError> {
        succeed("systemctl", &["daemon-reload"]).await
    }

    async fn is_enabled(&self, unit: &str) -> Result<bool, ActionError> {
        let output = run("systemctl", &["is-enabled", unit]).await?;
        Ok(matches!(String::from_utf8_lossy(&output.stdout).trim(), "enabled" | "enabled-runtime" | "alias"))
    }

    async fn enable(&self, unit: &str, enabled: Option<bool>) -> Result<(), ActionError> {
        let verb = match enabled {
            Some(true) => "enable",
            Some(false) => "disable",
            None => "preset",
        };
        succeed("systemctl", &[verb, unit]).await
    }

    async fn restart_unit(&self, unit: &str) -> Result<(), ActionError> {
        succeed("systemctl", &["restart", unit]).await
    }

    async fn reload_unit(&self, unit: &str) -> Result<(), ActionError> {
        succeed("systemctl", &["reload-or-restart", unit]).await
    }

    async fn update_trust(&self) -> Result<(), ActionError> {
        match succeed("update-ca-trust", &["extract"]).await {
            Err(ActionError::Spawn { .. }) => succeed("update-ca-certificates", &[]).await,
            other => other,
        }
    }

    async fn update_boot_loader(&self) -> Result<(), ActionError> {
        match succeed("update-grub", &[]).await {
            Err(ActionError::Spawn { .. }) => succeed("grub2-mkconfig", &["-o", "/boot/grub2/grub.cfg"]).await,
            other => other,
        }
    }

    async fn reboot(&self) -> Result<(), ActionError> {
        succeed("systemctl", &["reboot"]).await
    }
}

/// Answer of an embedded engine: nothing, or why it does not serve.
pub type EngineAnswer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A node inside a program: it has an engine of its own and no systemd.
pub struct Embedded<F> {
    engine: F,
}

impl<F: Fn(Verb) -> EngineAnswer + Send + Sync> Embedded<F> {
    /// `engine` restarts or reloads the private engine and returns when it serves
    /// again.
    pub fn new(engine: F) -> Self {
        Self { engine }
    }
}

#[async_trait]
impl<F: Fn(Verb) -> EngineAnswer + Send + Sync> NodeActions for Embedded<F> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { units: false, reboot: false }
    }

    async fn engine(&self, verb: Verb) -> Result<(), ActionError> {
        (self.engine)(verb).await.map_err(ActionError::Engine)
    }

    async fn reload_units(&self) -> Result<(), ActionError> {
        Err(ActionError::Unsupported("manage units"))
    }

    async fn is_enabled(&self, _: &str) -> Result<bool, ActionError> {
        Err(ActionError::Unsupported("manage units"))
    }

    async fn enable(&self, _: &str, _: Option<bool>) -> Result<(), ActionError> {
        Err(ActionError::Unsupported("manage units"))
    }

    async fn restart_unit(&self, _: &str) -> Result<(), ActionError> {
        Err(ActionError::Unsupported("manage units"))
    }

    async fn reload_unit(&self, _: &str) -> Result<(), ActionError> {
        Err(ActionError::Unsupported("manage units"))
    }

    async fn update_trust(&self) -> Result<(), ActionError> {
        Err(ActionError::Unsupported("rebuild the store of trusted certificates"))
    }

    async fn update_boot_loader(&self) -> Result<(), ActionError> {
        Err(ActionError::Unsupported("change kernel arguments"))
    }

    async fn reboot(&self) -> Result<(), ActionError> {
        Err(ActionError::Unsupported("be restarted"))
    }
}
