//! Removing what an engine leaves behind, knowing only its names.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs},
    },
    unistd::Pid,
};
use osc_agent_protocol::kind::chain;
use osc_runtime::{deadline::Deadline, id::SandboxId, sandbox};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{
    POLL,
    error::EngineError,
    filter, kata,
    mounts::{below, unmount_below},
    paths::Paths,
    process,
};

/// How long killed shims get to go.
const KILL: Duration = Duration::from_secs(10);

/// Removes our configuration, and directories that are empty now.
fn remove_installed(paths: &Paths) {
    let config = paths.kata_config();
    if kata::is_ours(&config) {
        let _ = fs::remove_file(&config); // a leftover file does no harm
    }
    let root = paths.dirs().root();
    let shared = root.join("run/kata-containers/shared/sandboxes");
    let (state, run) = (paths.dirs().state(), paths.dirs().run());
    for leaf in [
        config.with_file_name("config.d"),
        paths.pod_logs(),
        paths.log_links(),
        state,
        run,
        paths.dirs().sandboxes(),
        shared,
    ] {
        // Of the system's own directories none is empty.
        for dir in leaf.ancestors().take_while(|dir| *dir != root && dir.starts_with(root)) {
            let _ = fs::remove_dir(dir); // in use by somebody else
        }
    }
}

/// Tries every step, then looks whether anything is left.
pub(super) async fn sweep(paths: &Paths, purge: bool) -> Result<(), EngineError> {
    let mut tasks = task_ids(paths);
    tasks.extend(end_shims(paths).await);
    let mut left = Vec::new();
    remove_sockets(paths, &tasks);
    for dir in [paths.live(), paths.content(), paths.pods()] {
        note(&mut left, &dir, unmount_below(&dir));
    }
    remove_network(paths, &tasks, &mut left).await;
    remove_sandboxes(paths, &tasks, &mut left).await;
    remove_cgroups(paths, &mut left).await;
    let run = paths.dirs().run();
    note(&mut left, &run, remove_tree(&run));
    let _ = fs::remove_file(paths.short_run()); // mostly not there
    // Made again when they are missed; what made them has ended with the shims.
    let templates = paths.dirs().templates();
    note(&mut left, &templates, remove_tree(&templates));
    if purge {
        let state = paths.dirs().state();
        note(&mut left, &state, remove_tree(&state));
        remove_installed(paths);
    }
    left.extend(remaining(paths));
    if left.is_empty() { Ok(()) } else { Err(EngineError::Left(left)) }
}

fn note(left: &mut Vec<String>, what: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        left.push(format!("{} ({error})", what.display()));
    }
}

/// Ids of containers whose bundles exist.
fn task_ids(paths: &Paths) -> Vec<String> {
    let entries = fs::read_dir(paths.bundles()).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Shims carry the engine's socket and an id on their command line. Returns the ids:
/// an engine that ended in the middle of a deletion may have no bundle for them. Again
/// until none is left: until it is gone, a shim may start another, to make a template.
async fn end_shims(paths: &Paths) -> Vec<String> {
    let deadline = Deadline::after(KILL);
    let mut ids = Vec::new();
    loop {
        let shims = process::with_argument(&paths.socket().to_string_lossy());
        if shims.is_empty() || deadline.passed() {
            return ids;
        }
        for pid in shims {
            let line = process::command_line(pid.as_raw());
            ids.extend(line.iter().position(|word| word == "-id").and_then(|at| line.get(at + 1)).cloned());
            if !process::end(pid, Deadline::after(KILL)).await {
                tracing::warn!(pid = pid.as_raw(), "shim does not end");
            }
        }
    }
}

/// Cleans up after the shims of virtual machines. Container ids are those of
/// sandboxes too, and cleaning up after one that never was does nothing.
async fn remove_sandboxes(paths: &Paths, tasks: &[String], left: &mut Vec<String>) {
    for id in tasks.iter().filter_map(|id| SandboxId::new(id.clone()).ok()) {
        if paths.dirs().sandbox(&id).exists() || paths.dirs().share(&id).exists() {
            let failures = sandbox::cleanup(paths.dirs(), &id, Deadline::after(KILL)).await;
            left.extend(failures.iter().map(|failure| format!("sandbox {id} ({})", chain(failure))));
        }
    }
}

/// Kills what still runs in the cgroups of pods, containers above all, as without
/// their shim nobody else does, and removes the cgroups. Again until nothing is
/// left: processes may fork, and take their time to go.
async fn remove_cgroups(paths: &Paths, left: &mut Vec<String>) {
    let deadline = Deadline::after(KILL);
    let cgroup = paths.cgroup();
    for dir in cgroup_roots().iter().map(|root| root.join(cgroup.strip_prefix("/").unwrap_or(&cgroup))) {
        let mut result = remove_cgroup(&dir);
        while result.is_err() && !deadline.passed() {
            let mut pids = Vec::new();
            processes_below(&dir, &mut pids);
            for pid in pids {
                let _ = kill(pid, Signal::SIGKILL); // it may have just ended
            }
            tokio::time::sleep(POLL).await;
            result = remove_cgroup(&dir);
        }
        note(left, &dir, result);
    }
}

fn processes_below(cgroup: &Path, pids: &mut Vec<Pid>) {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let found = text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).map(Pid::from_raw);
    pids.extend(found);
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes_below(&entry.path(), pids);
        }
    }
}

/// Sockets of runc shims lie outside the root: their place is built into
/// containerd (`/run/containerd/s/<sha256 of address, namespace and id>`).
fn remove_sockets(paths: &Paths, tasks: &[String]) {
    for id in tasks {
        let name = Sha256::digest(format!("{}/k8s.io/{id}", paths.socket().display()));
        let _ = fs::remove_file(format!("/run/containerd/s/{}", hex::encode(name))); // most shims removed theirs
    }
}

/// Removes the bridge, results cached by CNI, and packet filter rules.
async fn remove_network(paths: &Paths, tasks: &[String], left: &mut Vec<String>) {
    if link_exists(&paths.bridge()) {
        run("ip", &["link", "delete", &paths.bridge()]).await;
    }
    let own = format!("{}-", paths.network());
    let loopback = |name: &str| tasks.iter().any(|id| name.starts_with(&format!("cni-loopback-{id}-")));
    for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&own) || loopback(&name) {
            let _ = fs::remove_file(entry.path()); // may be removed by the plugin just now
        }
    }
    if let Err(error) = filter::remove(&paths.network()).await {
        left.push(format!("packet filter rules of {} ({error})", paths.network()));
    }
}

async fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    let failed = match tokio::time::timeout(KILL, command.output()).await {
        Ok(Ok(output)) if output.status.success() => return,
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no end".into(),
    };
    tracing::warn!(program, ?arguments, error = failed, "clean-up command failed");
}

fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Roots of all cgroup hierarchies, version 1 and 2, that can be reached, each where it
/// was mounted first: others may be read-only, for somebody with a root of his own. The
/// table of mounts also has those that another mount hides.
pub(crate) fn cgroup_roots() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    let kinds = [("cgroup", CGROUP_SUPER_MAGIC), ("cgroup2", CGROUP2_SUPER_MAGIC)];
    let mut roots: Vec<PathBuf> = Vec::new();
    let mut hierarchies: Vec<u64> = Vec::new();
    for fields in table.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
        let (Some(at), Some(kind)) = (fields.get(1).map(PathBuf::from), fields.get(2)) else { continue };
        let Some((_, magic)) = kinds.iter().find(|(name, _)| name == kind) else { continue };
        // Only a cgroup that is not the root of its hierarchy has a type.
        let reached =
            statfs(&at).is_ok_and(|found| found.filesystem_type() == *magic) && !at.join("cgroup.type").exists();
        let Some(hierarchy) = fs::metadata(&at).ok().map(|found| found.dev()).filter(|_| reached) else { continue };
        if !hierarchies.contains(&hierarchy) {
            hierarchies.push(hierarchy);
            roots.push(at);
        }
    }
    roots
}

/// Removes a cgroup and those below it. A cgroup that still has processes stays.
pub(crate) fn remove_cgroup(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a tree, after making sure that no mount is left in it.
fn remove_tree(dir: &Path) -> io::Result<()> {
    unmount_below(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is still there of everything an engine makes outside its state directory.
fn remaining(paths: &Paths) -> Vec<String> {
    let socket = paths.socket();
    let shims = process::with_argument(&socket.to_string_lossy());
    let config = process::with_argument(&paths.config().to_string_lossy());
    let mut left: Vec<String> = shims.into_iter().chain(config).map(|pid| format!("process {pid}")).collect();
    for dir in [paths.dirs().run(), paths.dirs().state()] {
        left.extend(below(&dir).into_iter().map(|at| format!("mount {}", at.display())));
    }
    left.extend(link_exists(&paths.bridge()).then(|| format!("link {}", paths.bridge())));
    left
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    #[test]
    fn a_hierarchy_that_is_mounted_twice_counts_once() {
        let before = cgroup_roots();
        let dir = tempfile::tempdir().expect("tempdir");
        let (again, first) = (dir.path().to_owned(), before[0].clone());
        let seen = thread::spawn(move || {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
            mount(Some(&first), &again, none, MsFlags::MS_BIND, none).expect("bind");
            mount(none, &again, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).expect("ro");
            cgroup_roots()
        });
        assert_eq!(seen.join().expect("roots"), before);
    }
}
