//! New objects.

use jiff::Timestamp;
use osc_api::{meta, status::Status, strategy};
use serde_json::Value;

use super::{Intent, shape};
use crate::{admission::Operation, kinds, objects, quota};

/// Names tried for one `generateName` before giving up.
const NAMES_TRIED: usize = 8;

/// Creates an object and returns it as stored.
///
/// # Errors
/// Whatever the object or its circumstances are guilty of; 409 when it exists.
pub(crate) async fn create(intent: &Intent<'_>, mut object: Value) -> Result<Value, Status> {
    shape::place(intent.served, &mut object, intent.namespace)?;
    if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    (intent.warn)(kinds::warning(&intent.served.resource).into_iter().collect());
    let generated = name(&mut object)?;
    for attempt in 1..=NAMES_TRIED {
        match once(intent, object.clone()).await {
            Err(status) if status.reason == "AlreadyExists" && generated.is_some() => {
                let prefix = generated.as_deref().unwrap_or_default();
                if attempt == NAMES_TRIED {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    return Err(Status::generated_name_taken(&intent.served.resource, name));
                }
                object["metadata"]["name"] = meta::generated_name(prefix).into();
            }
            done => return done,
        }
    }
    Err(Status::internal("no name was generated"))
}

/// Sees to a name; returns the prefix when the name was made here.
fn name(object: &mut Value) -> Result<Option<String>, Status> {
    let metadata = shape::metadata(object)?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, prefix) = (text("name"), text("generateName"));
    if !name.is_empty() || prefix.is_empty() {
        return Ok(None);
    }
    metadata.insert("name".into(), meta::generated_name(&prefix).into());
    Ok(Some(prefix))
}

async fn once(intent: &Intent<'_>, mut object: Value) -> Result<Value, Status> {
    let served = intent.served;
    shape::normalise(served, &mut object);
    strategy::prepare_create(&served.resource, &mut object, Timestamp::now());
    kinds::before_create(intent.api, served, &mut object).await?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let options = intent.options.to_value("CreateOptions");
    let attributes = intent.attributes(Operation::Create, &name, &options);
    (intent.warn)(intent.api.admission.mutate(&attributes, &mut object, None).await?);
    shape::normalise(served, &mut object);
    intent.own(None, &mut object);
    intent.check(&object, None)?;
    (intent.warn)(intent.api.admission.validate(&attributes, Some(&object), None).await?);
    let taken = || Status::already_exists(&served.resource, &name);
    if intent.options.dry_run {
        quota::charge(intent.api, &attributes, &object, None).await?;
        return match objects::read(&intent.api.store, served, intent.namespace, &name)? {
            Some(_) => Err(taken()),
            None => Ok(object),
        };
    }
    match quota::write(intent.api, served, &attributes, object, None).await? {
        Some(object) => Ok(object),
        None => Err(taken()),
    }
}
