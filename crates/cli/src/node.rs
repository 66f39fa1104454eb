//! The engines of this root, as the commands that run and show pods use them: one
//! for `osc run`, and one for each node of the cluster.

use osc_agent_protocol::Kind;
use osc_node::{
    engine::{Engine, Kata},
    pod::{PodError, Pods, Record, Summary, forget_all},
};

use crate::{Context, Failure, cluster::layout::Layout};

/// Starts the engine of `osc run`, or adopts it.
///
/// # Errors
/// Why it does not start.
pub async fn start(context: &Context) -> Result<(Engine, Pods), Failure> {
    let engine = Engine::new(context.dirs.clone());
    let client = engine.start(Some(&Kata::installed(engine.paths().dirs()))).await?;
    let pods = Pods::new(engine.paths(), client);
    Ok((engine, pods))
}

/// The pods `engine` runs; `None` where it does not run.
pub fn running(engine: &Engine) -> Option<Pods> {
    engine.running().map(|client| Pods::new(engine.paths(), client))
}

/// Every engine there has been, with the name of its node where it has one.
pub fn engines(context: &Context) -> Vec<(Option<String>, Engine)> {
    let layout = Layout::new(&context.dirs);
    let nodes = layout.node_names().into_iter();
    let nodes = nodes.map(|name| (Some(name.clone()), Engine::new(layout.node(&name))));
    [(None, Engine::new(context.dirs.clone()))].into_iter().chain(nodes).collect()
}

/// The pod meant by `name`, whoever started it.
///
/// # Errors
/// When there is none, or more than one, or no engine runs.
pub async fn find(context: &Context, name: &str) -> Result<(Pods, Record), Failure> {
    let mut found = Vec::new();
    let mut any = false;
    for (_, engine) in engines(context) {
        let Some(pods) = running(&engine) else { continue };
        any = true;
        match pods.find(name).await {
            Ok(record) => found.push((pods, record)),
            Err(PodError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !any {
        return Err(Failure::new(
            Kind::NotFound,
            "nothing runs here: start a pod with `osc run` or a cluster with `osc up`",
        ));
    }
    if found.len() > 1 {
        let candidates = found.iter().map(|(_, record)| record.uid.clone()).collect();
        return Err(PodError::Ambiguous { name: name.to_owned(), candidates }.into());
    }
    found.pop().ok_or_else(|| PodError::NotFound(name.to_owned()).into())
}

/// Stops an engine and whatever of its pods has not been deleted, and with `purge`
/// forgets its images. `deleted` is what became of deleting them.
///
/// # Errors
/// The first step that failed; each is taken, whatever became of the one before.
pub async fn end(engine: &Engine, purge: bool, deleted: Result<(), PodError>) -> Result<(), Failure> {
    let stopped = engine.stop(false).await;
    let forgotten = forget_all(engine.paths()).await;
    let purged = if purge { engine.stop(true).await } else { Ok(()) };
    stopped?;
    forgotten?;
    purged?;
    if let Err(error) = deleted {
        // Stopping the engine has ended them, if less gently.
        tracing::warn!(engine = engine.paths().tag(), error = %error, "pods were killed, not deleted");
    }
    Ok(())
}

/// The container to talk to: the one asked for, or the first.
///
/// # Errors
/// When there is no such container.
pub fn container<'a>(summary: &'a Summary, names: &'a [String], asked: Option<&'a str>) -> Result<&'a str, Failure> {
    let name = asked.or_else(|| names.first().map(String::as_str)).unwrap_or_default();
    if asked.is_none() && names.len() > 1 {
        eprintln!("osc: container {name} out of {}", names.join(", "));
    }
    // Init and ephemeral containers are not among those a pod must have.
    if names.iter().any(|known| known == name) || summary.containers.contains_key(name) {
        return Ok(name);
    }
    let text = format!("pod {} has no container {name:?}; it has {}", summary.name, names.join(", "));
    Err(Failure::new(Kind::NotFound, text))
}
