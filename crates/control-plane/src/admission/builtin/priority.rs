//! Priority: from a class's name to its number, which clients cannot choose.

use osc_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, text};
use crate::reader::Reader;

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";
const PREEMPTS: &str = "PreemptLowerPriority";

pub(super) async fn admit(
    reader: &Reader,
    attributes: &Attributes<'_>,
    pod: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if !attributes.is_main("", "pods") || !pod["spec"].is_object() {
        return Ok(());
    }
    match attributes.operation {
        Operation::Create => resolve(reader, attributes, pod).await,
        Operation::Update => {
            // Clients that know nothing of these fields send them back empty.
            for field in ["priority", "preemptionPolicy"] {
                if let Some(kept) = old.and_then(|old| old["spec"].get(field))
                    && pod["spec"][field].is_null()
                {
                    pod["spec"][field] = kept.clone();
                }
            }
            Ok(())
        }
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

async fn resolve(reader: &Reader, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    let name = text(&pod["spec"], "priorityClassName").to_owned();
    let class = if name.is_empty() {
        default_class(reader).await?
    } else {
        let class = reader.get(GROUP, CLASSES, "", &name)?;
        let missing = || attributes.forbidden(format!("no PriorityClass with name {name} was found"));
        Some(class.ok_or_else(missing)?)
    };
    let (priority, policy) = match &class {
        Some(class) => {
            pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
            let policy = Some(text(class, "preemptionPolicy")).filter(|policy| !policy.is_empty());
            (class["value"].as_i64().unwrap_or(0), policy.unwrap_or(PREEMPTS))
        }
        None => (0, PREEMPTS),
    };
    if let Some(own) = pod["spec"]["priority"].as_i64().filter(|own| *own != priority) {
        return Err(attributes.forbidden(format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        )));
    }
    if let Some(own) = pod["spec"]["preemptionPolicy"].as_str().filter(|own| *own != policy) {
        return Err(attributes.forbidden(format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    pod["spec"]["priority"] = json!(priority);
    pod["spec"]["preemptionPolicy"] = json!(policy);
    Ok(())
}

/// The class of pods that name none: of several, which a race may have left, the lowest.
async fn default_class(reader: &Reader) -> Result<Option<Value>, Status> {
    let classes = reader.list(GROUP, CLASSES, "").await?;
    let defaults = classes.into_iter().filter(|class| class["globalDefault"] == true);
    Ok(defaults.min_by_key(|class| class["value"].as_i64()))
}

/// At most one class is the default.
pub(super) async fn check(reader: &Reader, attributes: &Attributes<'_>, class: &Value) -> Result<(), Status> {
    let written = attributes.is(&[Operation::Create, Operation::Update], GROUP, CLASSES);
    if !written || class["globalDefault"] != true {
        return Ok(());
    }
    match default_class(reader).await? {
        Some(other) if text(&other["metadata"], "name") != attributes.name => Err(attributes.forbidden(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            text(&other["metadata"], "name")
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{World, pod};
    use super::*;

    fn class(name: &str, value: i64, default: bool) -> Value {
        json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
            "value": value, "globalDefault": default, "preemptionPolicy": if default { "Never" } else { PREEMPTS } })
    }

    #[tokio::test]
    async fn names_become_numbers() {
        let with_default = World::with(&[class("high", 1000, false), class("normal", 10, true)]).await;
        let without = World::with(&[class("high", 1000, false)]).await;
        let rows = [
            (&without, json!({}), Ok((json!(null), 0, PREEMPTS))),
            (&with_default, json!({}), Ok((json!("normal"), 10, "Never"))),
            (&with_default, json!({ "priorityClassName": "high" }), Ok((json!("high"), 1000, PREEMPTS))),
            (
                &with_default,
                json!({ "priorityClassName": "high", "priority": 1000 }),
                Ok((json!("high"), 1000, PREEMPTS)),
            ),
            (&with_default, json!({ "priorityClassName": "none" }), Err("no PriorityClass with name none was found")),
            (
                &with_default,
                json!({ "priorityClassName": "high", "priority": 5 }),
                Err("the integer value of priority (5)"),
            ),
            (&without, json!({ "preemptionPolicy": "Never" }), Err("PreemptionPolicy (Never)")),
        ];
        for (world, spec, want) in rows {
            let mut pod = pod();
            pod["spec"] = spec.clone();
            let given = pod.clone();
            let attributes = world.asks(Operation::Create, "pods", &given);
            let seen = admit(&world.reader, &attributes, &mut pod, None).await;
            match want {
                Ok((name, priority, policy)) => {
                    seen.unwrap();
                    assert_eq!(pod["spec"]["priorityClassName"], name, "{spec}");
                    assert_eq!(pod["spec"]["priority"], priority, "{spec}");
                    assert_eq!(pod["spec"]["preemptionPolicy"], policy, "{spec}");
                }
                Err(text) => {
                    let status = seen.unwrap_err();
                    assert!(status.code == 403 && status.message.contains(text), "{spec}: {status}");
                }
            }
        }
    }

    #[tokio::test]
    async fn updates_keep_the_number() {
        let world = World::with(&[]).await;
        let mut old = pod();
        old["spec"]["priority"] = json!(7);
        let mut new = pod();
        let given = new.clone();
        let attributes = world.asks(Operation::Update, "pods", &given);
        admit(&world.reader, &attributes, &mut new, Some(&old)).await.unwrap();
        assert_eq!(new["spec"]["priority"], 7);
    }

    #[tokio::test]
    async fn one_default_class_is_enough() {
        let world = World::with(&[class("normal", 10, true)]).await;
        for (name, default, want) in [("normal", true, true), ("other", true, false), ("other", false, true)] {
            let object = class(name, 1, default);
            let attributes = world.asks(Operation::Create, "scheduling.k8s.io/priorityclasses", &object);
            assert_eq!(check(&world.reader, &attributes, &object).await.is_ok(), want, "{name} {default}");
        }
    }
}
