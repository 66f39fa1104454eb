//! Looks at all pods of the engine at once and wakes whoever looks after one that
//! changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use osc_agent_protocol::kind::chain;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    cri::{Client, CriError},
    pod::config::labels,
};

const RELIST: Duration = Duration::from_secs(1);

/// Who is to be woken, by the identity of the pod.
#[derive(Clone, Default)]
pub(super) struct Wakers(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

impl Wakers {
    pub(super) fn insert(&self, uid: &str, waker: Arc<Notify>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), waker);
    }

    pub(super) fn remove(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    pub(super) fn wake(&self, uid: &str) {
        if let Some(waker) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid) {
            waker.notify_one();
        }
    }
}

/// States of the sandboxes and containers of each pod.
type Outline = HashMap<String, Vec<(String, i32)>>;

/// Looks until `stop`.
pub(super) async fn run(client: Client, wakers: Wakers, stop: CancellationToken) {
    let mut last = Outline::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RELIST) => {}
        }
        match outline(&client).await {
            Ok(now) => {
                changed(&last, &now).for_each(|uid| wakers.wake(uid));
                last = now;
            }
            Err(error) => tracing::debug!(error = chain(&error), "engine does not answer"),
        }
    }
}

fn changed<'a>(last: &'a Outline, now: &'a Outline) -> impl Iterator<Item = &'a String> {
    let gone = last.keys().filter(|uid| !now.contains_key(*uid));
    now.iter().filter(|(uid, states)| last.get(*uid) != Some(states)).map(|(uid, _)| uid).chain(gone)
}

async fn outline(client: &Client) -> Result<Outline, CriError> {
    let mut outline = Outline::new();
    let mut add = |labels: &HashMap<String, String>, id: String, state: i32| {
        if let Some(uid) = labels.get(labels::UID) {
            outline.entry(uid.clone()).or_default().push((id, state));
        }
    };
    for sandbox in client.sandboxes(HashMap::new()).await? {
        add(&sandbox.labels, sandbox.id, sandbox.state);
    }
    for container in client.containers(HashMap::new()).await? {
        add(&container.labels, container.id, container.state);
    }
    outline.values_mut().for_each(|states| states.sort());
    Ok(outline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_woken() {
        let outline = |pods: &[(&str, i32)]| -> Outline {
            pods.iter().map(|&(uid, state)| (uid.to_owned(), vec![("id".to_owned(), state)])).collect()
        };
        let (last, now) = (outline(&[("a", 1), ("b", 1), ("c", 1)]), outline(&[("a", 1), ("b", 2), ("d", 1)]));
        let mut woken: Vec<_> = changed(&last, &now).map(String::as_str).collect();
        woken.sort_unstable();
        assert_eq!(woken, ["b", "c", "d"]);
    }
}
