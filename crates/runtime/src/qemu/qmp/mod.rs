//! QEMU Machine Protocol (QEMU 7.2, `docs/interop/qmp-spec.txt`): one JSON
//! object a line. Commands carry a number, replies repeat it, events come in
//! between.
//!
//! The other end is a process that guest code may have taken over. Lines and
//! queues are bounded, every command has a deadline, and what cannot be
//! understood ends the connection, never the runtime.

mod client;
mod wire;

use osc_agent_protocol::Kind;

pub use self::wire::{Event, RunState, Transfer};
pub(in crate::qemu) use client::Client;

use crate::deadline::Elapsed;

/// A command that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU understood and refused.
    #[error("QEMU refuses {command}: {text}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's error class.
        class: String,
        /// QEMU's own words.
        text: String,
    },
    /// No reply in time.
    #[error("no reply to {command}: host overloaded or pod CPU limit too small?")]
    Silent {
        /// The command.
        command: &'static str,
        /// How long was waited.
        source: Elapsed,
    },
    /// The connection is gone, most often because QEMU is.
    #[error("control connection lost during {command}: look at how QEMU ended")]
    Lost {
        /// The command.
        command: &'static str,
    },
    /// The reply has not the agreed form.
    #[error("reply to {command} makes no sense: this QEMU is not supported or was taken over")]
    Strange {
        /// The command.
        command: &'static str,
        /// What was wrong with it.
        source: std::sync::Arc<serde_json::Error>,
    },
}

impl QmpError {
    /// The kind every caller decides by.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused { class, .. } if class == "DeviceNotFound" => Kind::NotFound,
            Self::Refused { .. } => Kind::Invalid,
            Self::Silent { .. } => Kind::Timeout,
            Self::Lost { .. } | Self::Strange { .. } => Kind::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests;
