//! One round: look at everything, write what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::{ObjectReference, Taint},
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt, runtime::events::EventType};
use osc_objects::{ContainerRuntimeConfig, LabelSelector, MachineConfigPool};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    BURST, Controller,
    error::ControllerError,
    metrics::PoolShown,
    observe::Stores,
    render::{self, Decision},
    tuning,
};
use crate::{
    names,
    pools::{
        Membership, NodeView, PoolView, custom, owner, rollout,
        status::{self, Computed, Published},
    },
};

/// What came of rendering in one round.
#[derive(Default)]
struct Outcomes {
    /// Why pools cannot be rendered, by pool.
    failures: BTreeMap<String, String>,
    /// Whether a pool has a new target, so that what was read is old.
    retargeted: bool,
    /// When the next pool is due.
    again: Option<Duration>,
}

/// Nodes written to at the same time.
const AT_ONCE: usize = 16;
/// Nodes marked in one round: starting others must not wait for thousands of marks.
const MARKS: usize = 128;

/// Pools with their nodes, as one round sees them.
struct Sight {
    pools: Vec<PoolView>,
    /// Each node, and the pool it belongs to.
    nodes: Vec<(Arc<NodeView>, Membership)>,
}

impl Sight {
    fn new(pools: &[Arc<MachineConfigPool>], nodes: Vec<Arc<NodeView>>) -> Self {
        let pools: Vec<PoolView> = pools.iter().map(|pool| view(pool)).collect();
        let belonging = |node: Arc<NodeView>| {
            let membership = owner(&node, &pools);
            (node, membership)
        };
        let nodes = nodes.into_iter().map(belonging).collect();
        Self { pools, nodes }
    }

    fn of(&self, pool: &PoolView) -> Vec<&NodeView> {
        let belongs = |membership: &Membership| matches!(membership, Membership::Pool(name) if *name == pool.name);
        self.nodes.iter().filter(|(_, membership)| belongs(membership)).map(|(node, _)| node.as_ref()).collect()
    }

    fn target(&self, membership: &Membership) -> Option<&str> {
        let Membership::Pool(name) = membership else { return None };
        self.pools.iter().find(|pool| pool.name == *name).map(|pool| pool.target.as_str())
    }

    /// Nodes whose turn it is, with what they shall run.
    fn due(&self, host: Option<&str>) -> Vec<(&NodeView, &str)> {
        let mut out = Vec::new();
        for pool in &self.pools {
            let nodes = self.of(pool);
            let names: BTreeSet<String> = rollout::next(pool, &nodes, host).into_iter().collect();
            let starting = nodes.into_iter().filter(|node| names.contains(&node.name));
            out.extend(starting.map(|node| (node, pool.target.as_str())));
        }
        out
    }

    /// Masters that custom pools select in vain, with these pools.
    fn overruled(&self) -> Vec<(String, String)> {
        let masters = self.nodes.iter().filter(|(_, membership)| *membership == Membership::Pool("master".into()));
        let custom = |node: &NodeView| custom(node, &self.pools).join(", ");
        let named = masters.map(|(node, _)| (node.name.clone(), custom(node)));
        named.filter(|(_, pools)| !pools.is_empty()).collect()
    }

    fn topology(&self) -> &'static str {
        if self.nodes.len() == 1 { "SingleReplica" } else { "HighlyAvailable" }
    }
}

fn view(pool: &MachineConfigPool) -> PoolView {
    PoolView {
        name: pool.name_any(),
        node_selector: pool.spec.node_selector.clone(),
        paused: pool.spec.paused,
        max_unavailable: pool.spec.max_unavailable.clone(),
        target: pool.target().unwrap_or_default().to_owned(),
    }
}

impl Controller {
    /// Looks at everything and writes what differs. Returns when to look again, if
    /// something is due by time alone.
    pub(super) async fn round(&mut self, now: Timestamp) -> Result<Option<Duration>, ControllerError> {
        let pools = Stores::sorted(&self.stores.pools);
        for name in ["master", "worker"] {
            if !pools.iter().any(|pool| pool.name_any() == name) {
                self.writer.create_pool(name).await?;
            }
        }
        self.settle(now).await;
        self.tune(&pools, now).await?;
        let rendered = self.render(&pools).await?;
        if rendered.retargeted {
            return Ok(rendered.again); // the change brings the next round
        }
        let mut nodes = self.stores.nodes.all();
        self.told.show(&mut nodes, Instant::now());
        let sight = Sight::new(&pools, nodes);
        let mut shown = Vec::new();
        for (pool, view) in pools.iter().zip(&sight.pools) {
            let failure = rendered.failures.get(&view.name).map(String::as_str);
            shown.push(self.report(pool, view, &sight.of(view), failure, now).await?);
        }
        self.metrics.show(shown, sight.overruled());
        self.start(&sight).await?;
        let all_marked = self.mark(&sight).await?;
        self.complain(&pools, &sight).await;
        Ok(if all_marked { rendered.again } else { Some(BURST) })
    }

    /// Tells people once what only they can cure.
    async fn complain(&mut self, pools: &[Arc<MachineConfigPool>], sight: &Sight) {
        let mut now = BTreeSet::new();
        for pool in pools {
            let selectors = [&pool.spec.machine_config_selector, &pool.spec.node_selector];
            if selectors.into_iter().flatten().any(LabelSelector::is_empty) {
                let note = "An empty selector selects nothing here; say what you mean".to_owned();
                let about = pool.object_ref(&());
                now.insert(self.tell(format!("pool {}", pool.name_any()), &about, "SelectingAll", note).await);
            }
        }
        for (node, membership) in &sight.nodes {
            if let Membership::Conflict(pools) = membership {
                let note = format!("Selected by pools {}; take all but one label away", pools.join(", "));
                let about = node.reference();
                now.insert(self.tell(format!("node {}", node.name), &about, "SeveralPools", note).await);
            }
        }
        self.said = now;
    }

    /// Publishes an event unless it was in the last round; returns what it was about.
    async fn tell(&self, what: String, about: &ObjectReference, reason: &str, note: String) -> String {
        if !self.said.contains(&what) {
            tracing::warn!(object = what, reason, note, "somebody has to decide");
            self.writer.event(about, EventType::Warning, reason, note).await;
        }
        what
    }

    /// Renders what changed.
    async fn render(&mut self, pools: &[Arc<MachineConfigPool>]) -> Result<Outcomes, ControllerError> {
        let configs = Stores::sorted(&self.stores.configs);
        let engines = Stores::sorted(&self.stores.engines);
        let mut out = Outcomes::default();
        self.pools.retain(|name, _| pools.iter().any(|pool| pool.name_any() == *name));
        for pool in pools {
            let name = pool.name_any();
            let mut known = self.pools.remove(&name);
            let decision = render::decide(&mut known, pool, &configs, &engines, self.options.settle, Instant::now());
            self.pools.extend(known.map(|known| (name.clone(), known)));
            match decision {
                Decision::Wait(rest) => {
                    out.again = Some(out.again.map_or(rest, |other| other.min(rest)));
                    // Until it is rendered, what was said about it stands.
                    let said = pool.condition("RenderDegraded").filter(|_| pool.is("RenderDegraded"));
                    out.failures.extend(said.map(|said| (name, said.message.clone())));
                }
                Decision::Failed(why) => drop(out.failures.insert(name, why)),
                Decision::Target(rendered) if pool.target() == Some(&rendered.name) => {}
                Decision::Target(rendered) => {
                    tracing::info!(pool.name = name, target = rendered.name, "pool has a new target");
                    self.writer.retarget(pool, &rendered).await?;
                    out.retargeted = true;
                }
            }
        }
        Ok(out)
    }

    async fn report(
        &self,
        pool: &MachineConfigPool,
        view: &PoolView,
        nodes: &[&NodeView],
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<PoolShown, ControllerError> {
        let before = pool.status.clone().unwrap_or_default();
        let published = Published {
            configuration: before.configuration.as_ref().map(|reached| reached.name.clone()).unwrap_or_default(),
            conditions: serde_json::to_value(&before.conditions).and_then(serde_json::from_value).unwrap_or_default(),
        };
        let computed = status::compute(view, nodes, failure, &published, now);
        let status = status_value(pool, &computed);
        let old = serde_json::to_value(&pool.status).unwrap_or_default();
        if differs(&old, &status) {
            self.writer.pool_status(pool, status).await?;
        }
        Ok(PoolShown::new(&view.name, view.paused, &computed))
    }

    /// Tells nodes whose turn it is. That spends from a budget, and what is spent counts
    /// before the watch shows it.
    async fn start(&mut self, sight: &Sight) -> Result<(), ControllerError> {
        let due = sight.due(self.options.host.as_deref());
        for some in due.chunks(AT_ONCE) {
            for (node, target) in some {
                self.told.begin(&node.name, target, Instant::now());
            }
            let telling = some.iter().map(|(node, target)| self.writer.start(node, target, sight.topology()));
            let mut failure = None;
            for ((node, target), answer) in some.iter().zip(join_all(telling).await) {
                match answer {
                    Ok(Some(version)) => {
                        self.told.done(&node.name, &version);
                        tracing::info!(node.name = node.name, target, "node told to update");
                    }
                    Ok(None) => self.told.refused(&node.name), // it is gone
                    Err(error) => {
                        if error.code().is_some() {
                            self.told.refused(&node.name);
                        }
                        failure = failure.or(Some(error).filter(|error| !error.is_conflict()));
                    }
                }
            }
            failure.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Taints of nodes that wait, and what the cluster looks like to them; whether that is
    /// done for all.
    async fn mark(&self, sight: &Sight) -> Result<bool, ControllerError> {
        let topology = sight.topology();
        let differing = sight.nodes.iter().filter_map(|(node, membership)| {
            let target = sight.target(membership).filter(|target| !target.is_empty());
            let waits = node.managed() && target.is_some_and(|target| node.desired != target);
            let taints = taints(node, waits);
            let told = node.topology == topology || !node.managed();
            (taints.is_some() || !told).then_some((node, taints))
        });
        let marks: Vec<_> = differing.take(MARKS).collect();
        let notes = [(names::TOPOLOGY, topology)];
        for some in marks.chunks(AT_ONCE) {
            let marking = some.iter().map(|(node, taints)| self.writer.node(node, &notes, taints.clone()));
            for answer in join_all(marking).await {
                // Somebody was faster: the change brings the next round.
                answer.map(drop).or_else(|error| if error.is_conflict() { Ok(()) } else { Err(error) })?;
            }
        }
        Ok(marks.len() < MARKS)
    }

    /// Generates configurations from ContainerRuntimeConfigs, answers KubeletConfigs.
    async fn tune(&self, pools: &[Arc<MachineConfigPool>], now: Timestamp) -> Result<(), ControllerError> {
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut engines = Stores::sorted(&self.stores.engines);
        engines.sort_by_key(|config| config.creation_timestamp().map(|time| time.0));
        let mut taken = tuning::suffixes(&engines);
        for config in &engines {
            if config.metadata.deletion_timestamp.is_some() {
                self.release(config, &[]).await?;
                continue;
            }
            let plan = tuning::plan(config, &taken, pools);
            taken.extend(plan.suffix.clone());
            self.follow(config, &plan, &now).await?;
        }
        for config in Stores::sorted(&self.stores.kubelets) {
            let before = config.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            if let Some(conditions) = tuning::conditions(before, Err(tuning::NO_KUBELET), &now) {
                self.writer.kubelet_status(&config, conditions).await?;
            }
        }
        Ok(())
    }

    async fn follow(
        &self,
        config: &ContainerRuntimeConfig,
        plan: &tuning::Plan,
        now: &str,
    ) -> Result<(), ControllerError> {
        let generated = plan.outcome.as_deref().unwrap_or_default();
        let names: Vec<String> = generated.iter().map(|one| one.name.clone()).collect();
        let mut held = config.finalizers().to_vec();
        held.extend(names.iter().filter(|name| !config.finalizers().contains(name)).cloned());
        let kept = config.annotations().get(names::SUFFIX) == plan.suffix.as_ref();
        // Held before it is made, so that nothing generated is ever forgotten.
        if held.len() > config.finalizers().len() || (!kept && plan.suffix.is_some()) {
            self.writer.hold(config, &held, plan.suffix.as_deref()).await?;
            return Ok(()); // the change brings the next round
        }
        for one in generated {
            let there = self.stores.configs.state().into_iter().find(|config| config.name_any() == one.name);
            let same = there.is_some_and(|there| {
                let stamped =
                    there.annotations().get(names::GENERATED_BY).is_some_and(|by| by == names::CONTROLLER_VERSION);
                stamped && serde_json::to_value(&there.spec).is_ok_and(|spec| spec == one.spec)
            });
            if !same {
                self.writer.generate(config, one).await?;
            }
        }
        self.release(config, &names).await?;
        let status = config.status.clone().unwrap_or_default();
        let outcome = plan.outcome.as_ref().map(drop).map_err(String::as_str);
        let observed = Some(status.observed_generation) == config.metadata.generation;
        match tuning::conditions(&status.conditions, outcome, now) {
            Some(conditions) => self.writer.engine_status(config, conditions).await,
            None if observed => Ok(()),
            None => {
                let same = status.conditions.iter().map(|one| serde_json::to_value(one).unwrap_or_default()).collect();
                self.writer.engine_status(config, same).await
            }
        }
    }

    /// Deletes what an object held and no longer should, then lets go of it.
    async fn release(&self, config: &ContainerRuntimeConfig, keep: &[String]) -> Result<(), ControllerError> {
        let ours = |name: &&String| name.contains("-generated-containerruntime");
        let doomed: Vec<&String> =
            config.finalizers().iter().filter(ours).filter(|name| !keep.contains(name)).collect();
        if doomed.is_empty() {
            return Ok(());
        }
        for name in &doomed {
            self.writer.delete_config(name).await?;
        }
        let left: Vec<String> = config.finalizers().iter().filter(|name| !doomed.contains(name)).cloned().collect();
        self.writer.hold(config, &left, None).await
    }
}

fn status_value(pool: &MachineConfigPool, computed: &Computed) -> Value {
    let reached = pool.status.as_ref().and_then(|status| status.configuration.clone());
    let configuration = if computed.reached { pool.spec.configuration.clone() } else { reached };
    json!({
        "observedGeneration": pool.metadata.generation,
        "configuration": configuration,
        "machineCount": computed.machines,
        "updatedMachineCount": computed.updated,
        "readyMachineCount": computed.ready,
        "unavailableMachineCount": computed.unavailable,
        "degradedMachineCount": computed.degraded,
        "conditions": computed.conditions,
    })
}

/// Whether `wanted` says anything that `old` does not; absent and null are equal.
fn differs(old: &Value, wanted: &Value) -> bool {
    let Some(fields) = wanted.as_object() else { return old != wanted };
    fields.iter().any(|(name, value)| old.get(name).unwrap_or(&Value::Null) != value)
}

/// The taints a node should have, if they differ.
pub(super) fn taints(node: &NodeView, waits: bool) -> Option<Value> {
    const EFFECT: &str = "PreferNoSchedule";
    let now = &node.taints;
    let ours = |taint: &Taint| taint.key == names::TAINT && taint.effect == EFFECT;
    if now.iter().any(ours) == waits {
        return None;
    }
    let mut taints: Vec<Value> =
        now.iter().filter(|taint| !ours(taint)).map(|taint| serde_json::to_value(taint).unwrap_or_default()).collect();
    if waits {
        taints.push(json!({"key": names::TAINT, "effect": EFFECT}));
    }
    Some(taints.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_taint_comes_and_goes_and_others_stay() {
        let node = |taints: Value| {
            let node = json!({"metadata": {"name": "n"}, "spec": {"taints": taints}});
            NodeView::of(&serde_json::from_value(node).expect("a node"))
        };
        let (theirs, ours) =
            (json!({"key": "a", "effect": "NoSchedule"}), json!({"key": names::TAINT, "effect": "PreferNoSchedule"}));
        for (before, waits, want) in [
            (json!([]), false, None),
            (json!([]), true, Some(json!([ours]))),
            (json!([theirs]), true, Some(json!([theirs, ours]))),
            (json!([theirs, ours]), true, None),
            (json!([ours, theirs]), false, Some(json!([theirs]))),
        ] {
            assert_eq!(taints(&node(before.clone()), waits), want, "{before} {waits}");
        }
    }

    #[test]
    fn a_status_is_written_only_when_something_differs() {
        assert!(!differs(&json!({"a": 1, "b": 2}), &json!({"a": 1, "c": null})));
        assert!(differs(&json!({"a": 1}), &json!({"a": 2})));
        assert!(differs(&Value::Null, &json!({"a": 0})));
    }
}
