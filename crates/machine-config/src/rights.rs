//! Rights of the two programs: exactly what their code asks the API for. Manifests are
//! made from these, and tests and the embedded cluster run both programs with them.

use k8s_openapi::api::rbac::v1::PolicyRule;
use osc_objects::names::machine::{CONFIGURATION, GROUP};

use crate::controller::LEASE;

/// Account of the controller.
pub const CONTROLLER_ACCOUNT: &str = "machine-config-controller";
/// Account of the daemons.
pub const DAEMON_ACCOUNT: &str = "machine-config-daemon";

/// API group of MachineConfiguration.
const SETTINGS_GROUP: &str = "operator.openshift.io";

/// Rights of the controller in the whole cluster.
pub fn controller() -> Vec<PolicyRule> {
    vec![
        rule("", &["nodes"], &["get", "list", "watch", "patch"]),
        // Drains look at the pods of a node and evict them; they never delete one.
        rule("", &["pods"], &["list"]),
        rule("", &["pods/eviction"], &["create"]),
        rule(GROUP, &["machineconfigs"], &["list", "watch", "create", "patch", "delete"]),
        rule(GROUP, &["machineconfigpools"], &["list", "watch", "create", "patch"]),
        rule(GROUP, &["machineconfigpools/status"], &["patch"]),
        rule(GROUP, &["containerruntimeconfigs"], &["list", "watch", "patch"]),
        rule(GROUP, &["kubeletconfigs"], &["list", "watch"]),
        rule(GROUP, &["containerruntimeconfigs/status", "kubeletconfigs/status"], &["patch"]),
        rule(SETTINGS_GROUP, &["machineconfigurations"], &["list", "watch", "create"]),
        rule(SETTINGS_GROUP, &["machineconfigurations/status"], &["patch"]),
        // Who makes objects that block the deletion of their owner may change its finalizers.
        rule(GROUP, &["machineconfigpools/finalizers", "containerruntimeconfigs/finalizers"], &["update"]),
        rule("events.k8s.io", &["events"], &["create"]),
    ]
}

/// Rights of the controller in its namespace: the lease by which one replica leads.
pub fn controller_in_its_namespace() -> Vec<PolicyRule> {
    let leases = |verbs: &[&str]| rule("coordination.k8s.io", &["leases"], verbs);
    // The name of what is created cannot be limited.
    vec![leases(&["create"]), named(leases(&["get", "update"]), LEASE)]
}

/// Rights of a daemon. All share one account, so the API cannot hold each to its own node:
/// a node that is taken over can change annotations and labels of others, no more.
pub fn daemon() -> Vec<PolicyRule> {
    vec![
        rule("", &["nodes"], &["list", "watch", "patch"]),
        rule(GROUP, &["machineconfigs"], &["get"]),
        named(rule(SETTINGS_GROUP, &["machineconfigurations"], &["get"]), CONFIGURATION),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn named(rule: PolicyRule, name: &str) -> PolicyRule {
    PolicyRule { resource_names: Some(vec![name.to_owned()]), ..rule }
}
