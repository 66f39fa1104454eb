//! Resource quotas: what is used is written down together with what uses it.
//!
//! ```text
//!  new object ─► Charge: its quotas, with what it uses added ─┐
//!                                                             ├─► one write: all of it or nothing
//!  the object ────────────────────────────────────────────────┘
//!
//!  changes ─► recount: what is there, replaces what is written down unless that changed meanwhile
//! ```
//!
//! So two creations at the same time cannot both use what only one may. What is given back (deletions, pods that end)
//! is found by counting anew, a moment later.

mod recount;

use osc_api::{pod::Resources, quota, status::Status};
use osc_store::{Change, Expect, Page};
use serde_json::{Value, json};

pub(crate) use recount::run;

use crate::{
    admission::{Attributes, Operation},
    api::Api,
    objects::{self, Written},
    resources::Served,
};

/// Quotas that changed between reading and writing them, in a row, before a writer gives up.
const RACES: usize = 100;

/// Changes of quotas that go with the write of an object.
pub(crate) type Charge = Vec<Change>;

/// Checks the quotas of the namespace and adds to them what `new` uses beyond `old`.
///
/// # Errors
/// 403 when one of them does not allow it.
pub(crate) async fn charge(
    api: &Api,
    attributes: &Attributes<'_>,
    new: &Value,
    old: Option<&Value>,
) -> Result<Charge, Status> {
    if !matches!(attributes.subresource, "" | "resize") || !quota::counts(attributes.resource) {
        return Ok(Charge::new());
    }
    let more = added(attributes, new, old);
    let snapshot = api.catalog.snapshot();
    let Some(quotas) = snapshot.find("", "v1", "resourcequotas") else { return Ok(Charge::new()) };
    let prefix = quotas.prefix(attributes.namespace)?;
    let listing = api.store.list(&prefix, Page::default()).await.map_err(|error| objects::history(&error))?;
    let mut charge = Charge::new();
    for entry in &listing.entries {
        let mut quota = objects::decode(quotas, &entry.value)?;
        if !quota::covers(&quota, attributes.resource, new) {
            continue;
        }
        if attributes.is(&[Operation::Create], "", "pods")
            && let Some(why) = quota::unnamed(&quota, new)
        {
            return Err(attributes.forbidden(why));
        }
        let hard = quota::hard(&quota);
        if !more.iter().any(|(name, amount)| hard.contains_key(name) && !amount.is_zero()) {
            continue;
        }
        let used = match quota::used(&quota) {
            Some(used) => used,
            None => recount::count(api, &quota, attributes.namespace, listing.revision).await?,
        };
        if let Some(why) = quota::refusal(&quota, &used, &more) {
            return Err(attributes.forbidden(why));
        }
        let used = hard.keys().map(|name| {
            let now = used.get(name).copied().unwrap_or(osc_api::Quantity::ZERO);
            (name.clone(), more.get(name).map_or(now, |more| now.plus(more)))
        });
        note(&mut quota, used.collect());
        let key = quotas.key(attributes.namespace, entry.key.name())?;
        charge.push(objects::replacement(quotas, key, entry.revision, quota));
    }
    Ok(charge)
}

/// Writes an object, new or in place of `old`, together with its charge.
///
/// Nothing is returned, and nothing was written, when the object itself is not as it was read.
///
/// # Errors
/// 403 when a quota does not allow it, 409 when quotas change all the time.
pub(crate) async fn write(
    api: &Api,
    served: &Served,
    attributes: &Attributes<'_>,
    new: Value,
    old: Option<&Value>,
) -> Result<Option<Value>, Status> {
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let key = served.key(attributes.namespace, name)?;
    let expect = match old {
        Some(old) => Expect::Revision(objects::stored_revision(old)?),
        None => Expect::Absent,
    };
    for _ in 0..RACES {
        let charge = charge(api, attributes, &new, old).await?;
        if charge.is_empty() {
            return Ok(objects::put(&api.store, served, key, expect, new, charge).await?.done());
        }
        match objects::put(&api.store, served, key.clone(), expect, new.clone(), charge).await? {
            Written::Outrun => {}
            written => return Ok(written.done()),
        }
    }
    Err(Status::conflict(attributes.resource, name, "the resource quotas of the namespace change all the time"))
}

/// What `new` uses beyond `old`: less than nothing counts for nothing here.
fn added(attributes: &Attributes<'_>, new: &Value, old: Option<&Value>) -> Resources {
    let mut more = quota::usage(attributes.resource, new);
    if let Some(old) = old {
        let before = quota::usage(attributes.resource, old);
        for (name, amount) in &mut more {
            if let Some(before) = before.get(name) {
                *amount = amount.minus(before).max(osc_api::Quantity::ZERO);
            }
        }
    }
    more
}

/// Writes down in a quota what of it is used.
fn note(quota: &mut Value, used: Resources) {
    let used: serde_json::Map<_, _> =
        used.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect();
    quota["status"] = json!({"hard": quota["spec"]["hard"], "used": used});
}

/// The resource of quotas.
fn quotas(api: &Api) -> Result<std::sync::Arc<Served>, Status> {
    api.catalog.snapshot().find("", "v1", "resourcequotas").cloned().ok_or_else(Status::unknown_path)
}
