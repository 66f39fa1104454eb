//! What a pod asks for and what a node has.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::quantity;

/// Amounts by resource name: thousandths of a processor for `cpu`, whole units otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// Amounts of a quantity table; unreadable ones, which the API refuses, count as none.
    pub(crate) fn of(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let read = |(name, value): (&String, &Quantity)| {
            let amount = if name == "cpu" { quantity::milli(value) } else { quantity::whole(value) };
            (name.clone(), amount.unwrap_or(0))
        };
        Self(quantities.into_iter().flatten().map(read).collect())
    }

    pub(crate) fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let rest = self.0.entry(name.clone()).or_default();
            *rest = rest.saturating_sub(*amount);
        }
    }

    /// The larger of both, per resource.
    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }

    fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }
}

/// What a pod needs on a node at its hungriest moment, overhead of its runtime included.
pub(crate) fn requested(spec: &PodSpec) -> Resources {
    requested_with(spec, &|_| {})
}

/// Like [`requested`], counting at least a little for containers that ask for
/// nothing, so that such pods are spread too. Only for scoring.
pub(crate) fn weighed(spec: &PodSpec) -> Resources {
    requested_with(spec, &|container: &mut Resources| {
        if !container.contains("cpu") {
            container.set("cpu", 100);
        }
        if !container.contains("memory") {
            container.set("memory", 200 << 20);
        }
    })
}

fn requested_with(spec: &PodSpec, adjust: &dyn Fn(&mut Resources)) -> Resources {
    let of = |container: &Container| {
        let mut resources = requests(container.resources.as_ref());
        adjust(&mut resources);
        resources
    };
    // Restartable init containers stay; each ordinary one runs beside those before it.
    let (mut staying, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            staying.add(&now);
            peak.raise_to(&staying);
        } else {
            now.add(&staying);
            peak.raise_to(&now);
        }
    }
    let mut total = staying;
    for container in &spec.containers {
        total.add(&of(container));
    }
    total.raise_to(&peak);
    // Requests of the pod as a whole replace the sum where they are given.
    for (name, amount) in requests(spec.resources.as_ref()).iter() {
        total.set(name, amount);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// Requests, with limits standing in for missing ones.
fn requests(requirements: Option<&ResourceRequirements>) -> Resources {
    let Some(requirements) = requirements else { return Resources::default() };
    let mut resources = Resources::of(requirements.limits.as_ref());
    resources.0.extend(Resources::of(requirements.requests.as_ref()).0);
    resources
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::pod;

    fn asks(spec: Value) -> Resources {
        requested(&pod(json!({"spec": spec})).spec.unwrap())
    }

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_asks_for_its_hungriest_moment() {
        let sidecar =
            |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        for (why, spec, cpu) in [
            ("containers add up", json!({"containers": [container("1"), container("500m")]}), 1500),
            (
                "the largest init container",
                json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]}),
                3000,
            ),
            (
                "sidecars stay",
                json!({"containers": [container("1")], "initContainers": [sidecar("500m"), container("100m")]}),
                1500,
            ),
            (
                "init beside sidecars before it",
                json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("2")]}),
                3000,
            ),
            (
                "init before the sidecar",
                json!({"containers": [container("1")], "initContainers": [container("2"), sidecar("1")]}),
                2000,
            ),
            ("overhead on top", json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), 1250),
            ("limits stand in", json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}), 2000),
            (
                "the pod's own number",
                json!({"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}}),
                4000,
            ),
            ("nothing", json!({}), 0),
        ] {
            assert_eq!(asks(spec).get("cpu"), cpu, "{why}");
        }
    }

    #[test]
    fn extended_resources_and_memory_are_whole_units() {
        let resources = asks(json!({"containers": [{"name": "c", "resources": {
            "requests": {"memory": "1Gi", "example.com/device": "2"}}}]}));
        assert_eq!((resources.get("memory"), resources.get("example.com/device")), (1 << 30, 2));
    }

    proptest! {
        #[test]
        fn adding_and_subtracting_is_neutral(first in 0i64..1 << 40, second in 0i64..1 << 40) {
            let one = Resources([("cpu".to_owned(), first)].into());
            let other = Resources([("cpu".to_owned(), second), ("memory".to_owned(), second)].into());
            let mut sum = one.clone();
            sum.add(&other);
            sum.subtract(&other);
            prop_assert_eq!(sum.get("cpu"), one.get("cpu"));
            prop_assert_eq!(sum.get("memory"), 0);
        }

        #[test]
        fn a_pod_never_asks_for_less_than_its_parts(
            containers in proptest::collection::vec(0u32..4000, 1..4),
            inits in proptest::collection::vec((0u32..4000, any::<bool>()), 0..4),
        ) {
            let part = |cpu: u32| json!({"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m")}}});
            let spec = json!({
                "containers": containers.iter().map(|cpu| part(*cpu)).collect::<Vec<_>>(),
                "initContainers": inits.iter().map(|(cpu, stays)| {
                    let mut init = part(*cpu);
                    if *stays { init["restartPolicy"] = json!("Always"); }
                    init
                }).collect::<Vec<_>>(),
            });
            let got = asks(spec).get("cpu");
            let staying: i64 = inits.iter().filter(|(_, stays)| *stays).map(|(cpu, _)| i64::from(*cpu)).sum();
            let sum: i64 = containers.iter().map(|cpu| i64::from(*cpu)).sum();
            let largest = inits.iter().map(|(cpu, _)| i64::from(*cpu)).max().unwrap_or(0);
            prop_assert!(got >= sum + staying && got >= largest && got <= (sum + staying).max(staying + largest));
        }
    }
}
