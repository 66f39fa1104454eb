//! Cluster IPs and node ports: connections to a Service reach one of its ready
//! endpoints.
//!
//! ```text
//!  API ──watch──► Services, EndpointSlices ──► fronts ──► rules ──nft──► kernel
//!                                             (pure)     (pure)
//! ```
//!
//! All nodes of an embedded cluster share one machine and its packet filter, so one
//! loop does for all. The rules are a table of their own, replaced whole in one
//! step. They stay when the process ends, as pods do; [`remove`] takes them away.
//!
//! What arrives for a Service gets the machine's address as its sender: a pod that
//! is asked by a neighbour on its bridge would otherwise answer past the rules.

mod fronts;
mod rules;

use std::{collections::HashMap, pin::pin, process::Stdio, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use osc_agent_protocol::{Kind, kind::chain};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{engine::which, names::Zone};

const NFT: &str = "nft";
/// Changes come in swarms: so long is waited for the next.
const SETTLE: Duration = Duration::from_millis(50);
/// Pause before rules the kernel did not take are tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Longest time the program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The program is not there.
    #[error("no {NFT} on this machine: install the package nftables")]
    Missing,
    /// It does not run.
    #[error("{NFT} does not run")]
    Run(#[source] std::io::Error),
    /// It did not end.
    #[error("{NFT} did not end within {PATIENCE:?}")]
    Slow,
    /// The kernel does not take the rules.
    #[error("the kernel refuses the rules of services, look at `nft list ruleset`: {0}")]
    Refused(String),
}

impl ProxyError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing => Kind::Unavailable,
            Self::Run(source) => Kind::of_io(source),
            Self::Slow => Kind::Timeout,
            Self::Refused(_) => Kind::Invalid,
        }
    }
}

/// Name of the table of a cluster whose root has `tag`.
pub fn table(tag: &str) -> String {
    format!("osc-services-{tag}")
}

/// Keeps the rules of `table`, and what `names` says, in step with the API until
/// `stop`.
pub async fn run(client: Client, table: String, names: watch::Sender<Arc<Zone>>, stop: CancellationToken) {
    let mut seen = Seen::default();
    // Nothing is said about a world of which one half is not known yet.
    let services = changes(Api::<Service>::all(client.clone())).map_ok(|event| Change::Service(Box::new(event)));
    let slices = changes(Api::<EndpointSlice>::all(client)).map_ok(|event| Change::Slice(Box::new(event)));
    let mut changes = pin!(stream::select(services, slices));
    let mut applied: Option<String> = None;
    let mut due: Option<Instant> = None;
    loop {
        let time = due.unwrap_or_else(Instant::now);
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => match change { // cancel-safe
                Some(Ok(change)) => {
                    seen.take(change);
                    due.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                Some(Err(error)) => tracing::warn!(error = chain(&error), "services are not watched, trying again"),
                None => return,
            },
            () = sleep_until(time), if due.is_some() && seen.is_whole() => {
                due = None;
                names.send_replace(Arc::new(Zone::of(seen.services.values(), seen.slices.values())));
                let rules = rules::of(&table, &fronts::of(seen.services.values(), seen.slices.values()));
                if applied.as_ref() == Some(&rules) {
                    continue;
                }
                match nft(&rules).await {
                    Ok(()) => applied = Some(rules),
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "cluster IPs are not forwarded, trying again");
                        due = Some(Instant::now() + RETRY);
                    }
                }
            }
        }
    }
}

/// Takes the rules away. Idempotent; without the program there are none.
///
/// # Errors
/// Why they stay.
pub async fn remove(table: &str) -> Result<(), ProxyError> {
    match nft(&rules::none(table)).await {
        Err(ProxyError::Missing) => Ok(()),
        result => result,
    }
}

/// Gives `rules` to the kernel, all or none.
async fn nft(rules: &str) -> Result<(), ProxyError> {
    let program = which(NFT).ok_or(ProxyError::Missing)?;
    let mut command = Command::new(program);
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(ProxyError::Run)?;
    let input = child.stdin.take();
    let talk = async {
        if let Some(mut input) = input {
            // One that ends early says why.
            let _ = input.write_all(rules.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(PATIENCE, talk).await.map_err(|_| ProxyError::Slow)?.map_err(ProxyError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(ProxyError::Refused(said.lines().next().unwrap_or_default().to_owned()))
}

/// Namespace and name.
type Key = (String, String);

enum Change {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
}

fn changes<K>(api: Api<K>) -> impl futures::Stream<Item = Result<Event<K>, kube::runtime::watcher::Error>>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher(api, Config::default()).default_backoff()
}

/// What the API has.
#[derive(Default)]
struct Seen {
    services: HashMap<Key, Service>,
    slices: HashMap<Key, EndpointSlice>,
    /// Which of the two have been listed.
    listed: (bool, bool),
}

impl Seen {
    fn take(&mut self, change: Change) {
        match change {
            Change::Service(event) => self.listed.0 = apply(&mut self.services, *event).unwrap_or(self.listed.0),
            Change::Slice(event) => self.listed.1 = apply(&mut self.slices, *event).unwrap_or(self.listed.1),
        }
    }

    fn is_whole(&self) -> bool {
        self.listed == (true, true)
    }
}

/// Takes an event in; whether the list is whole, where that changes.
fn apply<K: Resource<DynamicType = ()>>(objects: &mut HashMap<Key, K>, event: Event<K>) -> Option<bool> {
    let key = |object: &K| {
        let meta = object.meta();
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    };
    match event {
        Event::Apply(object) | Event::InitApply(object) => drop(objects.insert(key(&object), object)),
        Event::Delete(object) => drop(objects.remove(&key(&object))),
        // A list begins: what it does not have is gone.
        Event::Init => {
            objects.clear();
            return Some(false);
        }
        Event::InitDone => return Some(true),
    }
    None
}
