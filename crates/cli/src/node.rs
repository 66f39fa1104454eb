//! The engine of this root, as the commands that run and show pods use it.

use osc_agent_protocol::Kind;
use osc_node::{
    engine::{Engine, Kata},
    pod::{Pods, Summary},
};

use crate::{Context, Failure};

/// Starts the engine, or adopts it.
///
/// # Errors
/// Why it does not start.
pub async fn start(context: &Context) -> Result<(Engine, Pods), Failure> {
    let engine = Engine::new(context.dirs.clone());
    let client = engine.start(&Kata::installed(engine.paths().dirs())).await?;
    let pods = Pods::new(engine.paths(), client);
    Ok((engine, pods))
}

/// The pods of a running engine; `None` where none runs.
pub fn running(context: &Context) -> Option<Pods> {
    let engine = Engine::new(context.dirs.clone());
    engine.running().map(|client| Pods::new(engine.paths(), client))
}

/// The pods of the engine, which must run.
///
/// # Errors
/// When it does not.
pub fn must_run(context: &Context) -> Result<Pods, Failure> {
    running(context).ok_or_else(|| Failure::new(Kind::NotFound, "nothing runs here: start a pod with `osc run`"))
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
    if names.iter().any(|known| known == name) {
        return Ok(name);
    }
    let text = format!("pod {} has no container {name:?}; it has {}", summary.name, names.join(", "));
    Err(Failure::new(Kind::NotFound, text))
}
