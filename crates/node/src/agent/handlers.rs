//! From the name of a runtime class to the runtime's handler.

use std::time::Duration;

use k8s_openapi::api::node::v1::RuntimeClass;
use kube::{Api, Client};
use osc_agent_protocol::kind::chain;

use crate::pod::Note;

/// No answer of the API takes longer.
const ANSWER: Duration = Duration::from_secs(10);

/// Finds handlers.
#[derive(Clone)]
pub(super) struct Handlers {
    client: Client,
    /// For pods that name no class.
    default: String,
}

impl Handlers {
    pub(super) fn new(client: Client, default: String) -> Self {
        Self { client, default }
    }

    /// The handler of a class.
    ///
    /// # Errors
    /// What the pod's owner is to be told.
    pub(super) async fn of(&self, class: Option<&str>) -> Result<String, Note> {
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(self.default.clone()) };
        let failed = |reason: String| {
            let text = format!("failed to get sandbox runtime: {reason}");
            Note::pod(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {text}"))
        };
        let api: Api<RuntimeClass> = Api::all(self.client.clone());
        match tokio::time::timeout(ANSWER, api.get_opt(class)).await {
            Ok(Ok(Some(found))) => Ok(found.handler),
            Ok(Ok(None)) => Err(failed(format!("runtime class {class:?} not found"))),
            Ok(Err(error)) => Err(failed(chain(&error))),
            Err(_) => Err(failed(format!("no answer of the API within {ANSWER:?}"))),
        }
    }
}
