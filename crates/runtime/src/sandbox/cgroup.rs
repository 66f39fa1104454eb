//! Host control groups of a sandbox, on version 1 and version 2 hosts
//! (kernel documentation `cgroup-v1/cgroups.rst`, `cgroup-v2.rst`).
//!
//! A pod's own group is made by the orchestrator and belongs to it; we add one
//! child `kata_<sandbox>` to it, and `/kata_overhead/<sandbox>` beside it when only
//! the virtual processors are to be charged to the pod. A group never holds
//! anything but the processes of its sandbox, so whatever is in there may be killed.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{dirs::Dirs, id::SandboxId};

/// Where hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Parent of the groups of everything that is not charged to pods.
const OVERHEAD: &str = "kata_overhead";
/// How often a group is made when somebody removes what is above it.
const ATTEMPTS: u32 = 5;

/// Version of the hierarchy a host runs its containers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug)]
struct Hierarchy {
    mount: PathBuf,
    /// Controllers as `/proc/<pid>/cgroup` lists them; empty for version 2.
    controllers: String,
}

/// The hierarchies of this host.
#[derive(Clone, Debug)]
pub struct Cgroups {
    version: Version,
    hierarchies: Vec<Hierarchy>,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    /// Makes the group `path`. A parent that was empty may be removed by the end of
    /// another sandbox in between: then it is made again.
    fn make(&self, path: &Path) -> io::Result<()> {
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            outcome = if self.has("cpuset") {
                make_cpuset(&self.mount, path)
            } else {
                fs::create_dir_all(self.mount.join(path))
            };
            match &outcome {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
        }
        outcome
    }
}

/// Resource usage of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory in bytes.
    pub memory: u64,
}

impl Cgroups {
    /// Finds the hierarchies. A host without any gets none, and every operation
    /// then does nothing.
    pub fn detect() -> Self {
        let root = Path::new(ROOT);
        if statfs(root).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC) {
            let unified = Hierarchy { mount: root.into(), controllers: String::new() };
            return Self { version: Version::V2, hierarchies: vec![unified] };
        }
        let listed = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let hierarchies = listed.lines().filter_map(|line| {
            let controllers = line.split(':').nth(1)?;
            // Named hierarchies control nothing; they belong to the service manager.
            if controllers.is_empty() || controllers.starts_with("name=") {
                return None;
            }
            let names = std::iter::once(controllers).chain(controllers.split(','));
            let mount = names
                .map(|name| root.join(name))
                .find(|mount| statfs(mount).is_ok_and(|fs| fs.filesystem_type() == CGROUP_SUPER_MAGIC))?;
            Some(Hierarchy { mount, controllers: controllers.into() })
        });
        Self { version: Version::V1, hierarchies: hierarchies.collect() }
    }

    /// The version in use.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Makes the group `path` in every hierarchy and moves the calling process
    /// there, so that all it starts is born inside.
    ///
    /// # Errors
    /// The first failure; groups made before it stay for [`remove`](Self::remove).
    pub fn enter(&self, path: &Path) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            hierarchy.make(path)?;
            fs::write(hierarchy.mount.join(path).join("cgroup.procs"), std::process::id().to_string())?;
        }
        Ok(())
    }

    /// Groups above `path` that do not exist in any hierarchy, deepest first.
    pub fn missing_parents(&self, path: &Path) -> Vec<PathBuf> {
        let parents = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        let there = |parent: &Path| self.hierarchies.iter().any(|hierarchy| hierarchy.mount.join(parent).exists());
        parents.take_while(|parent| !there(parent)).map(Path::to_owned).collect()
    }

    /// Moves single threads to the group `path`, which is made. Version 2 takes no
    /// threads into an ordinary group: nothing happens then.
    ///
    /// # Errors
    /// The first failure.
    pub fn place_threads(&self, path: &Path, threads: &[u32]) -> io::Result<()> {
        if self.version == Version::V2 {
            return Ok(());
        }
        for hierarchy in &self.hierarchies {
            hierarchy.make(path)?;
            for thread in threads {
                fs::write(hierarchy.mount.join(path).join("tasks"), thread.to_string())?;
            }
        }
        Ok(())
    }

    /// Moves the calling process to where `home` says it was.
    pub fn leave(&self, home: &Home) {
        for (hierarchy, path) in self.hierarchies.iter().zip(&home.0) {
            let procs = hierarchy.mount.join(path).join("cgroup.procs");
            // The engine may have removed the group meanwhile; the root always takes us.
            if fs::write(procs, std::process::id().to_string()).is_err() {
                let _ = fs::write(hierarchy.mount.join("cgroup.procs"), std::process::id().to_string());
            }
        }
    }

    /// Where the calling process is now.
    pub fn home(&self) -> Home {
        let listed = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path_of = |hierarchy: &Hierarchy| {
            listed.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                (fields.next()? == hierarchy.controllers).then(|| relative(Path::new(fields.next().unwrap_or("/"))))
            })
        };
        Home(self.hierarchies.iter().map(|hierarchy| path_of(hierarchy).unwrap_or_default()).collect())
    }

    /// Processes in the group `path` of any hierarchy.
    pub fn members(&self, path: &Path) -> Vec<u32> {
        let files = self.hierarchies.iter().map(|hierarchy| hierarchy.mount.join(path).join("cgroup.procs"));
        let mut pids: Vec<u32> = files
            .filter_map(|file| fs::read_to_string(file).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Removes the group `path` everywhere. Success when it is not there.
    ///
    /// # Errors
    /// The last failure, usually `EBUSY` while something still runs inside.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let mut outcome = Ok(());
        for hierarchy in &self.hierarchies {
            match fs::remove_dir(hierarchy.mount.join(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
                _ => {}
            }
        }
        outcome
    }

    /// What the group `path` has used so far.
    pub fn usage(&self, path: &Path) -> Usage {
        let read = |controller: &str, file: &str| {
            let hierarchy =
                self.hierarchies.iter().find(|hierarchy| self.version == Version::V2 || hierarchy.has(controller))?;
            fs::read_to_string(hierarchy.mount.join(path).join(file)).ok()
        };
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        match self.version {
            Version::V1 => Usage {
                cpu_nanos: number(read("cpuacct", "cpuacct.usage")),
                memory: number(read("memory", "memory.usage_in_bytes")),
            },
            Version::V2 => {
                let stat = read("cpu", "cpu.stat").unwrap_or_default();
                let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
                Usage { cpu_nanos: micros.unwrap_or_default() * 1000, memory: number(read("memory", "memory.current")) }
            }
        }
    }
}

/// Where a process was in each hierarchy before it entered a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Home(Vec<PathBuf>);

/// The group of a sandbox whose pod asked for `cgroups_path` (OCI
/// `linux.cgroupsPath`: a path, or `slice:prefix:name` for systemd).
pub fn sandbox_group(cgroups_path: Option<&Path>, dirs: &Dirs, id: &SandboxId) -> PathBuf {
    let own = format!("kata_{}", unique(dirs, id));
    let Some(path) = cgroups_path else { return own.into() };
    match path.to_str().map(|text| text.splitn(3, ':').collect::<Vec<_>>()).as_deref() {
        Some([slice, _, _]) => slice_path(slice).join(own),
        _ => relative(path).parent().map_or_else(|| own.clone().into(), |pod| pod.join(&own)),
    }
}

/// The group of everything of a sandbox that is not charged to its pod.
pub fn overhead_group(dirs: &Dirs, id: &SandboxId) -> PathBuf {
    Path::new(OVERHEAD).join(unique(dirs, id))
}

/// The id, told apart from the same one below another root: groups do not move with
/// the root, and whatever is in a group of ours may be killed.
fn unique(dirs: &Dirs, id: &SandboxId) -> String {
    if dirs.root() == Path::new("/") {
        return id.to_string();
    }
    let digest = Sha256::digest(dirs.root().as_os_str().as_bytes());
    format!("{id}.{}", hex::encode(&digest[..4]))
}

/// systemd.slice(5): `a-b.slice` lies in `a.slice`.
fn slice_path(slice: &str) -> PathBuf {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let dashes = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    dashes.filter(|at| *at > 0).map(|at| format!("{}.slice", &stem[..at])).collect()
}

/// `path` without its root and without steps upwards.
fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// Makes a cpuset group and everything above it usable: a new one is empty and
/// takes no process until it has processors and memory nodes.
fn make_cpuset(mount: &Path, path: &Path) -> io::Result<()> {
    let mut group = mount.to_path_buf();
    for part in path.components() {
        let parent = group.clone();
        group.push(part);
        fs::create_dir_all(&group)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(group.join(file))?.trim().is_empty() {
                fs::write(group.join(file), fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_sandbox_gets_a_child_of_its_pods_group() {
        let (id, dirs) = (SandboxId::new("s1").unwrap(), Dirs::default());
        for (asked, want) in [
            (None, "kata_s1"),
            (Some("/s1"), "kata_s1"),
            (Some("/kubepods/burstable/pod7/s1"), "kubepods/burstable/pod7/kata_s1"),
            (Some("../../x/s1"), "x/kata_s1"),
            (
                Some("kubepods-burstable-pod7.slice:cri-containerd:s1"),
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice/kata_s1",
            ),
            (Some("system.slice:docker:s1"), "system.slice/kata_s1"),
        ] {
            assert_eq!(sandbox_group(asked.map(Path::new), &dirs, &id), Path::new(want), "{asked:?}");
        }
        assert_eq!(overhead_group(&dirs, &id), Path::new("kata_overhead/s1"));
    }

    #[test]
    fn sandboxes_of_two_roots_never_share_a_group() {
        let id = SandboxId::new("s1").unwrap();
        let groups = ["/", "/a", "/b"].map(|root| sandbox_group(None, &Dirs::new(root), &id));
        assert!(groups[0] != groups[1] && groups[1] != groups[2], "{groups:?}");
        assert!(groups.iter().all(|group| group.to_str().unwrap().starts_with("kata_s1")), "{groups:?}");
    }

    /// Runs in a child, because entering a group moves the whole process.
    #[test]
    fn a_process_enters_and_leaves() {
        const VARIABLE: &str = "OSC_TEST_CGROUP_CHILD";
        let group = PathBuf::from(format!("osc-test-{}", std::process::id()));
        let cgroups = Cgroups::detect();
        if let Some(group) = std::env::var_os(VARIABLE) {
            let home = cgroups.home();
            cgroups.enter(Path::new(&group)).unwrap();
            assert_eq!(cgroups.members(Path::new(&group)), [std::process::id()]);
            cgroups.leave(&home);
            assert_eq!(cgroups.members(Path::new(&group)), [0u32; 0]);
            return;
        }
        let this = std::env::current_exe().unwrap();
        let status = Command::new(this)
            .args(["--exact", "sandbox::cgroup::tests::a_process_enters_and_leaves"])
            .env(VARIABLE, &group)
            .status()
            .unwrap();
        cgroups.remove(&group).unwrap();
        cgroups.remove(&group).unwrap();
        assert!(status.success());
    }
}
