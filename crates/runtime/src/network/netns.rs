//! Work inside a pod's network namespace.
//!
//! A socket stays in the namespace it was opened in, so only opening happens
//! there, on a thread made for it: a thread of the async runtime that changed
//! its namespace could not be given back.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
};

use futures::{Stream, TryStreamExt};
use nix::{
    sched::{CloneFlags, setns},
    sys::stat::fstat,
};
use tokio::{runtime::Handle, sync::oneshot, task::AbortHandle};

use super::error::NetworkError;

/// The thread opens a few descriptors and ends.
const STACK: usize = 128 << 10;

/// A netlink connection into one namespace. The task that serves it ends with
/// it.
pub struct Netns {
    path: PathBuf,
    /// Requests to the kernel.
    pub handle: rtnetlink::Handle,
    task: AbortHandle,
}

impl Netns {
    /// Connects into the namespace at `path`.
    ///
    /// # Errors
    /// [`NetworkError::Enter`], or [`NetworkError::Host`] for the namespace this
    /// process lives in.
    pub async fn open(path: &Path) -> Result<Self, NetworkError> {
        let runtime = Handle::current();
        let (connection, handle, _) = run(path, move || {
            // The socket registers with the reactor of the caller.
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        })
        .await?;
        let task = tokio::spawn(connection).abort_handle();
        Ok(Self { path: path.to_owned(), handle, task })
    }

    /// The namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names the action an error is about.
    pub fn doing(&self, action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
        let (action, netns) = (action.into(), self.path.clone());
        move |source| NetworkError::Netlink { action, netns, source: Box::new(source) }
    }

    /// Everything a dump yields.
    pub async fn list<T>(
        &self,
        what: &str,
        dump: impl Stream<Item = Result<T, rtnetlink::Error>>,
    ) -> Result<Vec<T>, NetworkError> {
        dump.try_collect().await.map_err(self.doing(format!("list {what}")))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs `work` on a thread inside the namespace at `path`.
///
/// # Errors
/// As for [`Netns::open`]; errors of `work` count as not being able to enter.
pub async fn run<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NetworkError> {
    let netns = path.to_owned();
    let failed = |source| NetworkError::Enter { netns: path.to_owned(), source };
    let (answer, answered) = oneshot::channel();
    let inside = move || {
        let result = enter(&netns).and_then(|entered| if entered { work().map(Some) } else { Ok(None) });
        // Nobody waits any more when the caller gave up.
        let _ = answer.send(result);
    };
    thread::Builder::new().name("netns".into()).stack_size(STACK).spawn(inside).map_err(failed)?;
    let result = answered.await.map_err(|_| failed(io::Error::other("the thread inside it panicked")))?;
    result.map_err(failed)?.ok_or_else(|| NetworkError::Host { netns: path.to_owned() })
}

/// Moves this thread into the namespace; `false` when it is there already.
fn enter(path: &Path) -> io::Result<bool> {
    let own = fstat(&File::open("/proc/thread-self/ns/net")?)?;
    let wanted = File::open(path)?;
    let there = fstat(&wanted)?;
    if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino) {
        return Ok(false);
    }
    setns(wanted, CloneFlags::CLONE_NEWNET)?;
    Ok(true)
}
