//! What a configuration means for the file system of this node.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    engine::{Engine, EngineError, Runtime},
    host::{Entry, Host, HostError},
    record::{self, Record},
};
use crate::{
    ignition::{self, Id},
    payload::{self, Store},
    reconcile::{self, Refusal},
    render::SANDBOXES,
    spec::{Kernel, Spec},
};

/// Our part of the kernel command line.
pub(super) const KERNEL_ARGUMENTS: &str = "/etc/default/grub.d/50-machine-config.cfg";
/// Everything else that goes into the boot loader's menu.
pub(super) const BOOT_LOADER: &str = "/etc/default/grub.d/";
/// Where units of administrators are.
pub(super) const UNITS: &str = "/etc/systemd/system";
/// SSH keys of user core.
pub(super) const KEYS: &str = "/home/core/.ssh/authorized_keys";
/// Older releases of containerd look the shim up by its name only.
const SHIM_LINK: &str = "/usr/local/bin/containerd-shim-kata-v2";

/// Entries a configuration asks for, and units whose enablement it decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Managed entries by path.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// Units: whether enabled, or as the presets say.
    pub units: BTreeMap<String, Option<bool>>,
    /// Version of the payload that is linked.
    pub payload: Option<String>,
}

/// Where the controller puts the log level of a ContainerRuntimeConfig.
const LOG_LEVEL: &str = "/etc/crio/crio.conf.d/01-ctrcfg-logLevel";

/// What a node can do, apart from writing files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capabilities {
    /// Whether there are systemd units to manage.
    pub units: bool,
    /// Whether kernel arguments can be set and the machine restarted.
    pub reboot: bool,
}

/// A configuration that has no meaning on this node.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// The file system refused.
    #[error("the node cannot be read")]
    Host(#[from] HostError),
    /// The engine cannot be configured.
    #[error("the runtime cannot be offered")]
    Engine(#[from] EngineError),
    /// A file belongs to somebody unknown.
    #[error("{}: there is no {kind} `{name}` on this node; create it or use a number", path.display())]
    Nobody {
        /// The file.
        path: PathBuf,
        /// `user` or `group`.
        kind: &'static str,
        /// The unknown name.
        name: String,
    },
    /// Keys for a user that does not exist.
    #[error("SSH keys for user core, who does not exist on this node: create the user or remove the keys")]
    NoCore,
}

/// What no configuration can change on this kind of node, beside what no running
/// node can change.
pub fn refusals(old: &Spec, new: &Spec, node: Capabilities) -> Vec<Refusal> {
    let mut out = reconcile::refusals(old, new);
    let mut refuse = |wrong: bool, part: &str, why: &str| {
        if wrong {
            out.push(Refusal { part: part.into(), why: why.into() });
        }
    };
    let image = "this node has no operating system image to replace; remove it";
    refuse(!new.os_image_url.is_empty(), "osImageURL", image);
    refuse(new.kernel != Kernel::Default, "kernelType", "this node keeps the kernel of its distribution; remove it");
    refuse(
        !node.reboot && !new.kernel_arguments.is_empty(),
        "kernelArguments",
        "this node cannot be restarted; remove them",
    );
    refuse(!node.units && !new.ignition.units.is_empty(), "systemd.units", "this node has no systemd; remove them");
    let password = new.ignition.core.as_ref().is_some_and(|core| core.password_hash.is_some());
    refuse(password, "passwd.users.core.passwordHash", "passwords of this node are not managed; remove it");
    for extension in new.extensions.iter().filter(|name| !SANDBOXES.contains(&name.as_str())) {
        refuse(true, "extensions", &format!("`{extension}` has no payload for this node; remove it"));
    }
    out
}

/// Whether a configuration installs the payload.
pub fn sandboxes(spec: &Spec) -> bool {
    spec.extensions.iter().any(|name| SANDBOXES.contains(&name.as_str()))
}

/// Translates `spec`. `payload` is the version to link if the configuration asks
/// for sandboxes; it is installed already.
///
/// # Errors
/// [`WantedError`].
pub fn wanted(
    spec: &Spec,
    payload: Option<&str>,
    host: &Host,
    engine: &Engine,
    record: &Record,
) -> Result<Wanted, WantedError> {
    let mut out = Wanted::default();
    files(spec, host, &mut out)?;
    units(spec, host, &mut out)?;
    keys(spec, host, &mut out)?;
    if !spec.kernel_arguments.is_empty() {
        out.entries.insert(KERNEL_ARGUMENTS.into(), Entry::file(boot_loader(&spec.kernel_arguments), 0o644));
    }
    if let Some(version) = payload.filter(|_| sandboxes(spec)) {
        let store = Store::new(host);
        let linked = |file: &str| store.current().join(file);
        let runtime = Runtime {
            shim: host.real(linked(payload::SHIM)),
            config: host.real(linked(payload::CONFIGURATION)),
            log_level: log_level(&out),
        };
        let (path, entry) = engine.drop_in(host, &|path| without_us(path, &out, host, record), &runtime)?;
        out.entries.insert(path, entry);
        out.entries.insert(store.current(), Entry::Link { target: version.into() });
        out.entries.insert(SHIM_LINK.into(), Entry::Link { target: runtime.shim });
        out.payload = Some(version.to_owned());
    }
    Ok(out)
}

/// The log level of the configuration, which is written for CRI-O.
fn log_level(wanted: &Wanted) -> Option<String> {
    let Entry::File { bytes, .. } = wanted.entries.get(Path::new(LOG_LEVEL))? else { return None };
    let text = std::str::from_utf8(bytes).ok()?.parse::<toml::Table>().ok()?;
    text.get("crio")?.get("runtime")?.get("log_level")?.as_str().map(str::to_owned)
}

/// A file as it would be if we added nothing: what the configuration says, else the
/// original of what we manage, else what is there.
fn without_us(path: &Path, wanted: &Wanted, host: &Host, record: &Record) -> Result<Entry, HostError> {
    match wanted.entries.get(path) {
        Some(entry) => Ok(entry.clone()),
        None if record.owned.contains_key(path) => host.read(&record::original(path)),
        None => host.read(path),
    }
}

fn files(spec: &Spec, host: &Host, out: &mut Wanted) -> Result<(), WantedError> {
    let (users, groups) = (host.accounts("/etc/passwd"), host.accounts("/etc/group"));
    for (path, file) in &spec.ignition.files {
        let number = |id: &Option<Id>, kind, known: &BTreeMap<String, u32>| match id {
            None => Ok(0),
            Some(Id::Number(number)) => Ok(*number),
            Some(Id::Name(name)) => {
                let nobody = || WantedError::Nobody { path: path.clone(), kind, name: name.clone() };
                known.get(name).copied().ok_or_else(nobody)
            }
        };
        let entry = Entry::File {
            bytes: file.contents.as_ref().map(|contents| contents.bytes.clone()).unwrap_or_default(),
            mode: file.mode.unwrap_or(ignition::DEFAULT_MODE),
            uid: number(&file.user, "user", &users)?,
            gid: number(&file.group, "group", &groups)?,
        };
        out.entries.insert(path.clone(), entry);
    }
    Ok(())
}

fn units(spec: &Spec, host: &Host, out: &mut Wanted) -> Result<(), WantedError> {
    let nothing = || Entry::Link { target: "/dev/null".into() };
    for (name, unit) in &spec.ignition.units {
        let path = Path::new(UNITS).join(name);
        if unit.mask == Some(true) {
            out.entries.insert(path, nothing());
        } else if let Some(text) = &unit.contents {
            out.entries.insert(path, Entry::file(text.as_str(), 0o644));
        } else if unit.mask == Some(false) && host.read(&path)? == nothing() {
            out.entries.insert(path, Entry::Absent);
        }
        for (dropin, text) in &unit.dropins {
            let path = Path::new(UNITS).join(format!("{name}.d")).join(dropin);
            let entry = if text.is_empty() { Entry::Absent } else { Entry::file(text.as_str(), 0o644) };
            out.entries.insert(path, entry);
        }
        // A masked unit can be neither enabled nor disabled.
        if unit.mask != Some(true) && (unit.enabled.is_some() || unit.contents.is_some()) {
            out.units.insert(name.clone(), unit.enabled);
        }
    }
    Ok(())
}

fn keys(spec: &Spec, host: &Host, out: &mut Wanted) -> Result<(), WantedError> {
    let Some(core) = spec.ignition.core.as_ref().filter(|core| !core.ssh_keys.is_empty()) else { return Ok(()) };
    let uid = *host.accounts("/etc/passwd").get("core").ok_or(WantedError::NoCore)?;
    let gid = host.accounts("/etc/group").get("core").copied().unwrap_or(uid);
    let mut bytes = core.ssh_keys.join("\n").into_bytes();
    bytes.push(b'\n');
    out.entries.insert(KEYS.into(), Entry::File { bytes, mode: 0o600, uid, gid });
    Ok(())
}

/// The shell reads this file, so every character is quoted.
fn boot_loader(arguments: &[String]) -> String {
    let quoted = arguments.join(" ").replace('\'', r"'\''");
    format!(
        "# Written by machine-config-daemon; changes are undone.\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX \"'{quoted}'\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(fields: Value) -> Spec {
        Spec::parse(&fields).unwrap()
    }

    fn with(section: Value) -> Spec {
        let mut config = json!({"ignition": {"version": "3.2.0"}});
        config.as_object_mut().unwrap().extend(section.as_object().unwrap().clone());
        spec(json!({"config": config}))
    }

    fn of(spec: &Spec, host: &Host) -> Result<Wanted, WantedError> {
        wanted(spec, Some("v1"), host, &Engine::containerd(), &Record::baseline())
    }

    #[test]
    fn what_this_node_cannot_do_is_refused_by_name() {
        let able = Capabilities { units: true, reboot: true };
        let unit = json!({"systemd": {"units": [{"name": "a.service"}]}});
        let password = json!({"passwd": {"users": [{"name": "core", "passwordHash": "x"}]}});
        for (new, node, want) in [
            (spec(json!({})), Capabilities::default(), &[][..]),
            (spec(json!({"osImageURL": "x"})), able, &["osImageURL"]),
            (spec(json!({"kernelType": "realtime"})), able, &["kernelType"]),
            (spec(json!({"kernelArguments": ["a"]})), able, &[]),
            (spec(json!({"kernelArguments": ["a"]})), Capabilities::default(), &["kernelArguments"]),
            (spec(json!({"extensions": ["kata-containers", "sandboxed-containers"]})), able, &[]),
            (spec(json!({"extensions": ["usbguard"]})), able, &["extensions"]),
            (spec(json!({"fips": true})), able, &["fips"]),
            (with(unit.clone()), able, &[]),
            (with(unit), Capabilities::default(), &["systemd.units"]),
            (with(password), able, &["passwd.users.core.passwordHash"]),
        ] {
            let found = refusals(&Spec::default(), &new, node);
            assert_eq!(found.iter().map(|refusal| refusal.part.as_str()).collect::<Vec<_>>(), want);
        }
    }

    #[test]
    fn units_become_files_links_and_enablements() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        host.put(Path::new("/etc/systemd/system/was.service"), &Entry::Link { target: "/dev/null".into() }).unwrap();
        let found = of(
            &with(json!({"systemd": {"units": [
                {"name": "a.service", "contents": "x", "enabled": true, "dropins": [{"name": "1.conf", "contents": "y"}, {"name": "2.conf"}]},
                {"name": "b.service", "contents": "x"},
                {"name": "hidden.service", "mask": true, "enabled": true},
                {"name": "was.service", "mask": false},
                {"name": "never.service", "mask": false},
                {"name": "c.service", "enabled": false}]}})),
            &host,
        )
        .unwrap();
        let at = |name: &str| found.entries.get(&Path::new(UNITS).join(name)).cloned();
        assert_eq!(at("a.service"), Some(Entry::file("x", 0o644)));
        assert_eq!(at("a.service.d/1.conf"), Some(Entry::file("y", 0o644)));
        assert_eq!(at("a.service.d/2.conf"), Some(Entry::Absent));
        assert_eq!(at("hidden.service"), Some(Entry::Link { target: "/dev/null".into() }));
        assert_eq!(at("was.service"), Some(Entry::Absent));
        assert_eq!((at("never.service"), at("c.service")), (None, None));
        let units: Vec<_> = found.units.iter().map(|(name, enabled)| (name.as_str(), *enabled)).collect();
        assert_eq!(units, [("a.service", Some(true)), ("b.service", None), ("c.service", Some(false))]);
    }

    #[test]
    fn owners_are_looked_up_on_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        host.put(Path::new("/etc/passwd"), &Entry::file("core:x:7:8::/home/core:/bin/sh\n", 0o644)).unwrap();
        let file = |user: &str| with(json!({"storage": {"files": [{"path": "/f", "user": {"name": user}}]}}));
        assert_eq!(
            of(&file("core"), &host).unwrap().entries[Path::new("/f")],
            Entry::File { bytes: vec![], mode: 0o644, uid: 7, gid: 0 }
        );
        assert!(matches!(of(&file("bob"), &host), Err(WantedError::Nobody { name, .. }) if name == "bob"));
        let keys = with(json!({"passwd": {"users": [{"name": "core", "sshAuthorizedKeys": ["a", "b"]}]}}));
        let found = of(&keys, &host).unwrap();
        assert_eq!(
            found.entries[Path::new("/home/core/.ssh/authorized_keys")],
            Entry::File { bytes: b"a\nb\n".into(), mode: 0o600, uid: 7, gid: 7 }
        );
        assert!(matches!(of(&keys, &Host::new(dir.path().join("else"))), Err(WantedError::NoCore)));
    }

    #[test]
    fn sandboxes_are_a_link_and_a_drop_in() {
        let dir = tempfile::tempdir().unwrap();
        let found = of(&spec(json!({"extensions": ["sandboxed-containers"]})), &Host::new(dir.path())).unwrap();
        let paths: Vec<_> = found.entries.keys().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["/etc/containerd/config.toml", "/opt/sandboxed-containers/current", SHIM_LINK]);
        assert_eq!(found.payload.as_deref(), Some("v1"));
    }

    #[test]
    fn a_log_level_for_cri_o_is_one_for_containerd() {
        let dir = tempfile::tempdir().unwrap();
        for (text, want) in [
            ("[crio.runtime]\nlog_level = \"debug\"\n", Some("debug")),
            ("[crio.runtime]\npids_limit = 1\n", None),
            ("nonsense", None),
        ] {
            let mut spec = with(json!({"storage": {"files": [{"path": LOG_LEVEL,
                "contents": {"source": ignition::data_url(text.as_bytes())}}]}}));
            spec.extensions = vec!["kata-containers".into()];
            let found = of(&spec, &Host::new(dir.path())).unwrap();
            let Entry::File { bytes, .. } = &found.entries[Path::new("/etc/containerd/config.toml")] else {
                panic!("a file")
            };
            let table: toml::Table = std::str::from_utf8(bytes).unwrap().parse().unwrap();
            assert_eq!(table.get("debug").and_then(|debug| debug["level"].as_str()), want, "{text}");
        }
    }

    #[test]
    fn a_configuration_and_the_runtime_can_share_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        host.put(Path::new("/etc/containerd/config.toml"), &Entry::file("version = 2 # shipped\n", 0o644)).unwrap();
        let mut spec = with(json!({"storage": {"files": [{"path": "/etc/containerd/config.toml",
            "contents": {"source": "data:,version%20%3D%202%20%23%20theirs%0A"}}]}}));
        spec.extensions = vec!["kata-containers".into()];
        let found = of(&spec, &host).unwrap();
        let Entry::File { bytes, .. } = &found.entries[Path::new("/etc/containerd/config.toml")] else {
            panic!("a file")
        };
        let text = String::from_utf8_lossy(bytes);
        assert!(text.contains("# theirs") && text.contains("runtimes.kata"), "{text}");
    }

    #[test]
    fn kernel_arguments_cannot_leave_their_quotes() {
        let text = boot_loader(&["a='b'".into(), "$(reboot)".into()]);
        assert!(text.ends_with("\"$GRUB_CMDLINE_LINUX \"'a='\\''b'\\'' $(reboot)'\n"), "{text}");
    }
}
