//! Status of PodDisruptionBudgets: how many more pods may be evicted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};
use kube::{Api, ResourceExt};

use crate::{
    cache::Key,
    context::{Caches, Context, RESYNC, posting},
    deployments::rolling::portion,
    error::{Attempt, Error},
    ownership::matches,
    pods::{self, controller_of, elapsed},
    queue::{Queue, work},
    wake,
};

/// An eviction not followed by a deletion in this time is taken for failed.
const DISRUPTION_LIMIT: Duration = Duration::from_secs(120);

struct Budgets {
    cx: Context,
    queue: Queue<Key>,
}

/// Registers the controller; the future runs it.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let queue = Queue::new();
    wake::on_own_changes(&cx.caches.budgets, &queue);
    let (on, budgets) = (queue.clone(), cx.caches.budgets.clone());
    cx.caches.pods.on_change(move |change| {
        for budget in budgets.of_namespace(&change.latest().namespace().unwrap_or_default()) {
            if change.sides().any(|pod| covers(&budget, pod)) {
                on.add(Key::of(budget.as_ref()));
            }
        }
    });
    let this = Arc::new(Budgets { cx: cx.clone(), queue });
    let stop = cx.stop.clone();
    async move {
        work("disruption", this.queue.clone(), 4, stop, |key| this.reconcile(key)).await;
    }
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    matches(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()), pods::labels(&pod.metadata))
}

impl Budgets {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(budget) = self.cx.caches.budgets.get(&key) else { return Ok(None) };
        if budget.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let mut covered = self.cx.caches.pods.of_namespace(&key.namespace);
        covered.retain(|pod| covers(&budget, pod) && !pods::is_finished(pod));
        let scale = expected(&self.cx.caches, &covered);
        let (wanted, again) = status(&budget, &covered, scale, Timestamp::now());
        if budget.status.as_ref() != Some(&wanted) {
            let mut changed = budget.as_ref().clone();
            changed.status = Some(wanted);
            let api: Api<PodDisruptionBudget> = Api::namespaced(self.cx.client.clone(), &key.namespace);
            let written = api.replace_status(&key.name, &posting(), &changed).await;
            written.unless_gone("update status of poddisruptionbudget", &key)?;
        }
        Ok(Some(again.unwrap_or(RESYNC)))
    }
}

/// Replicas asked for by all owners of the pods; `None` if a pod has no owner with a scale.
fn expected(caches: &Caches, covered: &[Arc<Pod>]) -> Option<i32> {
    let mut owners: BTreeMap<String, i32> = BTreeMap::new();
    for pod in covered {
        let owner = controller_of(&pod.metadata)?;
        let key = Key::new(pod.namespace().unwrap_or_default(), owner.name.clone());
        let (uid, replicas) = match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = caches.replica_sets.get(&key)?;
                match controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") {
                    Some(above) => {
                        let deployment = caches.deployments.get(&Key::new(&*key.namespace, above.name.clone()))?;
                        (above.uid.clone(), deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1))
                    }
                    None => (owner.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)),
                }
            }
            "StatefulSet" => {
                let set = caches.stateful_sets.get(&key)?;
                (owner.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1))
            }
            _ => return None,
        };
        owners.insert(uid, replicas);
    }
    Some(owners.values().sum())
}

/// Status of a budget over `covered` pods; `scale` is what their owners ask for.
fn status(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    scale: Option<i32>,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let spec = budget.spec.clone().unwrap_or_default();
    let old = budget.status.clone().unwrap_or_default();
    let count = i32::try_from(covered.len()).unwrap_or(i32::MAX);
    let wanted = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => scale.map(|expected| (expected, (expected - portion(most, expected, true)).max(0))),
        (None, Some(IntOrString::Int(least))) => Some((count, *least)),
        (None, Some(least)) => scale.map(|expected| (expected, portion(least, expected, true))),
        (None, None) => Some((count, 1)),
    };
    let there: BTreeSet<String> =
        covered.iter().filter(|pod| !pods::is_deleting(pod)).map(|pod| pod.name_any()).collect();
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    disrupted.retain(|name, since| there.contains(name) && elapsed(since.0, now) < DISRUPTION_LIMIT);
    let again = disrupted.values().map(|since| DISRUPTION_LIMIT.saturating_sub(elapsed(since.0, now))).min();
    let healthy = covered
        .iter()
        .filter(|pod| pods::is_ready(pod) && !pods::is_deleting(pod) && !disrupted.contains_key(&pod.name_any()))
        .count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let (expected, least) = wanted.unwrap_or((0, 0));
    // Without pods, or where the expectation is unknown, nothing may be evicted.
    let allowed = if wanted.is_none() || expected <= 0 { 0 } else { (healthy - least).max(0) };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(&old, budget, wanted.is_some(), allowed, now)),
        current_healthy: healthy,
        desired_healthy: least,
        disrupted_pods: Some(disrupted).filter(|disrupted| !disrupted.is_empty()),
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: budget.metadata.generation,
    };
    (status, again)
}

fn conditions(
    old: &PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    known: bool,
    allowed: i32,
    now: Timestamp,
) -> Vec<Condition> {
    let (value, reason, message) = match (known, allowed > 0) {
        (false, _) => ("False", "SyncFailed", "found pods without an owner that has a scale"),
        (true, true) => ("True", "SufficientPods", ""),
        (true, false) => ("False", "InsufficientPods", ""),
    };
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let before = conditions.iter().find(|condition| condition.type_ == "DisruptionAllowed");
    let since = before.filter(|before| before.status == value).map(|before| before.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: value.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: budget.metadata.generation,
    });
    conditions
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{object, pod, timestamp};

    fn covered(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let make = |n: usize| {
            let status = if n < ready { "True" } else { "False" };
            Arc::new(pod(json!({"metadata": {"name": format!("p{n}")},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}})))
        };
        (0..ready + unready).map(make).collect()
    }

    #[test]
    fn what_may_be_evicted() {
        let now = timestamp("2026-01-01T00:00:00Z");
        for (spec, pods, scale, want) in [
            (json!({"minAvailable": 1}), covered(2, 0), None, (1, 2, 1)),
            (json!({"minAvailable": 2}), covered(2, 0), None, (0, 2, 2)),
            (json!({"minAvailable": 2}), covered(1, 1), None, (0, 1, 2)),
            (json!({"minAvailable": "50%"}), covered(3, 0), Some(3), (1, 3, 2)),
            (json!({"maxUnavailable": 1}), covered(3, 0), Some(3), (1, 3, 2)),
            (json!({"maxUnavailable": 1}), covered(2, 1), Some(3), (0, 2, 2)),
            (json!({"maxUnavailable": "100%"}), covered(3, 0), Some(3), (3, 3, 0)),
            (json!({"maxUnavailable": 1}), covered(3, 0), None, (0, 3, 0)),
            (json!({"minAvailable": 0}), covered(0, 0), None, (0, 0, 0)),
        ] {
            let budget: PodDisruptionBudget = object(json!({"metadata": {"name": "b"}, "spec": spec}));
            let (got, _) = status(&budget, &pods, scale, now);
            assert_eq!((got.disruptions_allowed, got.current_healthy, got.desired_healthy), want, "{spec}");
        }
    }

    #[test]
    fn an_announced_eviction_counts_until_it_happens_or_fails() {
        let budget = |since: &str| -> PodDisruptionBudget {
            object(json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}, "status": {
                "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
                "disruptedPods": {"p0": since, "vanished": since}}}))
        };
        let now = timestamp("2026-01-01T00:02:00Z");
        let (fresh, again) = status(&budget("2026-01-01T00:01:00Z"), &covered(2, 0), None, now);
        assert_eq!((fresh.disruptions_allowed, fresh.disrupted_pods.unwrap().len()), (0, 1));
        assert_eq!(again, Some(Duration::from_secs(60)));
        let (stale, again) = status(&budget("2026-01-01T00:00:00Z"), &covered(2, 0), None, now);
        assert_eq!((stale.disruptions_allowed, stale.disrupted_pods, again), (1, None, None));
    }

    #[test]
    fn a_settled_budget_is_not_written_again() {
        let spec: Value = json!({"metadata": {"name": "b", "generation": 1}, "spec": {"minAvailable": 1}});
        let mut budget: PodDisruptionBudget = object(spec);
        budget.status = Some(status(&budget, &covered(2, 0), None, timestamp("2026-01-01T00:00:00Z")).0);
        let again = status(&budget, &covered(2, 0), None, timestamp("2026-01-02T00:00:00Z")).0;
        assert_eq!(budget.status, Some(again));
    }
}
