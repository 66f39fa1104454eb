//! One question to one webhook, and what its failure means.

use osc_api::{meta, status::Status};
use osc_fault::chain;
use serde_json::Value;
use tracing::warn;

use super::{
    Webhooks,
    hook::Hook,
    matching::{self, BadCondition, Context},
    review::{self, Answer, BadAnswer, Verdict},
    target::{self, BadTarget},
};
use crate::admission::{Attributes, webhook::client::CallError};

/// Why a webhook gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Condition(#[from] BadCondition),
    #[error("webhook does not accept v1 or v1beta1 AdmissionReviews: it lists neither in admissionReviewVersions")]
    Version,
    #[error("failed to call webhook")]
    Target(#[from] BadTarget),
    #[error("failed to call webhook: Post {url:?}")]
    Call { url: String, source: CallError },
    #[error("received invalid webhook response")]
    Answer(#[from] BadAnswer),
    #[error("received a patch that cannot be applied")]
    Patch(#[from] osc_patch::PatchError),
    #[error("received a patch that changes {0}, which no webhook may")]
    Identity(&'static str),
    #[error("received a patch where nothing can be changed")]
    Unpatchable,
}

impl Failure {
    /// The refusal for the client when the hook insists on an answer; nothing when it lets the request pass.
    pub fn settle(self, hook: &Hook) -> Result<(), Status> {
        let error = chain(&self);
        if hook.ignores_failure() {
            warn!(webhook.name = hook.name, error, "webhook failed and is ignored");
            return Ok(());
        }
        warn!(webhook.name = hook.name, error, "webhook failed");
        Err(Status::internal(format!("failed calling webhook {:?}: {error}", hook.name)))
    }
}

impl Webhooks {
    /// Asks a hook, if it is to be asked. Nothing when it is not, or when its failure does not matter.
    pub(super) async fn ask(
        &self,
        hook: &Hook,
        context: &Context,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Answer>, Status> {
        if !matching::selectors(hook, context, attributes, object, old)? {
            return Ok(None);
        }
        let request = review::request(attributes, object, old, &meta::new_uid());
        match matching::conditions(&hook.match_conditions, &request) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(bad) => return Failure::from(bad).settle(hook).map(|()| None),
        }
        if attributes.dry_run && !hook.allows_dry_run() {
            return Err(Status::bad_request(format!("admission webhook {:?} does not support dry run", hook.name)));
        }
        match self.call(hook, &request).await {
            Ok(Answer { verdict: Verdict::Denied(status), .. }) => Err(review::denial(&hook.name, &status)),
            Ok(answer) => Ok(Some(answer)),
            Err(failure) => failure.settle(hook).map(|()| None),
        }
    }

    async fn call(&self, hook: &Hook, request: &Value) -> Result<Answer, Failure> {
        let version = hook.version().ok_or(Failure::Version)?;
        let timeout = hook.timeout();
        let deadline = tokio::time::Instant::now() + timeout;
        let target = target::find(&self.reader, &hook.client_config, timeout).await?;
        let body = self.client.post(&target, review::question(version, request), deadline).await;
        let body = body.map_err(|source| Failure::Call { url: target.url(), source })?;
        let uid = request["uid"].as_str().unwrap_or_default();
        Ok(review::answer(version, uid, &body)?)
    }
}
