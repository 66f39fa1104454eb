//! What QEMU itself has to say.

use std::{io, os::fd::OwnedFd};

use tokio::{io::AsyncReadExt, net::unix::pipe, task::JoinHandle};
use tracing::instrument::WithSubscriber;

use crate::lines::{Splitter, Tail};

/// Logs the lines of `output` until it closes. Message texts and the field name
/// are what Kata's product documentation tells administrators to search for.
pub(super) fn follow(output: OwnedFd, pid: i32) -> io::Result<(Tail, JoinHandle<()>)> {
    let mut output = pipe::Receiver::from_owned_fd(output)?;
    let tail = Tail::default();
    let kept = tail.clone();
    let log = async move {
        tracing::info!(subsystem = "qemu", "Start logging QEMU (qemuPid={pid})");
        let mut each = |line: &str| {
            kept.push(line);
            if line.contains("warning") {
                tracing::warn!(subsystem = "qemu", qemuPid = pid, "{line}");
            } else {
                tracing::error!(subsystem = "qemu", qemuPid = pid, "{line}");
            }
        };
        let mut splitter = Splitter::default();
        let mut buffer = [0; 512];
        while let Ok(count) = output.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            splitter.push(&buffer[..count], &mut each);
        }
        splitter.finish(each);
        tracing::info!(subsystem = "qemu", "Stop logging QEMU (qemuPid={pid})");
    };
    Ok((tail, tokio::spawn(log.with_current_subscriber())))
}
