//! LimitRanger: a namespace's defaults and bounds for what its containers, pods and claims ask for.

use std::collections::BTreeMap;

use osc_api::{Quantity, status::Status};
use serde_json::{Map, Value, json};

use super::{Attributes, Operation, list, map_mut, text};
use crate::reader::Reader;

type Amounts = BTreeMap<String, Quantity>;

/// Gives containers of new pods the requests and limits they lack.
pub(super) async fn fill(reader: &Reader, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.is(&[Operation::Create], "", "pods") {
        return Ok(());
    }
    for item in items(reader, attributes).await?.iter().filter(|item| text(item, "type") == "Container") {
        let (requests, limits) = defaults(item);
        for field in ["initContainers", "containers"] {
            let containers = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                add_missing(container, "limits", &limits);
                add_missing(container, "requests", &requests);
            }
        }
    }
    Ok(())
}

/// Refuses what is out of bounds.
pub(super) async fn check(reader: &Reader, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    let pods = attributes.is(&[Operation::Create], "", "pods");
    let claims = attributes.is(&[Operation::Create, Operation::Update], "", "persistentvolumeclaims");
    if !pods && !claims {
        return Ok(());
    }
    let mut problems = Vec::new();
    for item in &items(reader, attributes).await? {
        match text(item, "type") {
            "Container" if pods => {
                let containers = ["initContainers", "containers"].map(|field| list(&object["spec"], field));
                for container in containers.into_iter().flatten() {
                    problems.extend(Demand::of(&container["resources"]).beyond(item));
                }
            }
            "Pod" if pods => problems.extend(Demand::of_pod(object).beyond(item)),
            "PersistentVolumeClaim" if claims => {
                let requests = amounts(&object["spec"]["resources"]["requests"]);
                // A claim has no limits: what it requests is what it may use.
                problems.extend(Demand { limits: requests.clone(), requests }.beyond(item));
            }
            _ => {}
        }
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(attributes.forbidden(problems.remove(0))),
        _ => Err(attributes.forbidden(format!("[{}]", problems.join(", ")))),
    }
}

async fn items(reader: &Reader, attributes: &Attributes<'_>) -> Result<Vec<Value>, Status> {
    let ranges = reader.list("", "limitranges", attributes.namespace).await?;
    Ok(ranges.iter().flat_map(|range| list(&range["spec"], "limits")).cloned().collect())
}

/// Requests and limits of containers that name none: an absent default limit is the maximum, an absent default request
/// the default limit, and then the minimum.
fn defaults(item: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let own = |field: &str| item[field].as_object().cloned().unwrap_or_default();
    let merged = |mut first: Map<String, Value>, second: &Map<String, Value>| {
        for (name, amount) in second {
            first.entry(name).or_insert_with(|| amount.clone());
        }
        first
    };
    let limits = merged(own("default"), &own("max"));
    let requests = merged(merged(own("defaultRequest"), &limits), &own("min"));
    (requests, limits)
}

fn add_missing(container: &mut Value, field: &str, wanted: &Map<String, Value>) {
    if wanted.is_empty() {
        return;
    }
    let Some(resources) = super::slot(container, "resources", || json!({})) else { return };
    let Some(own) = map_mut(resources, field) else { return };
    for (name, amount) in wanted {
        own.entry(name).or_insert_with(|| amount.clone());
    }
}

/// What something asks for.
#[derive(Debug, Default)]
struct Demand {
    requests: Amounts,
    limits: Amounts,
}

impl Demand {
    fn of(resources: &Value) -> Self {
        Self { requests: amounts(&resources["requests"]), limits: amounts(&resources["limits"]) }
    }

    /// A pod asks for the sum of its containers, or for what the largest init container does. Only what every
    /// container limits is limited for the pod.
    fn of_pod(pod: &Value) -> Self {
        let containers: Vec<_> = list(&pod["spec"], "containers").iter().map(|it| Self::of(&it["resources"])).collect();
        let mut total = Self::default();
        for container in &containers {
            add(&mut total.requests, &container.requests);
            add(&mut total.limits, &container.limits);
        }
        total.limits.retain(|name, _| containers.iter().all(|container| container.limits.contains_key(name)));
        for init in list(&pod["spec"], "initContainers").iter().map(|it| Self::of(&it["resources"])) {
            raise(&mut total.requests, init.requests);
            raise(&mut total.limits, init.limits);
        }
        total
    }

    /// What is out of the bounds of one item of a LimitRange.
    fn beyond(&self, item: &Value) -> Vec<String> {
        let kind = text(item, "type");
        let mut problems = Vec::new();
        for (name, least) in amounts(&item["min"]) {
            let (request, limit) = (self.requests.get(&name), self.limits.get(&name));
            let rule = format!("minimum {name} usage per {kind} is {least}");
            match (request, limit) {
                (None, _) => problems.push(format!("{rule}.  No request is specified")),
                (Some(seen), _) if *seen < least => problems.push(format!("{rule}, but request is {seen}")),
                (_, Some(seen)) if *seen < least => problems.push(format!("{rule}, but limit is {seen}")),
                _ => {}
            }
        }
        for (name, most) in amounts(&item["max"]) {
            let (request, limit) = (self.requests.get(&name), self.limits.get(&name));
            let rule = format!("maximum {name} usage per {kind} is {most}");
            match (request, limit) {
                (_, None) => problems.push(format!("{rule}.  No limit is specified")),
                (_, Some(seen)) if *seen > most => problems.push(format!("{rule}, but limit is {seen}")),
                (Some(seen), _) if *seen > most => problems.push(format!("{rule}, but request is {seen}")),
                _ => {}
            }
        }
        problems.extend(self.beyond_ratio(item));
        problems
    }

    fn beyond_ratio(&self, item: &Value) -> Vec<String> {
        let ratios = amounts(&item["maxLimitRequestRatio"]);
        let exceeded = ratios.into_iter().filter_map(|(name, most)| {
            let rule = format!("max limit to request ratio per {} is {most}", text(item, "type"));
            let amount = |own: &Amounts| own.get(&name).map(Quantity::as_milli).filter(|amount| *amount > 0);
            let (Some(request), Some(limit)) = (amount(&self.requests), amount(&self.limits)) else {
                return Some(format!("{name} {rule}, but no request is specified or request is 0"));
            };
            // Precise enough: amounts of this size differ by far more than rounding.
            #[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
            let (ratio, most) = (limit as f64 / request as f64, most.as_milli() as f64 / 1000.0);
            (ratio > most).then(|| format!("{name} {rule}, but provided ratio is {ratio:.6}"))
        });
        exceeded.collect()
    }
}

/// What does not parse is refused by the rules of the kind.
fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = sum.plus(amount);
    }
}

fn raise(total: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        let most = total.entry(name).or_insert(Quantity::ZERO);
        if *most < amount {
            *most = amount;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{World, pod};
    use super::*;

    async fn world(item: Value) -> World {
        let range = json!({ "apiVersion": "v1", "kind": "LimitRange",
            "metadata": { "name": "l", "namespace": "default" }, "spec": { "limits": [item] } });
        World::with(&[range]).await
    }

    #[tokio::test]
    async fn missing_amounts_are_filled_in() {
        let rows = [
            (
                json!({ "default": { "cpu": "2" } }),
                json!({}),
                json!({ "limits": { "cpu": "2" }, "requests": { "cpu": "2" } }),
            ),
            (
                json!({ "default": { "cpu": "2" }, "defaultRequest": { "cpu": "1" } }),
                json!({ "limits": { "cpu": "3" } }),
                json!({ "limits": { "cpu": "3" }, "requests": { "cpu": "1" } }),
            ),
            (
                json!({ "max": { "cpu": "4" } }),
                json!(null),
                json!({ "limits": { "cpu": "4" }, "requests": { "cpu": "4" } }),
            ),
            (json!({ "min": { "cpu": "1" } }), json!({}), json!({ "requests": { "cpu": "1" } })),
        ];
        for (mut item, resources, want) in rows {
            item["type"] = json!("Container");
            let world = world(item.clone()).await;
            let mut pod = pod();
            pod["spec"]["containers"][0]["resources"] = resources;
            let given = pod.clone();
            fill(&world.reader, &world.asks(Operation::Create, "pods", &given), &mut pod).await.unwrap();
            assert_eq!(pod["spec"]["containers"][0]["resources"], want, "{item}");
        }
    }

    #[tokio::test]
    async fn amounts_out_of_bounds_are_refused() {
        let two = |cpu: &str| {
            let one = json!({ "name": "c", "resources": { "requests": { "cpu": cpu }, "limits": { "cpu": "2" } } });
            json!([one, one])
        };
        let rows = [
            (json!({ "type": "Container", "max": { "cpu": "2" } }), two("1"), None),
            (
                json!({ "type": "Container", "max": { "cpu": "1" } }),
                json!([two("1")[0]]),
                Some("maximum cpu usage per Container is 1, but limit is 2"),
            ),
            (
                json!({ "type": "Container", "min": { "cpu": "1" } }),
                json!([{ "name": "c" }]),
                Some("minimum cpu usage per Container is 1.  No request is specified"),
            ),
            (
                json!({ "type": "Pod", "max": { "cpu": "3" } }),
                two("1"),
                Some("maximum cpu usage per Pod is 3, but limit is 4"),
            ),
            (json!({ "type": "Pod", "min": { "cpu": "2" } }), two("1"), None),
            (
                json!({ "type": "Container", "maxLimitRequestRatio": { "cpu": "3" } }),
                json!([two("500m")[0]]),
                Some("cpu max limit to request ratio per Container is 3, but provided ratio is 4.000000"),
            ),
            (json!({ "type": "PersistentVolumeClaim", "max": { "storage": "1" } }), two("1"), None),
        ];
        for (item, containers, want) in rows {
            let world = world(item.clone()).await;
            let mut pod = pod();
            pod["spec"]["containers"] = containers;
            let seen = check(&world.reader, &world.asks(Operation::Create, "pods", &pod), &pod).await;
            let want = want.map(|why| format!("pods \"p\" is forbidden: {why}"));
            assert_eq!(seen.err().map(|status| status.message), want, "{item}");
        }
    }

    #[tokio::test]
    async fn claims_have_bounds_too() {
        let bounds =
            json!({ "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" } });
        let world = world(bounds).await;
        for (size, want) in [("512Mi", false), ("1Gi", true), ("2Gi", true), ("3Gi", false)] {
            let claim = json!({ "metadata": { "name": "c", "namespace": "default" },
                "spec": { "resources": { "requests": { "storage": size } } } });
            let attributes = world.asks(Operation::Create, "persistentvolumeclaims", &claim);
            assert_eq!(check(&world.reader, &attributes, &claim).await.is_ok(), want, "{size}");
        }
    }
}
