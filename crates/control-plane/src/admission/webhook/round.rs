//! The mutating webhooks of one request, called one after another.

use std::collections::BTreeSet;

use osc_api::status::Status;
use serde_json::Value;

use super::{
    Webhooks,
    call::Failure,
    hook::Hook,
    matching::Context,
    review::{Answer, Verdict},
};
use crate::admission::Attributes;

/// What no webhook may change: the request was authorised for this object.
const IDENTITY: [(&str, &str); 5] = [
    ("apiVersion", "/apiVersion"),
    ("kind", "/kind"),
    ("metadata.name", "/metadata/name"),
    ("metadata.namespace", "/metadata/namespace"),
    ("metadata.uid", "/metadata/uid"),
];

/// The mutating webhooks of one request.
pub(in crate::admission) struct Round<'a> {
    webhooks: &'a Webhooks,
    hooks: Vec<Hook>,
    context: Context,
    /// Called since the last change, and willing to be called again.
    called: Vec<usize>,
    /// To be called again: something changed after their call.
    again: BTreeSet<usize>,
    changed: bool,
    warnings: Vec<String>,
}

impl<'a> Round<'a> {
    pub(super) fn new(webhooks: &'a Webhooks, hooks: Vec<Hook>, context: Context) -> Self {
        Self {
            webhooks,
            hooks,
            context,
            called: Vec::new(),
            again: BTreeSet::new(),
            changed: false,
            warnings: Vec::new(),
        }
    }

    /// Calls every hook that matches; each sees what those before it made of the object.
    pub async fn call_all(
        &mut self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        for index in 0..self.hooks.len() {
            match self.call(index, attributes, object, old).await? {
                Outcome::NotAsked => continue,
                Outcome::Unchanged => {}
                Outcome::Changed => {
                    self.changed = true;
                    self.again.extend(self.called.drain(..));
                }
            }
            if self.hooks[index].wants_another_look() {
                self.called.push(index);
            }
        }
        Ok(())
    }

    /// Whether a hook changed the object.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Calls those again that want another look at what changed after their call; `since` tells whether the built-in
    /// steps changed the object after all of them. Hooks that were not called the first time are not called now.
    pub async fn call_again(
        &mut self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
        since: bool,
    ) -> Result<(), Status> {
        if since {
            self.again.extend(self.called.drain(..));
        }
        for index in std::mem::take(&mut self.again) {
            self.call(index, attributes, object, old).await?;
        }
        Ok(())
    }

    /// What the client is to be told.
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    async fn call(
        &mut self,
        index: usize,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Outcome, Status> {
        let hook = &self.hooks[index];
        let Some(Answer { verdict, warnings }) =
            self.webhooks.ask(hook, &self.context, attributes, object, old).await?
        else {
            return Ok(Outcome::NotAsked);
        };
        self.warnings.extend(warnings);
        let Verdict::Patched(patch) = verdict else { return Ok(Outcome::Unchanged) };
        match patched(object, &patch) {
            Ok(new) if new == *object => Ok(Outcome::Unchanged),
            Ok(new) => {
                *object = new;
                Ok(Outcome::Changed)
            }
            Err(failure) => failure.settle(hook).map(|()| Outcome::Unchanged),
        }
    }
}

enum Outcome {
    NotAsked,
    Unchanged,
    Changed,
}

fn patched(object: &Value, patch: &[u8]) -> Result<Value, Failure> {
    let new = osc_patch::json_patch(object, patch)?;
    if object.is_null() {
        return if new.is_null() { Ok(new) } else { Err(Failure::Unpatchable) };
    }
    match IDENTITY.into_iter().find(|(_, pointer)| new.pointer(pointer) != object.pointer(pointer)) {
        Some((field, _)) => Err(Failure::Identity(field)),
        None => Ok(new),
    }
}
