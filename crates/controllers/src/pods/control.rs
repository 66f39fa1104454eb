//! Creating and deleting pods on behalf of an owner, with events on the owner.

use std::future::Future;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, Preconditions},
};

use crate::{
    context::{patching, posting},
    error::{Attempt, Error},
    events::Recorder,
};

/// Writes at the same time for one owner.
const PARALLEL: usize = 16;

/// Makes and deletes pods.
#[derive(Clone)]
pub(crate) struct PodControl {
    client: Client,
    events: Recorder,
}

impl PodControl {
    pub(crate) fn new(client: Client, events: Recorder) -> Self {
        Self { client, events }
    }

    fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a pod and tells so on the owner.
    pub(crate) async fn create<O: Resource<DynamicType = ()>>(&self, owner: &O, pod: &Pod) -> Result<Pod, Error> {
        let namespace = owner.namespace().unwrap_or_default();
        let what = || pod.name_any();
        match self.api(&namespace).create(&posting(), pod).await.during("create pod", what()) {
            Ok(created) => {
                let message = format!("Created pod: {}", created.name_any());
                self.events.normal(owner, "SuccessfulCreate", message);
                Ok(created)
            }
            Err(error) => {
                // A namespace going away refuses everything: that is no news.
                if !error.namespace_terminating() {
                    let message = format!("Error creating: {}", error.api_message());
                    self.events.warning(owner, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes a pod unless it is gone or replaced, and tells so on the owner.
    pub(crate) async fn delete<O: Resource<DynamicType = ()>>(&self, owner: &O, pod: &Pod) -> Result<(), Error> {
        let namespace = owner.namespace().unwrap_or_default();
        let name = pod.name_any();
        let uid = pod.metadata.uid.clone();
        let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
        match self.api(&namespace).delete(&name, &params).await.unless_gone("delete pod", &name) {
            Ok(Some(_)) => {
                self.events.normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                let message = format!("Error deleting: {}", error.api_message());
                self.events.warning(owner, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Applies a strategic merge patch to a pod; a pod that is gone is fine.
    pub(crate) async fn patch(&self, pod: &Pod, patch: serde_json::Value) -> Result<(), Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let name = pod.name_any();
        let patched = self.api(&namespace).patch_metadata(&name, &patching(), &Patch::Strategic(patch)).await;
        patched.map(|_| ()).unless_gone("patch pod", &name).map(|_| ())
    }
}

/// Runs `count` attempts in rounds of 1, 2, 4 … and stops after the first round
/// with a failure: if one pod is refused (quota, admission), most others would be
/// too. Returns how many went well and the first error.
pub(crate) async fn batched<F, R>(count: usize, attempt: F) -> (usize, Result<(), Error>)
where
    F: Fn(usize) -> R,
    R: Future<Output = Result<(), Error>>,
{
    let (mut done, mut round) = (0, 1);
    let mut good = 0;
    while done < count {
        let size = round.min(count - done);
        let results: Vec<_> = stream::iter(done..done + size).map(&attempt).buffer_unordered(PARALLEL).collect().await;
        done += size;
        round *= 2;
        let mut failure = None;
        for result in results {
            match result {
                Ok(()) => good += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return (good, Err(error));
        }
    }
    (good, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_refusal_ends_the_rounds_early() {
        let refusal = || Error::Invalid { object: "pod".into(), field: "spec", problem: "no".into() };
        for (count, fails_from, tried, good, fine) in [
            (10, 100, 10, 10, true),
            (10, 0, 1, 0, false),
            (10, 2, 3, 2, false),
            (100, 8, 15, 8, false),
            (0, 0, 0, 0, true),
        ] {
            let tries = Cell::new(0);
            let (done, result) = batched(count, |n| {
                tries.set(tries.get() + 1);
                async move { if n < fails_from { Ok(()) } else { Err(refusal()) } }
            })
            .await;
            assert_eq!((tries.get(), done, result.is_ok()), (tried, good, fine), "{count} from {fails_from}");
        }
    }
}
