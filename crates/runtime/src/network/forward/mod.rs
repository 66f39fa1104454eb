//! Port-forward: connections to the pod's loopback addresses, brought to the
//! guest's.
//!
//! An engine forwards a port by dialling `127.0.0.1` in the pod's network
//! namespace. Nothing listens there for a sandbox: the workload's loopback
//! interface is in the guest.
//!
//! ```text
//!  engine ── connect 127.0.0.1:80 ──► socket lookup ──► listener of this process
//!                                     (steering)             │ vsock: "80"
//!                                                            ▼
//!                              agent ── connect localhost:80 ──► workload
//! ```
//!
//! A program at the kernel's socket lookup hands every such connection to one
//! listener, which still sees the port that was meant. No packet is rewritten, and
//! the program goes with the descriptor that holds it: a killed process leaves
//! nothing behind. Engines try IPv4 first, and there somebody always answers, so
//! IPv6 needs none of this; the agent tries both families in the guest.
//!
//! Whoever can dial in the pod's namespace is root on the host. What the guest
//! sends back is only copied.

mod error;
mod steering;
mod sys;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::Linger};
use osc_agent_protocol::{kind::chain, names};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};

pub use self::error::ForwardError;
use self::steering::Steering;
use super::netns;
use crate::{
    deadline::Deadline,
    vsock::{self, Address, VsockStream},
};

/// Connections at a time, as many as the agent takes; more wait to be accepted.
const MOST: usize = 256;
/// How long an agent may take to show that it relays. It listens before it answers
/// its first request.
const PROOF: Duration = Duration::from_secs(1);
/// How long the guest may take to answer one connection.
const ANSWER: Duration = Duration::from_secs(15);

/// The forwarding of one sandbox; ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Forward {
    task: AbortHandle,
}

impl Forward {
    /// Forwards from the namespace at `netns` to the relay at `guest`. When that
    /// cannot be done, says so in the log and lets connections be refused.
    pub fn start(netns: PathBuf, guest: Address) -> Self {
        let task = tokio::spawn(async move {
            let Err(error) = forward(&netns, &guest).await;
            tracing::warn!(error = chain(&error), "port-forward into this sandbox is refused");
        });
        Self { task: task.abort_handle() }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards until the listener fails.
async fn forward(netns: &Path, guest: &Address) -> Result<Infallible, ForwardError> {
    // Steering comes last: without a relay the kernel refuses, which whoever dials
    // understands.
    let proof = vsock::dial(guest, Deadline::after(PROOF)).await;
    drop(proof.map_err(|source| ForwardError::NoRelay { guest: guest.clone(), source })?);
    // It steers as long as it is held.
    let (listener, _steering) = listen(netns).await?;
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    let failed = |source| ForwardError::Accept { netns: netns.to_owned(), source };
    loop {
        let place = places.clone().acquire_owned().await.map_err(|closed| failed(io::Error::other(closed)))?;
        let (stream, _) = listener.accept().await.map_err(failed)?;
        let guest = guest.clone();
        connections.spawn(async move {
            if let Err(error) = relay(stream, &guest).await {
                tracing::debug!(error = chain(&error), "forwarded connection ended");
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A listener in the namespace, with everything for loopback steered to it.
async fn listen(netns: &Path) -> Result<(TcpListener, Steering), ForwardError> {
    let listener = netns::run(netns, || {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
    .await?;
    let failed = |source| ForwardError::Steer { netns: netns.to_owned(), source };
    let steering = Steering::to(&listener, netns).map_err(failed)?;
    Ok((TcpListener::from_std(listener).map_err(failed)?, steering))
}

/// Connects one stream to the port of the guest it was meant for.
async fn relay(mut stream: TcpStream, guest: &Address) -> Result<(), ForwardError> {
    let port = stream.local_addr().map_err(|source| ForwardError::Stream { source })?.port();
    match Deadline::after(ANSWER).run(connect(guest, port)).await {
        Ok(Ok(mut relay)) => {
            let copied = copy_bidirectional(&mut stream, &mut relay).await;
            copied.map(drop).map_err(|source| ForwardError::Stream { source })
        }
        Ok(Err(error)) => {
            reset(&stream);
            Err(error)
        }
        Err(late) => {
            reset(&stream);
            Err(ForwardError::Stream { source: io::Error::new(io::ErrorKind::TimedOut, late) })
        }
    }
}

async fn connect(guest: &Address, port: u16) -> Result<VsockStream, ForwardError> {
    let dialled = vsock::dial(guest, Deadline::after(ANSWER)).await;
    let mut stream = dialled.map_err(|source| ForwardError::NoRelay { guest: guest.clone(), source })?;
    let asked = async {
        stream.write_u16(port).await?;
        stream.read_u8().await
    };
    match asked.await {
        Ok(names::RELAY_CONNECTED) => Ok(stream),
        Ok(_) => Err(ForwardError::Refused { port }),
        Err(source) => Err(ForwardError::Stream { source }),
    }
}

/// Makes the end of a stream an error for whoever dialled: an end without a word
/// would look like an empty answer.
fn reset(stream: &TcpStream) {
    // Fails only for a stream that is gone.
    let _ = setsockopt(stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}
