//! What makes nodes able to run sandboxes, as parts of the cluster's process: the
//! operator, the machine-config controller, and a daemon for every node. They are
//! clients of the API like any other; all they know of this process is how to restart
//! the engine of a node.
//!
//! ```text
//!  KataConfig ─► operator ─► MachineConfig, pool, labels ─► controller ─► desiredConfig
//!                                                                             │
//!              engine of the node ◄── drop-in, payload ◄── daemon of the node ┘
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use k8s_openapi::{
    api::core::v1::ServiceAccount, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    runtime::wait::{await_condition, conditions::is_crd_established},
};
use osc_access::Identity;
use osc_agent_protocol::{Kind, kind::chain};
use osc_control_plane::ControlPlane;
use osc_machine_config::{
    controller,
    daemon::{self, Embedded},
    rights,
};
use osc_node::engine::{Engine, Parts};
use osc_objects::names;
use osc_operator::{ReachedBy, WebhookOptions, bundle};
use osc_runtime::dirs::Dirs;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::serve::MANAGER;
use crate::{Failure, payload};

/// How long a kind may take to be served.
const DEFINED: Duration = Duration::from_secs(20);
/// How long inputs of a pool must be still before it is rendered: nobody writes them by
/// hand one after another here.
const SETTLE: Duration = Duration::from_millis(200);
/// The operator's account.
const OPERATOR_ACCOUNT: &str = "controller-manager";
/// Where the engine of a node keeps its configuration, for the daemon of that node.
const DROP_INS: &str = "/etc/containerd/conf.d";

/// How long the parts may take to end. A daemon in the middle of an update has a
/// journal to go on by.
const FAREWELL: Duration = Duration::from_secs(10);

/// The parts that run. Each ends when it is stopped; one that ends before is a bug.
pub(super) type Running = JoinSet<Result<(), Failure>>;

/// How a part ended.
pub(super) fn outcome(ended: Result<Result<(), Failure>, JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|error| Err(Failure::new(Kind::Bug, error)))
}

/// Waits for the parts that were told to stop; ends those that do not.
pub(super) async fn finish(mut running: Running) {
    let ending = async {
        while let Some(ended) = running.join_next().await {
            if let Err(failure) = outcome(ended) {
                tracing::error!(error = %failure, "part did not end in order");
            }
        }
    };
    if tokio::time::timeout(FAREWELL, ending).await.is_err() {
        tracing::warn!(parts = running.len(), "parts did not end in time, they go on at the next start");
    }
    running.shutdown().await;
}

/// What every part relies on; the same for all that wait for it.
pub(super) type Defined = Shared<BoxFuture<'static, Result<(), Arc<Failure>>>>;

/// Makes the kinds known, the rights of the parts, and what pools begin with.
pub(super) fn define(client: Client) -> Defined {
    async move { definitions(&client).await.map_err(Arc::new) }.boxed().shared()
}

/// Waits for it.
pub(super) async fn is_defined(defined: Defined) -> Result<(), Failure> {
    defined.await.map_err(|failure| Failure::new(failure.kind(), failure.to_string()))
}

async fn definitions(client: &Client) -> Result<(), Failure> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crds = osc_objects::crds();
    for definition in &crds {
        let applied = definitions.patch(&definition.name_any(), &applying(), &Patch::Apply(definition)).await;
        applied.map_err(unavailable)?;
    }
    for definition in &crds {
        let name = definition.name_any();
        let served = await_condition(definitions.clone(), &name, is_crd_established());
        match tokio::time::timeout(DEFINED, served).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Failure::new(Kind::Unavailable, error)),
            Err(_) => return Err(Failure::new(Kind::Timeout, format!("{name} is not served after {DEFINED:?}"))),
        }
    }
    for object in manifests()? {
        apply(client, object).await?;
    }
    Ok(())
}

/// Rights and namespace from the manifests of clusters; the programs run here.
fn manifests() -> Result<Vec<Value>, Failure> {
    let image = || "localhost/none".to_owned();
    let settings = bundle::Settings {
        image: image(),
        monitor_image: None,
        machine_config: Some(bundle::MachineConfigImages { programs: image(), payload: image() }),
        version: env!("CARGO_PKG_VERSION").into(),
        replaces: None,
        extension: osc_operator::Options::default().extension,
    };
    let files = bundle::kustomize(&settings);
    let wanted = ["namespace.yaml", "rbac.yaml", "machine-config-rbac.yaml"];
    files
        .iter()
        .filter(|file| wanted.contains(&file.path.as_str()))
        .flat_map(|file| serde_yaml_ng::Deserializer::from_str(&file.text))
        .map(|document| Value::deserialize(document).map_err(|error| Failure::new(Kind::Bug, error)))
        .collect()
}

async fn apply(client: &Client, object: Value) -> Result<(), Failure> {
    let object: DynamicObject = serde_json::from_value(object).map_err(|error| Failure::new(Kind::Bug, error))?;
    let types = object.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(types).map_err(|error| Failure::new(Kind::Bug, error))?;
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let applied = api.patch(&object.name_any(), &applying(), &Patch::Apply(&object)).await;
    applied.map(drop).map_err(unavailable)
}

fn applying() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn unavailable(error: kube::Error) -> Failure {
    Failure::new(Kind::Unavailable, error)
}

/// Starts operator and controller.
pub(super) async fn start(
    running: &mut Running,
    plane: &ControlPlane,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    // One process at a time is the cluster: the next one need not wait for the lease of one
    // that was killed.
    let operator = osc_operator::Options {
        identity: MANAGER.into(),
        webhook: Some(WebhookOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            reached_by: ReachedBy::Address,
        }),
        ..osc_operator::Options::default()
    };
    let operator = osc_operator::run(as_account(plane, OPERATOR_ACCOUNT).await?, operator, stop.child_token());
    running.spawn(async move { operator.await.map_err(|error| Failure::new(Kind::Bug, error)) });
    let options = controller::Options { identity: MANAGER.into(), settle: SETTLE, ..controller::Options::default() };
    let client = as_account(plane, rights::CONTROLLER_ACCOUNT).await?;
    let controller = controller::run(client, options, stop.child_token());
    running.spawn(async move { controller.await.map_err(|error| Failure::new(Kind::Bug, error)) });
    Ok(())
}

/// A client with the rights of one of our accounts, and no others.
async fn as_account(plane: &ControlPlane, name: &str) -> Result<Client, Failure> {
    let administrator = Client::new(plane.service(Identity::administrator()), "default");
    let accounts: Api<ServiceAccount> = Api::namespaced(administrator, names::NAMESPACE);
    let account = accounts.get(name).await.map_err(unavailable)?;
    let identity = Identity::service_account(names::NAMESPACE, name, &account.uid().unwrap_or_default());
    Ok(Client::new(plane.service(identity), "default"))
}

/// What daemons install, once it is packed; nothing if that failed.
pub(super) type Payload = Shared<BoxFuture<'static, Option<PathBuf>>>;

/// Packs what belongs to this program, beside everything else that starts.
pub(super) fn payload(dirs: &Dirs) -> Payload {
    let (dirs, out) = (dirs.clone(), dirs.state().join("payload"));
    let packing = async move {
        let place = out.clone();
        match tokio::task::spawn_blocking(move || payload::pack(&Parts::installed(&dirs), &place, None)).await {
            Ok(Ok(manifest)) => {
                tracing::info!(version = manifest.version, "payload packed");
                Some(out)
            }
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "nodes cannot be made to run sandboxes: a part is missing");
                None
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "payload not packed");
                None
            }
        }
    };
    packing.boxed().shared()
}

/// Starts the daemon of a node.
pub(super) fn start_daemon(
    running: &mut Running,
    plane: &ControlPlane,
    node: &str,
    engine: &Engine,
    (defined, payload): (Defined, Payload),
    stop: &CancellationToken,
) {
    let plane = plane.clone();
    let root = engine.paths().dirs().root().to_owned();
    let config = inside(&root, &engine.paths().config());
    let own = engine.clone();
    let actions = Arc::new(Embedded::new(move |_| {
        let engine = own.clone();
        Box::pin(async move { engine.restart(None).await.map(drop).map_err(|error| chain(&error)) })
    }));
    let options = daemon::Options {
        root,
        engine: Some(daemon::Engine::Containerd { config, drop_ins: DROP_INS.into() }),
        ..daemon::Options::node(node, actions)
    };
    let stop = stop.child_token();
    running.spawn(async move {
        is_defined(defined).await?;
        let client = as_account(&plane, rights::DAEMON_ACCOUNT).await?;
        let options = daemon::Options { payload: payload.await, ..options };
        daemon::run(client, options, stop).await.map_err(|error| Failure::new(Kind::Bug, error))
    });
}

/// A path of the machine as one of the node.
fn inside(root: &Path, path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(root).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn parts_that_end_badly_or_not_at_all_end_with_the_others() {
        let mut running = Running::new();
        running.spawn(async { panic!("no words for it") });
        let ended = outcome(running.join_next().await.expect("a part")).expect_err("it panicked");
        assert_eq!(ended.kind(), Kind::Bug);
        assert!(ended.to_string().contains("no words for it"), "{ended}");

        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        running.spawn(async { Err(Failure::new(Kind::Unavailable, "refused")) });
        running.spawn(async { panic!("late") });
        running.spawn(async move {
            let _alive = alive;
            pending().await
        });
        let began = tokio::time::Instant::now();
        finish(running).await;
        assert_eq!(began.elapsed(), FAREWELL, "the one that hangs is waited for, and no longer");
        assert!(gone.await.is_err(), "it goes on");
    }
}
