//! MachineConfiguration `cluster`: what nodes go by is in its status, for people to read.
//! Daemons read the specification themselves.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use osc_fault::chain;
use osc_objects::{
    ConditionStatus, Conditions, FilePolicy, KeyPolicy, MachineConfiguration, MachineConfigurationStatus,
    NodeDisruptionPolicy, NodeDisruptionPolicyStatus, PolicyAction, names::machine,
};
use serde_json::{Value, json};

use super::{Controller, error::ControllerError, observe::Stores};
use crate::daemon::{Engine, policy, rules};

const DEGRADED: &str = "Degraded";

impl Controller {
    /// Keeps the object there, and its status right. It is for people to read: nothing else
    /// waits for it, and the next round tries again.
    pub(super) async fn settle(&self, now: Timestamp) {
        match self.try_settle(now).await {
            Err(error) if !error.is_conflict() => {
                tracing::warn!(error = %chain(&error), "the status of MachineConfiguration cluster is not written");
            }
            // Of a conflict, the change brings the next round.
            _ => {}
        }
    }

    async fn try_settle(&self, now: Timestamp) -> Result<(), ControllerError> {
        let all = Stores::sorted(&self.stores.settings);
        let Some(settings) = all.iter().find(|one| one.name_any() == machine::CONFIGURATION) else {
            return self.writer.create_settings().await;
        };
        let wanted = status(settings, &self.engines(), now);
        if settings.status.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.writer.settings_status(settings, to_value(&wanted)).await
    }

    /// Engines there are in this cluster.
    fn engines(&self) -> Vec<Engine> {
        let mut nodes = self.stores.nodes.all();
        nodes.retain(|node| !node.windows);
        let mut engines: Vec<Engine> = nodes.iter().any(|node| node.crio).then_some(Engine::Crio).into_iter().collect();
        if engines.is_empty() || nodes.iter().any(|node| !node.crio) {
            engines.push(Engine::containerd());
        }
        engines
    }
}

/// The status `settings` should have. What cannot be used leaves what was in effect.
fn status(settings: &MachineConfiguration, engines: &[Engine], now: Timestamp) -> MachineConfigurationStatus {
    let policy = &settings.spec.node_disruption_policy;
    let before = settings.status.clone().unwrap_or_default();
    let problem = engines.iter().find_map(|engine| policy::rules(policy, engine).err());
    let mut conditions = before.conditions;
    let cluster_policies = match &problem {
        None => {
            conditions.set(DEGRADED, ConditionStatus::False, "AsExpected", "", now);
            in_effect(policy, engines)
        }
        Some(problem) => {
            let message = format!("{}: no node is updated before that", chain(problem));
            conditions.set(DEGRADED, ConditionStatus::True, "InvalidNodeDisruptionPolicy", &message, now);
            let known = before.node_disruption_policy_status.cluster_policies;
            if known.files.is_empty() { in_effect(&NodeDisruptionPolicy::default(), engines) } else { known }
        }
    };
    MachineConfigurationStatus {
        observed_generation: settings.metadata.generation.unwrap_or_default(),
        conditions,
        node_disruption_policy_status: NodeDisruptionPolicyStatus { cluster_policies },
    }
}

/// The built-in table with `policy` over it.
fn in_effect(policy: &NodeDisruptionPolicy, engines: &[Engine]) -> NodeDisruptionPolicy {
    let mut files: Vec<FilePolicy> = Vec::new();
    for engine in engines {
        for rule in rules::defaults(engine) {
            add(&mut files, policy::entry(&rule, engine));
        }
    }
    for own in &policy.files {
        let path = own.path.trim_end_matches('/');
        files.retain(|built_in| built_in.path != path);
        files.push(FilePolicy { path: path.into(), actions: own.actions.clone() });
    }
    let nothing = || vec![PolicyAction { kind: "None".into(), ..PolicyAction::default() }];
    let own = Some(policy.sshkey.actions.clone()).filter(|actions| !actions.is_empty());
    let sshkey = KeyPolicy { actions: own.unwrap_or_else(nothing) };
    NodeDisruptionPolicy { files, units: policy.units.clone(), sshkey }
}

/// Of two engines, each has its own service for the same file.
fn add(files: &mut Vec<FilePolicy>, new: FilePolicy) {
    match files.iter_mut().find(|known| known.path == new.path) {
        None => files.push(new),
        Some(known) => {
            let more: Vec<_> = new.actions.into_iter().filter(|action| !known.actions.contains(action)).collect();
            known.actions.extend(more);
        }
    }
}

/// Every field is written: one that is left out would stay what it was.
fn to_value(status: &MachineConfigurationStatus) -> Value {
    let NodeDisruptionPolicy { files, units, sshkey } = &status.node_disruption_policy_status.cluster_policies;
    json!({
        "observedGeneration": status.observed_generation,
        "conditions": status.conditions,
        "nodeDisruptionPolicyStatus": {"clusterPolicies": {"files": files, "units": units, "sshkey": sshkey}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(generation: i64, policy: Value, status: Option<MachineConfigurationStatus>) -> MachineConfiguration {
        let object = json!({"metadata": {"name": "cluster", "generation": generation},
            "spec": {"nodeDisruptionPolicy": policy}, "status": status});
        serde_json::from_value(object).expect("settings")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// Actions of the entry for a path, as in `Drain, Restart crio.service`.
    fn actions(status: &MachineConfigurationStatus, path: &str) -> String {
        let files = &status.node_disruption_policy_status.cluster_policies.files;
        let entries: Vec<_> = files.iter().filter(|file| file.path == path).collect();
        assert!(entries.len() <= 1, "{path} is there twice");
        let actions = entries.into_iter().flat_map(|file| &file.actions).map(|action| {
            let service =
                action.reload.iter().chain(&action.restart).map(|service| format!(" {}", service.service_name));
            format!("{}{}", action.kind, service.collect::<String>())
        });
        actions.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_built_in_table_names_the_services_of_the_engines_there_are() {
        let (crio, containerd) = ([Engine::Crio], [Engine::containerd()]);
        let both = [Engine::Crio, Engine::containerd()];
        for (engines, path, want) in [
            (&crio[..], "/var/lib/kubelet/config.json", "None"),
            (&crio, "/etc/containers/policy.json", "Reload crio.service"),
            (&crio, "/etc/containers/registries.d", "Reload crio.service"),
            (&crio, "/etc/containers/registries.conf", "Special"),
            (&crio, "/etc/crio/crio.conf.d", "Restart crio.service"),
            (&crio, "/etc/containerd/conf.d", ""),
            (&crio, "/etc/pki/ca-trust/source/anchors", "Special, Restart crio.service"),
            (&crio, "/etc/default/grub.d/50-machine-config.cfg", "Drain, Special, Reboot"),
            (&containerd, "/etc/containers/policy.json", "Reload containerd.service"),
            (&containerd, "/etc/containerd/conf.d", "Restart containerd.service"),
            (&both, "/etc/containers/policy.json", "Reload crio.service, Reload containerd.service"),
            (&both, "/etc/containers/registries.conf", "Special"),
            (&both, "/etc/containerd/conf.d", "Restart containerd.service"),
        ] {
            let found = status(&settings(1, json!({}), None), engines, at(0));
            assert_eq!(actions(&found, path), want, "{engines:?} {path}");
            assert_eq!(found.node_disruption_policy_status.cluster_policies.sshkey.actions[0].kind, "None");
        }
    }

    #[test]
    fn entries_of_the_cluster_replace_built_in_ones() {
        let drain = json!([{"type": "Drain"}]);
        let policy = json!({"files": [{"path": "/etc/containers/registries.d/", "actions": drain},
            {"path": "/etc/own", "actions": [{"type": "Restart", "restart": {"serviceName": "own.service"}}]}],
            "units": [{"name": "a.service", "actions": drain}], "sshkey": {"actions": drain}});
        let found = status(&settings(7, policy, None), &[Engine::Crio], at(0));
        for (path, want) in [
            ("/etc/containers/registries.d", "Drain"),
            ("/etc/own", "Restart own.service"),
            ("/etc/containers/policy.json", "Reload crio.service"),
        ] {
            assert_eq!(actions(&found, path), want, "{path}");
        }
        let policies = &found.node_disruption_policy_status.cluster_policies;
        assert_eq!((policies.units[0].name.as_str(), policies.sshkey.actions[0].kind.as_str()), ("a.service", "Drain"));
        assert_eq!(found.observed_generation, 7);
    }

    #[test]
    fn a_policy_that_cannot_be_used_is_a_condition_and_leaves_what_was_in_effect() {
        let own = |kind: &str| json!({"files": [{"path": "/etc/own", "actions": [{"type": kind}]}]});
        let good = status(&settings(1, own("Drain"), None), &[Engine::Crio], at(0));
        assert_eq!(good.conditions.of(DEGRADED).unwrap().reason, "AsExpected");
        let bad = status(&settings(2, own("Restart"), Some(good.clone())), &[Engine::Crio], at(60));
        let condition = bad.conditions.of(DEGRADED).unwrap();
        assert_eq!((condition.status, bad.observed_generation), (ConditionStatus::True, 2));
        assert_eq!(condition.reason, "InvalidNodeDisruptionPolicy");
        assert!(condition.message.contains("file `/etc/own` names no service; correct it"), "{}", condition.message);
        assert_eq!(condition.last_transition_time.0, at(60));
        assert_eq!(bad.node_disruption_policy_status, good.node_disruption_policy_status);
        let again = status(&settings(2, own("Restart"), Some(bad.clone())), &[Engine::Crio], at(90));
        assert_eq!(again, bad, "nothing is written twice, times included");
        let cured = status(&settings(3, own("Reboot"), Some(bad)), &[Engine::Crio], at(120));
        assert_eq!(actions(&cured, "/etc/own"), "Reboot");
        assert_eq!(cured.conditions.of(DEGRADED).unwrap().status, ConditionStatus::False);
        let never = status(&settings(1, own("Restart"), None), &[Engine::Crio], at(0));
        assert_eq!(actions(&never, "/etc/containers/policy.json"), "Reload crio.service", "the built-in table");
    }
}
