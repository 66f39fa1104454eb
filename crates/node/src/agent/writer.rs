//! Writes the status of a pod: always upon what the API has, so that what others
//! have written there is neither lost nor overwritten.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// How often a write that lost a race is tried again.
const RACES: u32 = 8;
/// No answer of the API takes longer.
const ANSWER: Duration = Duration::from_secs(10);

/// Brings the status of `pod` to what `compute` makes of it. Where the pod is gone,
/// or another one has its name, nobody has to be told.
///
/// # Errors
/// In words, why the API does not take it.
pub(super) async fn write(client: &Client, pod: &Pod, compute: impl Fn(&Pod) -> PodStatus) -> Result<(), String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or("default"));
    let mut base = pod.clone();
    for _ in 0..RACES {
        let Some(patch) = patch(&base, &compute(&base)) else { return Ok(()) };
        let patch = Patch::Merge(&patch);
        match timely(api.patch_status(&name, &PatchParams::default(), &patch)).await {
            Ok(_) | Err(Refused::Gone) => return Ok(()),
            Err(Refused::Conflict) => {}
            Err(Refused::Other(reason)) => return Err(reason),
        }
        base = match timely(api.get(&name)).await {
            Ok(found) if found.metadata.uid == pod.metadata.uid => found,
            Ok(_) | Err(Refused::Gone) => return Ok(()),
            Err(Refused::Conflict) => continue,
            Err(Refused::Other(reason)) => return Err(reason),
        };
    }
    Err("others change the pod all the time".into())
}

enum Refused {
    Conflict,
    Gone,
    Other(String),
}

async fn timely<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, Refused> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Refused::Conflict),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Refused::Gone),
        Ok(Err(error)) => Err(Refused::Other(osc_agent_protocol::kind::chain(&error))),
        Err(_) => Err(Refused::Other(format!("no answer within {ANSWER:?}"))),
    }
}

/// The merge patch from one status to the next; lists are replaced whole. `None`
/// where nothing changes.
fn patch(base: &Pod, status: &PodStatus) -> Option<Value> {
    let (old, new) = (json!(base.status.clone().unwrap_or_default()), json!(status));
    if old == new {
        return None;
    }
    let mut change = serde_json::Map::new();
    let (old, new) = (old.as_object()?, new.as_object()?);
    for (field, value) in new.iter().filter(|(field, value)| old.get(*field) != Some(value)) {
        change.insert(field.clone(), value.clone());
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        change.insert(field.clone(), Value::Null);
    }
    let metadata = json!({"uid": base.metadata.uid, "resourceVersion": base.metadata.resource_version});
    Some(json!({"metadata": metadata, "status": change}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_what_changes() {
        let base: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "7"},
            "status": {"phase": "Running", "podIP": "1.2.3.4", "reason": "x"},
        }))
        .expect("pod");
        assert_eq!(patch(&base, &base.status.clone().expect("status")), None);
        let status = PodStatus { phase: Some("Running".into()), reason: Some("y".into()), ..Default::default() };
        let want = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "status": {"reason": "y", "podIP": null}});
        assert_eq!(patch(&base, &status), Some(want));
    }
}
