//! The connection: one task owns the socket, callers send it commands.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
    sync::{broadcast, mpsc, oneshot},
};

use super::{
    QmpError,
    wire::{self, Event, LONGEST, Message, Refusal},
};
use crate::deadline::Deadline;

/// Commands waiting for the socket; callers wait beyond that.
const COMMANDS: usize = 16;
/// Events a slow listener may lag behind before it misses some.
const EVENTS: usize = 64;
/// Bytes read at a time.
const CHUNK: usize = 8 << 10;

/// A control connection. Cheap to clone; commands of all clones are sent in
/// order and their replies find the right caller in any order.
#[derive(Clone, Debug)]
pub(in crate::qemu) struct Client {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Command {
    name: &'static str,
    arguments: Value,
    descriptor: Option<OwnedFd>,
    by: Deadline,
    reply: oneshot::Sender<Result<Value, Refusal>>,
}

impl Client {
    /// Waits for the greeting and leaves negotiation mode.
    pub async fn connect(socket: UnixStream, by: Deadline) -> Result<Self, QmpError> {
        const GREETING: &str = "greeting";
        let mut connection = Connection::new(socket);
        let first =
            by.run(connection.receive()).await.map_err(|source| QmpError::Silent { command: GREETING, source })?;
        match first {
            Ok(Message::Greeting) => {}
            Ok(_) => {
                let source = Arc::new(serde::de::Error::custom("first line is not the greeting"));
                return Err(QmpError::Strange { command: GREETING, source });
            }
            Err(Broken::Nonsense(source)) => {
                return Err(QmpError::Strange { command: GREETING, source: Arc::new(source) });
            }
            Err(Broken::Closed) => return Err(QmpError::Lost { command: GREETING }),
        }
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        tokio::spawn(serve(connection, inbox, events.clone()));
        let client = Self { commands, events };
        client.execute("qmp_capabilities", Value::Null, by).await?;
        Ok(client)
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Runs a command and ignores what it returns.
    pub async fn execute(&self, name: &'static str, arguments: Value, by: Deadline) -> Result<(), QmpError> {
        self.call(name, arguments, None, by).await.map(drop)
    }

    /// Runs a command and understands what it returns.
    pub async fn query<T: DeserializeOwned>(
        &self,
        name: &'static str,
        arguments: Value,
        by: Deadline,
    ) -> Result<T, QmpError> {
        let value = self.call(name, arguments, None, by).await?;
        serde_json::from_value(value).map_err(|source| QmpError::Strange { command: name, source: Arc::new(source) })
    }

    /// Gives QEMU an open descriptor under a name.
    pub async fn give(&self, name: &str, descriptor: OwnedFd, by: Deadline) -> Result<(), QmpError> {
        let arguments = serde_json::json!({ "fdname": name });
        self.call("getfd", arguments, Some(descriptor), by).await.map(drop)
    }

    async fn call(
        &self,
        name: &'static str,
        arguments: Value,
        descriptor: Option<OwnedFd>,
        by: Deadline,
    ) -> Result<Value, QmpError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { name, arguments, descriptor, by, reply };
        let exchange = async {
            self.commands.send(command).await.ok()?;
            answer.await.ok()
        };
        match by.run(exchange).await {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(Refusal { class, desc: text }))) => Err(QmpError::Refused { command: name, class, text }),
            Ok(None) => Err(QmpError::Lost { command: name }),
            Err(source) => Err(QmpError::Silent { command: name, source }),
        }
    }
}

/// Why a connection ended.
enum Broken {
    Closed,
    Nonsense(serde_json::Error),
}

/// Runs until either side is gone or QEMU sends nonsense. Dropping the waiting
/// callers' channels then tells them.
async fn serve(mut connection: Connection, mut inbox: mpsc::Receiver<Command>, events: broadcast::Sender<Event>) {
    let mut waiting: HashMap<u64, oneshot::Sender<_>> = HashMap::new();
    let mut last = 0;
    loop {
        tokio::select! {
            command = inbox.recv() => { // cancel-safe
                let Some(command) = command else { return };
                // Callers that gave up leave their entry behind; QEMU may never answer those.
                waiting.retain(|_, reply: &mut oneshot::Sender<_>| !reply.is_closed());
                last += 1;
                let line = wire::command(last, command.name, &command.arguments);
                let sent = command.by.run(connection.send(&line, command.descriptor)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    tracing::debug!(command = command.name, "control socket takes no more commands");
                    return;
                }
                waiting.insert(last, command.reply);
            }
            message = connection.receive() => match message { // cancel-safe
                Ok(Message::Reply { id, result }) => match waiting.remove(&id) {
                    Some(reply) => drop(reply.send(result)),
                    None => tracing::debug!(id, "reply nobody waits for"),
                },
                Ok(Message::Event(event)) => drop(events.send(event)),
                Ok(Message::Greeting) => tracing::debug!("second greeting ignored"),
                Err(Broken::Closed) => return,
                Err(Broken::Nonsense(error)) => {
                    tracing::warn!(error = %error, "control connection dropped: nonsense from QEMU");
                    return;
                }
            },
        }
    }
}

/// The socket and what was read ahead.
struct Connection {
    socket: UnixStream,
    buffer: Vec<u8>,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
}

impl Connection {
    fn new(socket: UnixStream) -> Self {
        Self { socket, buffer: Vec::new(), searched: 0 }
    }

    /// The next message. Cancel-safe: what was read stays in the buffer.
    async fn receive(&mut self) -> Result<Message, Broken> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                return wire::parse(&line).map_err(Broken::Nonsense);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST {
                return Err(Broken::Nonsense(serde::de::Error::custom("line longer than any reply")));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        loop {
            self.socket.readable().await.map_err(|_| Broken::Closed)?;
            let mut chunk = [0; CHUNK];
            match self.socket.try_read(&mut chunk) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Broken::Closed),
            }
        }
    }

    /// Sends a line; a descriptor travels with its first byte.
    async fn send(&mut self, line: &[u8], descriptor: Option<OwnedFd>) -> io::Result<()> {
        let mut sent = 0;
        if let Some(descriptor) = descriptor {
            let fds = [descriptor.as_raw_fd()];
            let with = [ControlMessage::ScmRights(&fds)];
            sent = self
                .socket
                .async_io(Interest::WRITABLE, || {
                    let fd = self.socket.as_raw_fd();
                    Ok(sendmsg::<()>(fd, &[IoSlice::new(line)], &with, MsgFlags::MSG_NOSIGNAL, None)?)
                })
                .await?;
        }
        self.socket.write_all(&line[sent..]).await
    }
}
