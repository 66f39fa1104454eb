use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, process::Command};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use osc_fault::chain;
use serde_json::{Value, json};

use super::{
    record::Record,
    rules::{Action, Rule},
    testing::{ABORT_AT, put, updater},
    update::{Ended, Recovered, UpdateError, Updater},
};
use crate::payload::store::testing::sample;

/// Environment variable: root of the node a child process updates.
const CHILD_ROOT: &str = "OSC_TEST_ROOT";

/// All files below `root` with what they hold, roots left out of it; neither
/// payload versions nor temporary files of the daemon's own directory.
pub(super) fn snapshot(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if kind.is_dir() {
                if !name.starts_with("opt/sandboxed-containers/") {
                    walk(root, &path, out);
                }
                continue;
            }
            let text = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_file() {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            } else {
                "special".into()
            };
            if !name.contains("machine-config-daemon/") || name.ends_with("orig") {
                out.insert(name, text);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

fn relative(root: &Path) -> BTreeMap<String, String> {
    let text = root.display().to_string();
    snapshot(root).into_iter().map(|(name, content)| (name, content.replace(&text, "ROOT"))).collect()
}

fn config(files: &[(&str, &str)], units: Value, more: Value) -> Value {
    let files: Vec<Value> = files
        .iter()
        .map(|(path, text)| json!({"path": path, "contents": {"source": crate::ignition::data_url(text.as_bytes())}}))
        .collect();
    let mut spec =
        json!({"config": {"ignition": {"version": "3.2.0"}, "storage": {"files": files}, "systemd": {"units": units}}});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    spec
}

fn first() -> Value {
    let units = json!([{"name": "a.service", "contents": "one", "enabled": true}]);
    config(&[("/etc/a", "1"), ("/etc/shipped", "ours")], units, json!({}))
}

fn second() -> Value {
    let units = json!([{"name": "a.service", "contents": "two", "enabled": true},
        {"name": "b.service", "contents": "new", "enabled": true, "dropins": [{"name": "x.conf", "contents": "y"}]}]);
    config(&[("/etc/a", "2"), ("/etc/b", "new")], units, json!({"extensions": ["sandboxed-containers"]}))
}

async fn change(updater: &Updater, to: &str, spec: &Value, force: bool) -> Result<Ended, UpdateError> {
    let record = Record::load(&updater.host).unwrap().unwrap_or_else(Record::baseline);
    let prepared = updater.prepare(&record, to, spec, force).await?;
    updater.apply(prepared).await
}

fn runs(updater: &Updater) -> String {
    Record::load(&updater.host).unwrap().map(|record| record.name).unwrap_or_default()
}

/// A directory in memory: hundreds of files are synced.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

#[tokio::test]
async fn row_24_killed_at_any_step_a_node_is_one_thing_or_the_other() {
    if let (Some(root), true) = (std::env::var_os(CHILD_ROOT), std::env::var_os(ABORT_AT).is_some()) {
        let root = Path::new(&root);
        let node = updater(root, Some(&root.with_file_name("payload")));
        change(&node, "second", &second(), false).await.unwrap();
        return;
    }
    let dir = directory();
    let payload = sample(dir.path(), "payload", "1");
    let (mut step, mut undone, mut finished) = (0, 0, 0);
    let states = reference_states(dir.path(), &payload).await;
    loop {
        step += 1;
        let root = dir.path().join("node");
        fs::create_dir(&root).unwrap();
        put(&root, "/etc/shipped", "theirs");
        let node = updater(&root, Some(&payload));
        change(&node, "first", &first(), false).await.unwrap();
        let test = "daemon::tests::row_24_killed_at_any_step_a_node_is_one_thing_or_the_other";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(CHILD_ROOT, &root)
            .env(ABORT_AT, step.to_string())
            .output()
            .unwrap();
        if child.status.success() {
            break;
        }
        assert!(step < 200, "the child dies of something else: {}", String::from_utf8_lossy(&child.stderr));
        let recovered = node.recover().await.unwrap();
        let now = relative(&root);
        match runs(&node).as_str() {
            "first" => assert_eq!(now, states[0], "step {step}"),
            _ => assert_eq!(now, states[1], "step {step}"),
        }
        undone += usize::from(recovered == Recovered::Undone);
        finished += usize::from(recovered == Recovered::Finished);
        assert_eq!(node.recover().await.unwrap(), Recovered::Nothing, "step {step}");
        change(&node, "second", &second(), false).await.unwrap();
        assert_eq!(relative(&root), states[1], "step {step}");
        let record = Record::load(&node.host).unwrap().unwrap();
        assert_eq!(node.collect(&record).await.unwrap().gone, Vec::<String>::new());
        assert!(
            !fs::read_dir(root.join("opt/sandboxed-containers"))
                .unwrap()
                .any(|entry| { entry.unwrap().file_name().to_string_lossy().ends_with(".partial") })
        );
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(step > 40 && undone > 20 && finished >= 1, "{step} steps, {undone} undone, {finished} finished");
}

/// What a node looks like that nobody kills, before and after.
async fn reference_states(dir: &Path, payload: &Path) -> [BTreeMap<String, String>; 2] {
    let root = dir.join("reference");
    put(&root, "/etc/shipped", "theirs");
    let node = updater(&root, Some(payload));
    change(&node, "first", &first(), false).await.unwrap();
    let before = relative(&root);
    change(&node, "second", &second(), false).await.unwrap();
    let after = relative(&root);
    assert_ne!(before, after);
    assert_eq!(after["etc/shipped"], "theirs");
    assert!(
        after["etc/crio/crio.conf.d/50-kata"]
            .contains("ROOT/opt/sandboxed-containers/current/bin/containerd-shim-kata-v2")
    );
    assert!(after["seen"].contains("50-kata"), "the engine read it");
    [before, after]
}

#[tokio::test]
async fn row_23_a_unit_that_cannot_be_enabled_brings_the_old_files_back() {
    let dir = directory();
    let node = updater(dir.path(), None);
    change(&node, "first", &first(), false).await.unwrap();
    let before = relative(dir.path());
    put(dir.path(), "/broken/b.service", "");
    let spec = config(&[("/etc/a", "2")], json!([{"name": "b.service", "contents": "x", "enabled": true}]), json!({}));
    // Undoing asks for the unit as well: it is not ended before that works.
    assert!(matches!(change(&node, "second", &spec, false).await, Err(UpdateError::NotUndone { .. })));
    fs::remove_file(dir.path().join("broken/b.service")).unwrap();
    assert_eq!(node.recover().await.unwrap(), Recovered::Undone);
    let mut now = relative(dir.path());
    now.remove("seen");
    let mut before = before;
    before.remove("seen");
    assert_eq!(now, before);
    change(&node, "second", &spec, false).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_does_not_come_back_keeps_the_node_as_it_was() {
    let (dir, parts) = (directory(), directory());
    let payload = sample(parts.path(), "p", "1");
    let node = updater(dir.path(), Some(&payload));
    let crio = config(&[("/etc/crio/crio.conf.d/x", "1")], json!([]), json!({}));
    change(&node, "first", &crio, false).await.unwrap();
    let before = relative(dir.path());
    put(dir.path(), "/broken/engine", "");
    let bad = config(&[("/etc/crio/crio.conf.d/x", "bad")], json!([]), json!({"extensions": ["kata-containers"]}));
    let error = change(&node, "second", &bad, false).await.unwrap_err();
    assert!(chain(&error).contains("engine is broken"), "{error}");
    fs::remove_file(dir.path().join("broken/engine")).unwrap();
    assert!(matches!(node.recover().await.unwrap(), Recovered::Undone | Recovered::Nothing));
    assert_eq!((relative(dir.path()), runs(&node).as_str()), (before, "first"));
    change(&node, "second", &bad, false).await.unwrap();
    assert_eq!(runs(&node), "second");
}

/// A file system of its own below the node's root.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn at(path: &Path, options: &str, flags: MsFlags) -> Self {
        fs::create_dir_all(path).unwrap();
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).unwrap();
        Self(path.into())
    }

    fn remount(&self, options: &str, flags: MsFlags) {
        mount(Some("tmpfs"), &self.0, Some("tmpfs"), flags | MsFlags::MS_REMOUNT, Some(options)).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH); // the directory below it is removed next
    }
}

#[tokio::test]
async fn a_full_disk_or_a_read_only_one_changes_nothing_and_is_got_over() {
    let (dir, parts) = (directory(), directory());
    let payload = sample(parts.path(), "p", "1");
    let node = updater(dir.path(), Some(&payload));
    change(&node, "first", &first(), false).await.unwrap();
    let before = relative(dir.path());
    let full = Tmpfs::at(&dir.path().join("opt"), "size=16k", MsFlags::empty());
    let error = change(&node, "second", &second(), false).await.unwrap_err();
    assert!(chain(&error).contains("No space left on device"), "{}", chain(&error));
    assert_eq!(relative(dir.path()), before);
    full.remount("size=16m", MsFlags::empty());
    let fixed = Tmpfs::at(&dir.path().join("etc/crio"), "", MsFlags::MS_RDONLY);
    let error = change(&node, "second", &second(), false).await.unwrap_err();
    assert!(matches!(error, UpdateError::Undone(_)), "{}", chain(&error));
    assert!(chain(&error).contains("Read-only file system"), "{}", chain(&error));
    assert_eq!((relative(dir.path()), node.recover().await.unwrap()), (before, Recovered::Nothing));
    fixed.remount("", MsFlags::empty());
    change(&node, "second", &second(), false).await.unwrap();
    assert_eq!(runs(&node), "second");
}

#[tokio::test]
async fn what_is_no_file_is_never_replaced_and_stops_the_update() {
    let dir = directory();
    let node = updater(dir.path(), None);
    change(&node, "first", &first(), false).await.unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir(at("etc/directory")).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&at("etc/device"), nix::sys::stat::SFlag::S_IFCHR, mode, null).unwrap();
    symlink("loop", at("etc/loop")).unwrap();
    let before = relative(dir.path());
    for (path, want) in [
        ("/etc/directory", "no regular file"),
        ("/etc/device", "no regular file"),
        ("/etc/a/below", "File exists"),
        ("/etc/loop/below", "symbolic links"),
    ] {
        // One that could be written comes first: it is undone.
        let spec = config(&[("/etc/0", "x"), (path, "x")], json!([]), json!({}));
        let error = change(&node, "second", &spec, false).await.unwrap_err();
        assert!(chain(&error).contains(want), "{path}: {}", chain(&error));
        assert_eq!((relative(dir.path()), runs(&node).as_str()), (before.clone(), "first"), "{path}");
        assert_eq!(node.recover().await.unwrap(), Recovered::Nothing, "{path}");
    }
}

#[tokio::test]
async fn a_link_in_place_of_a_file_is_replaced_and_comes_back_and_its_target_is_untouched() {
    let dir = directory();
    let node = updater(dir.path(), None);
    put(dir.path(), "/etc/target", "theirs");
    symlink("target", dir.path().join("etc/link")).unwrap();
    let spec = config(&[("/etc/link", "ours")], json!([]), json!({}));
    change(&node, "first", &spec, false).await.unwrap();
    let now = relative(dir.path());
    assert_eq!((now["etc/link"].as_str(), now["etc/target"].as_str()), ("ours", "theirs"));
    change(&node, "none", &json!({}), false).await.unwrap();
    let now = relative(dir.path());
    assert_eq!((now["etc/link"].as_str(), now["etc/target"].as_str()), ("-> target", "theirs"));
}

#[tokio::test]
async fn a_rule_of_the_cluster_restarts_a_service_and_a_rule_of_the_node_outranks_it() {
    let dir = directory();
    let rule = |actions: Vec<Action>| Rule { path: "/etc/chrony.conf".into(), actions, drain: false };
    let mut node = updater(dir.path(), None);
    node.policy = vec![rule(vec![Action::RestartService("chronyd.service".into())])];
    let spec = |text| config(&[("/etc/chrony.conf", text)], json!([]), json!({}));
    change(&node, "first", &spec("1"), false).await.unwrap();
    let seen = || fs::read_to_string(dir.path().join("seen")).unwrap_or_default();
    assert!(seen().contains("chrony.conf"), "the service read it");
    fs::remove_file(dir.path().join("seen")).unwrap();
    node.rules = vec![rule(vec![])];
    change(&node, "second", &spec("2"), false).await.unwrap();
    assert_eq!(seen(), "");
}

#[tokio::test]
async fn row_21_a_refused_configuration_leaves_the_disk_untouched() {
    let dir = directory();
    let node = updater(dir.path(), None);
    change(&node, "first", &first(), false).await.unwrap();
    let before = relative(dir.path());
    for bad in [
        json!({"fips": true}),
        json!({"osImageURL": "x"}),
        json!({"extensions": ["sandboxed-containers"]}),
        json!({"config": {"ignition": {"version": "3.2.0"}, "passwd": {"users": [{"name": "bob"}]}}}),
    ] {
        let error = change(&node, "second", &bad, false).await.unwrap_err();
        assert!(error.unreconcilable(), "{bad}: {error}");
        assert_eq!(relative(dir.path()), before, "{bad}");
    }
}

#[tokio::test]
async fn rows_18_and_20_drift_stops_updates_until_forced() {
    let dir = directory();
    let node = updater(dir.path(), None);
    change(&node, "first", &first(), false).await.unwrap();
    let good = relative(dir.path());
    put(dir.path(), "/etc/a", "edited");
    let error = change(&node, "first", &first(), false).await.unwrap_err();
    assert!(matches!(&error, UpdateError::Drifted(found) if found[0].path == Path::new("/etc/a")), "{error}");
    change(&node, "first", &first(), true).await.unwrap();
    let mut now = relative(dir.path());
    now.remove("seen"); // the engine is restarted in any case
    assert!(good.iter().filter(|(name, _)| name.as_str() != "seen").eq(now.iter()));
}

#[tokio::test]
async fn a_new_payload_is_an_upgrade_and_the_old_one_goes() {
    let (dir, parts) = (directory(), directory());
    let (one, two) = (sample(parts.path(), "p1", "1"), sample(parts.path(), "p2", "2"));
    let node = updater(dir.path(), Some(&one));
    change(&node, "second", &second(), false).await.unwrap();
    let record = || Record::load(&node.host).unwrap().unwrap();
    let old = record();
    assert!(!node.outdated(&old).await.unwrap());
    let node = Updater { payload: Some(two), ..node.clone() };
    assert!(node.outdated(&old).await.unwrap());
    change(&node, "second", &second(), false).await.unwrap();
    let new = Record::load(&node.host).unwrap().unwrap();
    assert_ne!(old.payload, new.payload);
    assert!(!node.outdated(&new).await.unwrap());
    assert_eq!(node.collect(&new).await.unwrap().gone, [old.payload.unwrap()]);
    change(&node, "none", &json!({}), false).await.unwrap();
    assert_eq!(node.collect(&Record::load(&node.host).unwrap().unwrap()).await.unwrap().gone, [new.payload.unwrap()]);
    assert!(!dir.path().join("opt/sandboxed-containers/current").exists());
}

#[tokio::test]
async fn kernel_arguments_take_one_restart_of_the_machine() {
    let dir = directory();
    let node = updater(dir.path(), None);
    let boot = |id: &str, line: &str| {
        put(dir.path(), "/proc/sys/kernel/random/boot_id", id);
        put(dir.path(), "/proc/cmdline", line);
    };
    boot("one", "quiet");
    let spec = json!({"kernelArguments": ["a=1"]});
    let prepared = node.prepare(&Record::baseline(), "args", &spec, false).await.unwrap();
    assert!(prepared.drain && prepared.reboots());
    assert_eq!(node.apply(prepared).await.unwrap(), Ended::Rebooting);
    assert_eq!(node.recover().await.unwrap(), Recovered::Rebooting, "the same boot asks again");
    assert_eq!(fs::read_to_string(dir.path().join("reboots")).unwrap(), "2");
    boot("two", "quiet a=1");
    assert_eq!(node.recover().await.unwrap(), Recovered::Finished);
    let record = Record::load(&node.host).unwrap().unwrap();
    assert_eq!((record.name.as_str(), node.drift(&record).await.unwrap()), ("args", vec![]));
    boot("two", "quiet");
    assert!(node.drift(&record).await.unwrap()[0].what.contains("lacks a=1"));
}
