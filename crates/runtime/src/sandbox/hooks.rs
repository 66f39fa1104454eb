//! Hooks that run on the host (OCI runtime specification 1.1, "POSIX-platform
//! Hooks"). They come from the container engine, not from the tenant.

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use oci_spec::runtime::{Hook, Hooks};
use osc_agent_protocol::Kind;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::deadline::Deadline;

/// A hook without a time limit of its own gets this one: the specification
/// allows it to hang for ever, a pod start cannot.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);
/// How much of a hook's standard error is kept for the error message.
const STDERR_LIMIT: u64 = 4096;
/// How long to wait for the rest of it once the hook has ended.
const STDERR_GRACE: Duration = Duration::from_millis(50);

/// A hook that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started or talked to.
    #[error("cannot run hook {}: check that it exists and is executable", path.display())]
    Run {
        /// The hook.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("hook {} ended with {status}: {stderr}", path.display())]
    Failed {
        /// The hook.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
    /// It did not end in time and was killed.
    #[error("hook {} still ran after {limit:?} and was killed", path.display())]
    Slow {
        /// The hook.
        path: PathBuf,
        /// Its limit.
        limit: Duration,
    },
}

impl HookError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Run { source, .. } => Kind::of_io(source),
            Self::Failed { .. } => Kind::Invalid,
            Self::Slow { .. } => Kind::Timeout,
        }
    }
}

/// State of a container as hooks get it on standard input.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification the bundle was written for.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: &'static str,
    /// The hypervisor, whose namespaces are those of the pod.
    pub pid: u32,
    /// Bundle directory.
    pub bundle: PathBuf,
}

/// Points at which host hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// After the virtual machine started, before its network is looked at.
    CreateRuntime,
    /// After the first process started.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

/// The hooks of `point` in the order they have to run; prestart hooks are the
/// older name of createRuntime ones and go first.
fn of(hooks: &Hooks, point: Point) -> impl Iterator<Item = &Hook> {
    #[allow(deprecated, reason = "engines still send prestart hooks")]
    let (first, second) = match point {
        Point::CreateRuntime => (hooks.prestart().as_ref(), hooks.create_runtime().as_ref()),
        Point::Poststart => (hooks.poststart().as_ref(), None),
        Point::Poststop => (hooks.poststop().as_ref(), None),
    };
    first.into_iter().flatten().chain(second.into_iter().flatten())
}

/// Whether there is any hook at `point`.
pub fn any(hooks: Option<&Hooks>, point: Point) -> bool {
    hooks.is_some_and(|hooks| of(hooks, point).next().is_some())
}

/// Runs the hooks of `point` one after the other.
///
/// # Errors
/// The first hook that fails before or during creation; failures at the later
/// points are logged and the next hook runs, as the specification demands.
pub async fn run(hooks: Option<&Hooks>, point: Point, state: &State) -> Result<(), HookError> {
    let Some(hooks) = hooks else { return Ok(()) };
    let state_json = serde_json::to_vec(state).expect("a state has only text and numbers");
    for hook in of(hooks, point) {
        let outcome = run_one(hook, &state_json, &state.bundle).await;
        match outcome {
            Err(error) if point != Point::CreateRuntime => {
                let error = osc_agent_protocol::kind::chain(&error);
                tracing::warn!(container.id = state.id, hook.point = ?point, error, "hook failed");
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

async fn run_one(hook: &Hook, state: &[u8], bundle: &Path) -> Result<(), HookError> {
    let path = hook.path().clone();
    let limit = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_LIMIT, Duration::from_secs);
    let mut command = Command::new(&path);
    if let Some((name, arguments)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(arguments);
    }
    let environment = hook.env().iter().flatten().filter_map(|pair| pair.split_once('='));
    command.env_clear().envs(environment).current_dir(bundle);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);

    match Deadline::after(limit).run(talk(command, state)).await {
        Err(_) => Err(HookError::Slow { path, limit }),
        Ok(Err(source)) => Err(HookError::Run { path, source }),
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((status, stderr))) => Err(HookError::Failed { path, status, stderr }),
    }
}

/// Runs `command` with `state` on its standard input; how it ended and the
/// beginning of what it said on standard error.
async fn talk(mut command: Command, state: &[u8]) -> io::Result<(ExitStatus, String)> {
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let mut stderr = child.stderr.take().expect("standard error is piped").take(STDERR_LIMIT);
    let feed = async {
        // A hook need not read its input.
        let _ = stdin.write_all(state).await;
        drop(stdin);
    };
    let mut said = Vec::new();
    let listen = async {
        let _ = stderr.read_to_end(&mut said).await;
        // Read on past the limit, or a talkative hook would block.
        let _ = tokio::io::copy(stderr.get_mut(), &mut tokio::io::sink()).await;
    };
    let end = async { tokio::join!(child.wait(), feed).0 };
    let status = with_company(end, listen).await?;
    Ok((status, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Runs both to the end of `main`, and `company` a little longer: what a hook
/// left running in the background may hold its standard error open for ever.
async fn with_company<T>(main: impl Future<Output = T>, company: impl Future<Output = ()>) -> T {
    tokio::pin!(main, company);
    let first = tokio::select! {
        out = &mut main => Some(out),
        () = &mut company => None,
    };
    match first {
        Some(out) => {
            let _ = Deadline::after(STDERR_GRACE).run(company).await;
            out
        }
        None => main.await,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{HookBuilder, HooksBuilder};

    use super::*;

    fn shell(script: &str, timeout: i64) -> Hooks {
        let hook = HookBuilder::default()
            .path("/bin/sh")
            .args(vec!["sh".into(), "-c".into(), script.into()])
            .env(vec!["GREETING=hello".into()])
            .timeout(timeout)
            .build()
            .unwrap();
        HooksBuilder::default().create_runtime(vec![hook.clone()]).poststop(vec![hook]).build().unwrap()
    }

    fn state(bundle: &Path) -> State {
        State { oci_version: "1.0.2".into(), id: "c1".into(), status: "creating", pid: 7, bundle: bundle.into() }
    }

    #[tokio::test]
    async fn a_hook_gets_state_environment_and_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = shell("cat > state; echo $GREETING > greeting", 5);
        run(Some(&hooks), Point::CreateRuntime, &state(dir.path())).await.unwrap();
        let seen = std::fs::read_to_string(dir.path().join("state")).unwrap();
        assert!(seen.contains(r#""ociVersion":"1.0.2","id":"c1","status":"creating","pid":7"#), "{seen}");
        assert_eq!(std::fs::read_to_string(dir.path().join("greeting")).unwrap(), "hello\n");
    }

    #[tokio::test]
    async fn failures_stop_creation_but_not_deletion() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(dir.path());
        let hooks = shell("echo broken >&2; exit 3", 5);
        let error = run(Some(&hooks), Point::CreateRuntime, &state).await.unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3: broken"), "{error}");
        run(Some(&hooks), Point::Poststop, &state).await.unwrap();
        let error = run(Some(&shell("exec sleep 30", 1)), Point::CreateRuntime, &state).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
    }
}
