//! Which changes a running node can make. Asked when a configuration is rendered,
//! and again by the daemon before anything is touched.

use std::{collections::BTreeSet, path::Path};

use crate::spec::Spec;

/// Sections whose removal changes nothing on a node.
const REMOVABLE: &str = "storage.links";
/// File whose presence forces an update; no configuration may write it.
pub const FORCE_FILE: &str = "/run/machine-config-daemon-force";
/// Part of the spec with files.
pub(crate) const FILES: &str = "storage.files";
/// What the daemon remembers, and what it installs.
const OWN: [&str; 5] = [
    "/etc/machine-config-daemon/currentconfig",
    "/etc/machine-config-daemon/journal",
    "/etc/machine-config-daemon/noorig",
    "/etc/machine-config-daemon/orig",
    "/opt/sandboxed-containers",
];

/// One change that a running node cannot make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The part of the spec, as in `passwd.users.bob`, `storage.links`, `fips`.
    pub part: String,
    /// Why, and what to do.
    pub why: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.part, self.why)
    }
}

/// Changes from `old` to `new` that no running node can make.
pub fn refusals(old: &Spec, new: &Spec) -> Vec<Refusal> {
    let (before, after) = (&old.ignition, &new.ignition);
    let sections: BTreeSet<&String> = before.first_boot.keys().chain(after.first_boot.keys()).collect();
    let changed = sections.into_iter().filter(|name| before.first_boot.get(*name) != after.first_boot.get(*name));
    let mut out: Vec<Refusal> = changed
        .filter(|name| name.as_str() != REMOVABLE || after.first_boot.contains_key(*name))
        .map(|name| refusal(name, "can only be set when a machine is installed; undo the change"))
        .collect();
    if let Some(path) = after.files.keys().find(|path| is_reserved(path)) {
        let why = format!("{} is the daemon's own; remove it from the configuration", path.display());
        out.push(Refusal { part: FILES.into(), why });
    }
    if old.fips != new.fips {
        out.push(refusal("fips", "can only be set when a machine is installed; undo the change"));
    }
    out
}

/// Whether a path belongs to the daemon: a configuration that wrote there would change
/// what the daemon believes about the node.
pub(crate) fn is_reserved(path: &Path) -> bool {
    let own = OWN.iter().any(|own| path.starts_with(own));
    own || path == Path::new(FORCE_FILE)
}

fn refusal(part: &str, why: &str) -> Refusal {
    Refusal { part: part.into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(ignition: Value, fips: bool) -> Spec {
        let mut config = json!({"ignition": {"version": "3.2.0"}});
        for (name, value) in ignition.as_object().expect("an object") {
            config[name] = value.clone();
        }
        Spec::parse(&json!({"config": config, "fips": fips})).expect("a spec")
    }

    #[test]
    fn row_21_what_only_an_installation_can_do_is_refused() {
        let empty = json!({});
        let link = json!({"storage": {"links": [{"path": "/l", "target": "/t"}]}});
        let other_link = json!({"storage": {"links": [{"path": "/m", "target": "/t"}]}});
        let bob = json!({"passwd": {"users": [{"name": "bob"}]}});
        let groups = json!({"passwd": {"groups": [{"name": "g"}]}});
        let shell = json!({"passwd": {"users": [{"name": "core", "shell": "/bin/sh"}]}});
        let key = json!({"passwd": {"users": [{"name": "core", "sshAuthorizedKeys": ["k"]}]}});
        let append = json!({"storage": {"files": [{"path": "/f", "append": [{"source": "data:,"}]}]}});
        let disks = json!({"storage": {"disks": [{"device": "/dev/x"}]}});
        let force = json!({"storage": {"files": [{"path": FORCE_FILE}]}});
        let journal = json!({"storage": {"files": [{"path": "/etc/machine-config-daemon/journal"}]}});
        let original = json!({"storage": {"files": [{"path": "/etc/machine-config-daemon/orig/etc/a.mcdorig"}]}});
        let payload = json!({"storage": {"files": [{"path": "/opt/sandboxed-containers/current"}]}});
        let key_ring =
            json!({"storage": {"files": [{"path": "/etc/machine-config-daemon/no-reboot/containers-gpg.pub"}]}});
        let arguments = json!({"kernelArguments": {"shouldExist": ["x"]}});
        let file = json!({"storage": {"files": [{"path": "/f"}]}, "systemd": {"units": [{"name": "a.service"}]}});
        for (old, new, want) in [
            (&empty, &empty, None),
            (&empty, &file, None),
            (&file, &empty, None),
            (&empty, &key, None),
            (&key, &empty, None),
            (&empty, &bob, Some("passwd.users.bob")),
            (&bob, &bob, None),
            (&bob, &empty, Some("passwd.users.bob")),
            (&empty, &groups, Some("passwd.groups")),
            (&empty, &shell, Some("passwd.users.core.shell")),
            (&empty, &link, Some("storage.links")),
            (&link, &other_link, Some("storage.links")),
            (&link, &empty, None),
            (&empty, &append, Some("storage.files[/f].append")),
            (&empty, &disks, Some("storage.disks")),
            (&empty, &arguments, Some("kernelArguments")),
            (&empty, &force, Some("storage.files")),
            (&empty, &journal, Some("storage.files")),
            (&empty, &original, Some("storage.files")),
            (&empty, &payload, Some("storage.files")),
            (&empty, &key_ring, None),
        ] {
            let found = refusals(&spec(old.clone(), false), &spec(new.clone(), false));
            let parts: Vec<_> = found.iter().map(|refusal| refusal.part.as_str()).collect();
            assert_eq!(parts, want.into_iter().collect::<Vec<_>>(), "{old} to {new}");
        }
        assert_eq!(refusals(&spec(empty.clone(), false), &spec(empty, true))[0].part, "fips");
    }
}
