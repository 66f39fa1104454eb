//! Task events, published to the engine in the order they happened.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::{
    api::ForwardRequest,
    protobuf::{Message, MessageField, well_known_types::any::Any},
    shim::event::Envelope,
    shim_async::{Client, EventsClient},
    ttrpc::context,
};
use osc_agent_protocol::kind::chain;
use protobuf::well_known_types::timestamp::Timestamp;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinHandle,
};

/// How long one event may take to be delivered.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Events that may wait; a pod has a handful at a time. When the engine takes
/// none for so long that the queue is full, senders wait.
const QUEUE: usize = 128;
/// How often an event is tried over a fresh connection.
const ATTEMPTS: u32 = 3;
/// Environment variable with the address events go to.
pub const ADDRESS_VARIABLE: &str = "TTRPC_ADDRESS";

/// The sending side; clones feed the same queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: Sender<Envelope>,
    namespace: String,
}

impl Events {
    /// Starts publishing to `address`; without one, events are only logged. The
    /// task ends when the last clone is dropped and the queue is empty.
    pub fn start(address: Option<String>, namespace: &str) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = channel(QUEUE);
        let publisher = Publisher { address: address.filter(|address| !address.is_empty()), client: None };
        (Self { queue, namespace: namespace.to_owned() }, tokio::spawn(publisher.run(waiting)))
    }

    /// Queues `event` for `topic`.
    pub async fn send(&self, topic: &str, event: &impl Message) {
        let envelope = envelope(&self.namespace, topic, event);
        // Fails only when the publisher is gone, which is when the shim ends.
        let _ = self.queue.send(envelope).await;
    }
}

fn envelope<M: Message>(namespace: &str, topic: &str, event: &M) -> Envelope {
    let value = event.write_to_bytes().expect("messages without required fields can be encoded");
    // The engine's type registry knows full message names without a host part.
    let event = Any { type_url: format!("containerd.events.{}", M::NAME), value, ..Any::default() };
    Envelope {
        timestamp: MessageField::some(timestamp(SystemTime::now())),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: MessageField::some(event),
        ..Envelope::default()
    }
}

/// A point in time as the engine's messages carry it.
pub fn timestamp(at: SystemTime) -> Timestamp {
    at.into()
}

struct Publisher {
    address: Option<String>,
    client: Option<EventsClient>,
}

impl Publisher {
    async fn run(mut self, mut waiting: Receiver<Envelope>) {
        while let Some(envelope) = waiting.recv().await {
            let topic = envelope.topic.clone();
            tracing::debug!(topic, "event");
            if let Err(error) = self.publish(envelope).await {
                tracing::warn!(topic, error = chain(&error), "event not delivered");
            }
        }
    }

    async fn publish(&mut self, envelope: Envelope) -> ttrpc::Result<()> {
        let Some(address) = self.address.clone() else { return Ok(()) };
        let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
        let mut attempt = 1;
        loop {
            let outcome = self.forward(&address, &request).await;
            match outcome {
                // The engine may have restarted: only a new connection can tell.
                Err(error) if attempt < ATTEMPTS && !matches!(error, ttrpc::Error::RpcStatus(_)) => {
                    self.client = None;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn forward(&mut self, address: &str, request: &ForwardRequest) -> ttrpc::Result<()> {
        let client = match &self.client {
            Some(client) => client,
            None => {
                let url = format!("unix://{}", address.trim_start_matches("unix://"));
                self.client.insert(EventsClient::new(Client::connect(&url).await?))
            }
        };
        client.forward(context::with_duration(TIMEOUT), request).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use containerd_shim_protos::{
        events::task::TaskExit,
        protobuf::well_known_types::empty::Empty,
        shim_async::{self, create_events},
    };
    use ttrpc::asynchronous::{Server, TtrpcContext};

    use super::*;

    #[derive(Clone, Default)]
    struct Engine(Arc<Mutex<Vec<Envelope>>>);

    #[async_trait]
    impl shim_async::Events for Engine {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            self.0.lock().unwrap().push(request.envelope.unwrap());
            Ok(Empty::new())
        }
    }

    #[tokio::test]
    async fn order_survives_an_engine_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.sock");
        let url = format!("unix://{}", path.display());
        let engine = Engine::default();
        let serve = || Server::new().bind(&url).unwrap().register_service(create_events(Arc::new(engine.clone())));
        let mut first = serve();
        first.start().await.unwrap();

        let (events, publisher) = Events::start(Some(path.display().to_string()), "ns");
        let exit = |status| TaskExit { exit_status: status, ..TaskExit::default() };
        events.send("/tasks/exit", &exit(1)).await;
        while engine.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        first.shutdown().await.unwrap();
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let mut second = serve();
        second.start().await.unwrap();
        events.send("/tasks/exit", &exit(2)).await;
        events.send("/tasks/exit", &exit(3)).await;
        drop(events);
        publisher.await.unwrap();

        let seen = engine.0.lock().unwrap().clone();
        let status = |envelope: &Envelope| TaskExit::parse_from_bytes(&envelope.event.value).unwrap().exit_status;
        assert_eq!(seen.iter().map(status).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(seen[0].event.type_url, "containerd.events.TaskExit");
        assert_eq!((seen[0].namespace.as_str(), seen[0].topic.as_str()), ("ns", "/tasks/exit"));
        second.shutdown().await.unwrap();
    }
}
