//! What must happen after a file changed.
//!
//! The longest rule that covers a path wins. On a node of the Machine Config
//! Operator a path without a rule means a reboot. Here it means nothing, since no
//! part of the operating system image is ever replaced: files are read by who
//! needs them, and a reboot is what an administrator may ask for by a rule.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use super::registries;

/// Something that is done once the files are in place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
pub enum Action {
    /// Rebuild the store of trusted certificates.
    UpdateTrust,
    /// Write the boot loader's menu anew.
    UpdateBootLoader,
    /// The service manager reads unit files again.
    ReloadUnits,
    /// The engine reads its configuration again.
    ReloadEngine,
    /// The engine is restarted; its containers go on.
    RestartEngine,
    /// A service reads its configuration again.
    ReloadService(String),
    /// A service is restarted.
    RestartService(String),
    /// The machine is restarted.
    Reboot,
}

/// A path and what its change asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A file, or a directory when it ends with a slash.
    pub path: String,
    /// What to do.
    pub actions: Vec<Action>,
    /// Whether the node is drained before.
    #[serde(default)]
    pub drain: bool,
}

/// What a set of changes asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// To be done, in order.
    pub actions: BTreeSet<Action>,
    /// Whether the node is drained before anything is touched.
    pub drain: bool,
}

/// One changed file: content before and after, as far as it is one.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// Where.
    pub path: &'a Path,
    /// Content before.
    pub before: Option<&'a [u8]>,
    /// Content after.
    pub after: Option<&'a [u8]>,
}

/// Where images come from. Whether its change needs a drain depends on the change.
pub(super) const REGISTRIES: &str = "/etc/containers/registries.conf";

/// The rules of a node with this engine.
pub fn defaults(engine: &super::engine::Engine) -> Vec<Rule> {
    use Action::{ReloadEngine, RestartEngine, UpdateBootLoader, UpdateTrust};
    let rule = |path: &str, actions: &[Action]| Rule { path: path.into(), actions: actions.into(), drain: false };
    let mut rules = vec![
        rule("/var/lib/kubelet/config.json", &[]),
        rule("/etc/containers/policy.json", &[ReloadEngine]),
        rule("/etc/containers/registries.d/", &[ReloadEngine]),
        rule("/etc/machine-config-daemon/no-reboot/containers-gpg.pub", &[ReloadEngine]),
        rule(REGISTRIES, &[ReloadEngine]),
        rule("/etc/pki/ca-trust/source/anchors/", &[UpdateTrust, RestartEngine]),
        rule("/usr/local/share/ca-certificates/", &[UpdateTrust, RestartEngine]),
        rule(super::wanted::BOOT_LOADER, &[UpdateBootLoader]),
        Rule {
            path: super::wanted::KERNEL_ARGUMENTS.into(),
            actions: vec![UpdateBootLoader, Action::Reboot],
            drain: true,
        },
    ];
    rules.extend(engine.restart_paths().iter().map(|path| rule(path, &[RestartEngine])));
    rules.extend(engine.reload_paths().iter().map(|path| rule(path, &[ReloadEngine])));
    rules
}

/// What `changed` asks for. Rules of `own` override the defaults for equal paths.
pub fn consequences(changed: &[Changed<'_>], own: &[Rule], defaults: &[Rule]) -> Consequences {
    let mut out = Consequences::default();
    for change in changed {
        let covering = own.iter().chain(defaults).filter(|rule| covers(rule, change.path));
        // The first of equal length is kept: own rules come first.
        let best = covering.reduce(|best, rule| if rule.path.len() > best.path.len() { rule } else { best });
        let Some(rule) = best else { continue };
        out.actions.extend(rule.actions.iter().cloned());
        let risky = rule.path == REGISTRIES && !registries::safe(change.before, change.after);
        out.drain |= rule.drain || rule.actions.contains(&Action::Reboot) || risky;
    }
    if out.actions.contains(&Action::Reboot) {
        out.actions.retain(|action| matches!(action, Action::UpdateBootLoader | Action::UpdateTrust | Action::Reboot));
    } else if out.actions.contains(&Action::RestartEngine) {
        out.actions.remove(&Action::ReloadEngine);
    }
    out
}

fn covers(rule: &Rule, path: &Path) -> bool {
    let path = path.to_string_lossy();
    if rule.path.ends_with('/') { path.starts_with(&rule.path) } else { path == rule.path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::engine::Engine;

    fn of(paths: &[&str], own: &[Rule], engine: &Engine) -> (Vec<Action>, bool) {
        let changed: Vec<_> =
            paths.iter().map(|path| Changed { path: Path::new(path), before: None, after: Some(b"x") }).collect();
        let found = consequences(&changed, own, &defaults(engine));
        (found.actions.into_iter().collect(), found.drain)
    }

    #[test]
    fn row_16_the_longest_rule_decides_and_most_files_need_nothing() {
        use Action::*;
        let own = [
            Rule { path: "/etc/containers/".into(), actions: vec![Reboot], drain: false },
            Rule { path: "/etc/crio/crio.conf.d/quiet".into(), actions: vec![], drain: false },
            Rule { path: "/etc/containers/policy.json".into(), actions: vec![], drain: true },
        ];
        for (paths, own, want) in [
            (&[][..], &[][..], (vec![], false)),
            (&["/var/lib/kubelet/config.json"], &[], (vec![], false)),
            (&["/etc/anything"], &[], (vec![], false)),
            (&["/etc/containers/policy.json"], &[], (vec![ReloadEngine], false)),
            (&["/etc/containers/policy.json"], &own, (vec![], true)),
            (&["/etc/containers/registries.d/x"], &[], (vec![ReloadEngine], false)),
            (&["/etc/containers/other"], &own, (vec![Reboot], true)),
            (&["/etc/crio/crio.conf.d/50-kata"], &[], (vec![RestartEngine], false)),
            (&["/etc/crio/crio.conf.d/quiet"], &own, (vec![], false)),
            (&["/etc/crio/policies/ns.json"], &[], (vec![ReloadEngine], false)),
            (&["/etc/crio/crio.conf.d/50-kata", "/etc/containers/policy.json"], &[], (vec![RestartEngine], false)),
            (&["/etc/pki/ca-trust/source/anchors/x.crt"], &[], (vec![UpdateTrust, RestartEngine], false)),
            (
                &[super::super::wanted::KERNEL_ARGUMENTS, "/etc/crio/crio.conf.d/50-kata"],
                &[],
                (vec![UpdateBootLoader, Reboot], true),
            ),
        ] {
            assert_eq!(of(paths, own, &Engine::Crio), want, "{paths:?}");
        }
        assert_eq!(of(&["/etc/crio/crio.conf.d/01-ctrcfg-logLevel"], &[], &Engine::containerd()), (vec![], false));
        assert_eq!(
            of(&["/etc/containerd/conf.d/99-kata.toml"], &[], &Engine::containerd()),
            (vec![RestartEngine], false)
        );
    }

    #[test]
    fn row_17_registries_reload_and_only_a_risky_change_drains() {
        let conf = |text: &'static str| Some(text.as_bytes());
        let path = Path::new(REGISTRIES);
        let base = "[[registry]]\nlocation = \"a\"\n";
        let digest = "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"digest-only\"\n";
        let tag =
            "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"tag-only\"\n";
        for (after, drain) in [(digest, false), (tag, true)] {
            let changed = [Changed { path, before: conf(base), after: conf(after) }];
            let found = consequences(&changed, &[], &defaults(&Engine::Crio));
            assert_eq!(
                (found.actions.into_iter().collect::<Vec<_>>(), found.drain),
                (vec![Action::ReloadEngine], drain)
            );
        }
    }
}
