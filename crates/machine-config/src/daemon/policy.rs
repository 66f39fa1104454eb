//! The node disruption policy of the cluster as rules of a node, and rules as policy.

use std::path::Path;

use osc_objects::{FilePolicy, NodeDisruptionPolicy, PolicyAction, PolicyService};

use super::{
    engine::Engine,
    rules::{Action, REGISTRIES, Rule},
    wanted::{KEYS, UNITS},
};

/// A policy that cannot be acted by.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("MachineConfiguration cluster, spec.nodeDisruptionPolicy: {entry} {problem}; correct it")]
pub struct PolicyError {
    /// The entry.
    entry: String,
    /// What is wrong with it.
    problem: String,
}

/// Rules of `policy` for a node with this engine. One path may be a file or a directory.
///
/// # Errors
/// [`PolicyError`], for the first entry that means nothing.
pub(crate) fn rules(policy: &NodeDisruptionPolicy, engine: &Engine) -> Result<Vec<Rule>, PolicyError> {
    let mut out = Vec::new();
    for file in &policy.files {
        let entry = format!("file `{}`", file.path);
        let plain = file.path.starts_with('/') && !file.path.split('/').any(|part| matches!(part, "." | ".."));
        if !plain {
            return Err(PolicyError { entry, problem: "is no absolute path".into() });
        }
        both(file.path.trim_end_matches('/'), &entry, &file.actions, engine, &mut out)?;
    }
    for unit in &policy.units {
        let entry = format!("unit `{}`", unit.name);
        if unit.name.is_empty() || unit.name.contains('/') {
            return Err(PolicyError { entry, problem: "is no unit name".into() });
        }
        let path = Path::new(UNITS).join(&unit.name).display().to_string();
        let drop_ins = rule(&format!("{path}.d/"), &entry, &unit.actions, engine)?;
        out.extend([rule(&path, &entry, &unit.actions, engine)?, drop_ins]);
    }
    if !policy.sshkey.actions.is_empty() {
        out.push(rule(KEYS, "sshkey", &policy.sshkey.actions, engine)?);
    }
    Ok(out)
}

fn both(
    path: &str,
    entry: &str,
    actions: &[PolicyAction],
    engine: &Engine,
    out: &mut Vec<Rule>,
) -> Result<(), PolicyError> {
    out.extend([rule(path, entry, actions, engine)?, rule(&format!("{path}/"), entry, actions, engine)?]);
    Ok(())
}

fn rule(path: &str, entry: &str, actions: &[PolicyAction], engine: &Engine) -> Result<Rule, PolicyError> {
    let mut rule = Rule { path: path.into(), actions: Vec::new(), drain: false };
    for action in actions {
        let service = |of: &Option<PolicyService>| {
            let name = of.as_ref().map(|service| service.service_name.clone()).filter(|name| !name.is_empty());
            name.ok_or_else(|| PolicyError { entry: entry.into(), problem: "names no service".into() })
        };
        match action.kind.as_str() {
            "None" => {}
            "Drain" => rule.drain = true,
            "Reload" => rule.actions.push(match service(&action.reload)? {
                name if name == engine.unit() => Action::ReloadEngine,
                name => Action::ReloadService(name),
            }),
            "Restart" => rule.actions.push(match service(&action.restart)? {
                name if name == engine.unit() => Action::RestartEngine,
                name => Action::RestartService(name),
            }),
            "DaemonReload" => rule.actions.push(Action::ReloadUnits),
            "Reboot" => rule.actions.push(Action::Reboot),
            other => {
                let problem = format!("asks for `{other}`, which does not exist");
                return Err(PolicyError { entry: entry.into(), problem });
            }
        }
    }
    Ok(rule)
}

/// A built-in rule as an entry of a policy. What has no name there is `Special`.
pub(crate) fn entry(rule: &Rule, engine: &Engine) -> FilePolicy {
    let plain = |kind: &str| PolicyAction { kind: kind.into(), ..PolicyAction::default() };
    let service = |name: &str| Some(PolicyService { service_name: name.into() });
    let reload = |name: &str| PolicyAction { reload: service(name), ..plain("Reload") };
    let restart = |name: &str| PolicyAction { restart: service(name), ..plain("Restart") };
    let mut actions: Vec<PolicyAction> = rule.drain.then(|| plain("Drain")).into_iter().collect();
    actions.extend(rule.actions.iter().map(|action| match action {
        Action::UpdateTrust | Action::UpdateBootLoader => plain("Special"),
        // Whether the node is drained as well depends on what changes in it.
        Action::ReloadEngine if rule.path == REGISTRIES => plain("Special"),
        Action::ReloadUnits => plain("DaemonReload"),
        Action::ReloadEngine => reload(engine.unit()),
        Action::RestartEngine => restart(engine.unit()),
        Action::ReloadService(name) => reload(name),
        Action::RestartService(name) => restart(name),
        Action::Reboot => plain("Reboot"),
    }));
    if actions.is_empty() {
        actions.push(plain("None"));
    }
    FilePolicy { path: rule.path.trim_end_matches('/').into(), actions }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(policy: Value) -> Result<Vec<(String, Vec<Action>, bool)>, String> {
        let policy = serde_json::from_value(policy).expect("a policy");
        let found = rules(&policy, &Engine::Crio).map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|rule| (rule.path, rule.actions, rule.drain)).collect())
    }

    #[test]
    fn entries_become_rules_of_the_node() {
        let restart = |name: &str| json!({"type": "Restart", "restart": {"serviceName": name}});
        let reload = |name: &str| json!({"type": "Reload", "reload": {"serviceName": name}});
        for (policy, want) in [
            (json!({}), vec![]),
            (
                json!({"files": [{"path": "/etc/a", "actions": [{"type": "None"}]}]}),
                vec![("/etc/a", vec![], false), ("/etc/a/", vec![], false)],
            ),
            (
                json!({"files": [{"path": "/etc/a/", "actions": [{"type": "Drain"}, restart("crio.service")]}]}),
                vec![("/etc/a", vec![Action::RestartEngine], true), ("/etc/a/", vec![Action::RestartEngine], true)],
            ),
            (
                json!({"units": [{"name": "a.service", "actions": [{"type": "DaemonReload"}, reload("a.service")]}]}),
                vec![
                    (
                        "/etc/systemd/system/a.service",
                        vec![Action::ReloadUnits, Action::ReloadService("a.service".into())],
                        false,
                    ),
                    (
                        "/etc/systemd/system/a.service.d/",
                        vec![Action::ReloadUnits, Action::ReloadService("a.service".into())],
                        false,
                    ),
                ],
            ),
            (
                json!({"sshkey": {"actions": [{"type": "Reboot"}]}}),
                vec![("/home/core/.ssh/authorized_keys", vec![Action::Reboot], false)],
            ),
        ] {
            let want: Vec<_> =
                want.into_iter().map(|(path, actions, drain)| (path.to_owned(), actions, drain)).collect();
            assert_eq!(of(policy.clone()), Ok(want), "{policy}");
        }
    }

    #[test]
    fn what_means_nothing_is_told_and_not_guessed() {
        for (policy, want) in [
            (json!({"files": [{"path": "etc/a", "actions": []}]}), "file `etc/a` is no absolute path"),
            (json!({"files": [{"path": "/etc/../a", "actions": []}]}), "file `/etc/../a` is no absolute path"),
            (json!({"files": [{"path": "/a", "actions": [{"type": "Explode"}]}]}), "asks for `Explode`"),
            (json!({"files": [{"path": "/a", "actions": [{"type": "Restart"}]}]}), "file `/a` names no service"),
            (json!({"units": [{"name": "../a", "actions": []}]}), "unit `../a` is no unit name"),
        ] {
            let problem = of(policy.clone()).unwrap_err();
            assert!(problem.contains(want), "{policy}: {problem}");
        }
    }
}
