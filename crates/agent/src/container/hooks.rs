//! Hooks: programs run at set points of a container's life, with its state as
//! JSON on their standard input (OCI runtime specification, "POSIX-platform Hooks").

use std::{
    collections::HashMap,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use osc_agent_protocol::oci;
use serde::Serialize;

use super::{Error, Result, reaper::Reaper};

/// Limit for a hook that names none.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Namespaces made, in the agent's namespaces; the older name of the next.
    Prestart,
    /// Namespaces made, in the agent's namespaces.
    CreateRuntime,
    /// Before the root changes, in the container's namespaces.
    CreateContainer,
    /// Before the program runs, in the container.
    StartContainer,
    /// After the program was started, in the agent's namespaces.
    Poststart,
    /// After the container ended, in the agent's namespaces.
    Poststop,
}

impl Stage {
    /// Its name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Its hooks in `spec`.
    pub fn of(self, spec: &oci::Spec) -> &[oci::Hook] {
        let hooks = &spec.Hooks;
        match self {
            Self::Prestart => &hooks.Prestart,
            Self::CreateRuntime => &hooks.CreateRuntime,
            Self::CreateContainer => &hooks.CreateContainer,
            Self::StartContainer => &hooks.StartContainer,
            Self::Poststart => &hooks.Poststart,
            Self::Poststop => &hooks.Poststop,
        }
    }
}

/// The state a hook reads.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    oci_version: String,
    id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: PathBuf,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: HashMap<String, String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl State {
    /// The state of a container; `pid` 0 leaves the process id out.
    pub fn new(id: &str, status: &'static str, pid: i32, bundle: &Path, spec: &oci::Spec) -> Self {
        let oci_version = if spec.Version.is_empty() { "1.0.2".into() } else { spec.Version.clone() };
        Self { oci_version, id: id.into(), status, pid, bundle: bundle.into(), annotations: spec.Annotations.clone() }
    }

    /// As a hook reads it.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data has a JSON form")
    }
}

/// How to start a hook.
pub fn command(hook: &oci::Hook) -> Command {
    let mut command = Command::new(&hook.Path);
    if let Some((name, args)) = hook.Args.split_first() {
        command.arg0(name).args(args);
    }
    command.env_clear().envs(hook.Env.iter().filter_map(|entry| entry.split_once('=')));
    command
}

/// How long a hook may take.
pub fn limit(hook: &oci::Hook) -> Duration {
    u64::try_from(hook.Timeout).ok().filter(|seconds| *seconds > 0).map_or(DEFAULT_LIMIT, Duration::from_secs)
}

/// How long all hooks of a stage may take together.
pub fn time_needed(spec: &oci::Spec, stage: Stage) -> Duration {
    stage.of(spec).iter().map(limit).sum()
}

/// The error of a hook that failed.
pub fn failure(stage: Stage, hook: &oci::Hook, reason: String) -> Error {
    Error::Hook { stage: stage.name(), path: PathBuf::from(&hook.Path), reason }
}

/// Runs the hooks of a stage in the agent's namespaces, one after the other.
///
/// # Errors
/// [`Error::Hook`] for the first that fails; the rest do not run.
pub async fn run_all(reaper: &Reaper, spec: &oci::Spec, stage: Stage, state: &State) -> Result<()> {
    for hook in stage.of(spec) {
        let done = reaper.run(command(hook), &state.json(), limit(hook)).await;
        let done = done.map_err(|error| failure(stage, hook, error.to_string()))?;
        if done.status != 0 {
            let words = String::from_utf8_lossy(&done.stderr);
            return Err(failure(stage, hook, format!("exit status {}: {}", done.status, words.trim())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_spelled_as_hooks_expect() {
        let spec = oci::Spec { Version: "1.1.0".into(), ..oci::Spec::default() };
        let state = State::new("c1", "created", 7, Path::new("/run/c1"), &spec);
        let want = r#"{"ociVersion":"1.1.0","id":"c1","status":"created","pid":7,"bundle":"/run/c1"}"#;
        assert_eq!(String::from_utf8(state.json()).unwrap(), want);
    }

    #[test]
    fn a_hook_without_a_limit_still_has_one() {
        for (timeout, want) in [(0, DEFAULT_LIMIT), (-1, DEFAULT_LIMIT), (3, Duration::from_secs(3))] {
            assert_eq!(limit(&oci::Hook { Timeout: timeout, ..oci::Hook::default() }), want, "{timeout}");
        }
    }
}
