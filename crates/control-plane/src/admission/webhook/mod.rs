//! Webhooks: servers that are asked about objects before they are stored.
//!
//! ```text
//!  configurations ─► hook ─► matching ─► review ─► client ─► review ─► patch or verdict
//!   (by name)                (rules,     (request)  (TLS)    (answer)
//!                             selectors,
//!                             conditions)
//! ```
//!
//! The attacker is the webhook's server, and whoever may write configurations: answers are bounded in size and time,
//! connections in number, and an answer can change nothing but the object it was asked about.

mod call;
mod client;
mod hook;
mod matching;
mod review;
mod round;
mod target;
#[cfg(test)]
mod tests;

use osc_api::status::Status;
use serde_json::Value;

use super::Attributes;
use crate::reader::Reader;
use client::Client;
use hook::Hook;
use matching::Context;
pub(super) use round::Round;

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// All webhooks of the cluster.
pub(super) struct Webhooks {
    reader: Reader,
    client: Client,
}

impl Webhooks {
    pub fn new(reader: Reader) -> Self {
        Self { reader, client: Client::default() }
    }

    /// The mutating webhooks this request is about, to be called in their order.
    pub async fn mutating(&self, attributes: &Attributes<'_>) -> Result<Round<'_>, Status> {
        let hooks = self.hooks(MUTATING, attributes).await?;
        let context = if hooks.is_empty() { Context::default() } else { Context::read(&self.reader, attributes)? };
        Ok(Round::new(self, hooks, context))
    }

    /// Asks all validating webhooks at once; of several refusals the first in the order of names is given.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Vec<String>, Status> {
        let hooks = self.hooks(VALIDATING, attributes).await?;
        if hooks.is_empty() {
            return Ok(Vec::new());
        }
        let context = Context::read(&self.reader, attributes)?;
        let object = object.unwrap_or(&Value::Null);
        let calls = hooks.iter().map(|hook| async {
            let answer = self.ask(hook, &context, attributes, object, old).await?;
            Ok(answer.map(|answer| answer.warnings).unwrap_or_default())
        });
        let answers: Vec<Result<Vec<String>, Status>> = futures::future::join_all(calls).await;
        let mut warnings = Vec::new();
        for answer in answers {
            warnings.extend(answer?);
        }
        Ok(warnings)
    }

    /// The hooks whose rules match, sorted by the name of their configuration.
    async fn hooks(&self, plural: &str, attributes: &Attributes<'_>) -> Result<Vec<Hook>, Status> {
        // A broken webhook must not keep anybody from removing it.
        if attributes.resource.is(GROUP, MUTATING) || attributes.resource.is(GROUP, VALIDATING) {
            return Ok(Vec::new());
        }
        let mut configurations = self.reader.list(GROUP, plural, "").await?;
        configurations.sort_by(|left, right| {
            let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            name(left).cmp(&name(right))
        });
        let mut hooks = Vec::new();
        for configuration in &configurations {
            for hook in hook::read(configuration)? {
                if matching::rules(&hook.rules, attributes) {
                    hooks.push(hook);
                }
            }
        }
        Ok(hooks)
    }
}
