//! Saving the state of a machine, and going on from one.
//!
//! QEMU writes everything but the memory, which is a file of ours: the capability
//! `x-ignore-shared` (QEMU 7.2, `migration/ram.c`) leaves out what is shared. The
//! machine that goes on must be built with the same options.

use std::{fs::File, os::fd::OwnedFd};

use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::broadcast::error::RecvError};

use super::{
    machine::{Machine, Running},
    qmp::{Client, Event, QmpError, Transfer},
};
use crate::deadline::Deadline;

/// Name of the descriptor in QEMU.
const DESCRIPTOR: &str = "state";

/// A machine that was saved.
#[derive(Debug)]
pub struct Saved {
    /// Its memory, as the machine that goes on will change it.
    pub memory: File,
    /// State of its devices.
    pub state: File,
}

impl Machine<Running> {
    /// Stops the machine for good and writes the state of its devices to `state`.
    /// Its memory is then what it was at that moment.
    ///
    /// # Errors
    /// [`QmpError`] when QEMU does not answer, or refuses, as it does for machines
    /// with devices that live in other processes.
    pub async fn save(&self, state: File, by: Deadline) -> Result<(), QmpError> {
        self.pause(by).await?;
        transfer(&self.state.qmp, "migrate", state.into(), by).await
    }
}

/// Takes over the machine behind `qmp`, which waits for a state, and gives it `state`.
/// It stands still afterwards.
pub(super) async fn load(qmp: UnixStream, state: OwnedFd, by: Deadline) -> Result<Client, QmpError> {
    let client = Client::connect(qmp, by).await?;
    transfer(&client, "migrate-incoming", state, by).await?;
    Ok(client)
}

async fn transfer(qmp: &Client, command: &'static str, state: OwnedFd, by: Deadline) -> Result<(), QmpError> {
    let on = |name| json!({ "capability": name, "state": true });
    let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
    qmp.execute("migrate-set-capabilities", capabilities, by).await?;
    qmp.give(DESCRIPTOR, state, by).await?;
    // Listen first: the end may come before the reply.
    let mut events = qmp.events();
    qmp.execute(command, json!({ "uri": format!("fd:{DESCRIPTOR}") }), by).await?;
    let end = async {
        loop {
            match events.recv().await {
                Ok(Event::Migration(Transfer::Completed)) => return Ok(()),
                Ok(Event::Migration(Transfer::Failed)) => return Err(failure(qmp, command, by).await),
                Ok(_) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => return Err(QmpError::Lost { command }),
            }
        }
    };
    by.run(end).await.map_err(|source| QmpError::Silent { command, source })?
}

/// Why a transfer failed, in QEMU's words.
async fn failure(qmp: &Client, command: &'static str, by: Deadline) -> QmpError {
    match qmp.query::<Value>("query-migrate", Value::Null, by).await {
        Ok(status) => {
            let text = status["error-desc"].as_str().unwrap_or("it gives no reason").to_owned();
            QmpError::Refused { command, class: "GenericError".into(), text }
        }
        Err(error) => error,
    }
}
