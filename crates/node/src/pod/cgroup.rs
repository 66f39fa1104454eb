//! The cgroup of a pod, in every hierarchy the machine has. Containers and, with
//! kata, the processes of the sandbox live below it.

use std::{fs, io, path::Path};

use k8s_cri::v1::LinuxContainerResources;

use crate::engine::{cgroup_roots, remove_cgroup};

/// Makes the cgroup and sets its limits. A controller that is not there, or has
/// not been delegated, is no failure: the pod then runs without that limit.
///
/// # Errors
/// When a directory cannot be made or a limit is refused.
pub fn make(cgroup: &Path, resources: &LinuxContainerResources) -> io::Result<()> {
    for root in cgroup_roots() {
        let version_2 = root.join("cgroup.controllers").exists();
        if version_2 {
            // Nothing can be switched on in a version 2 tree beside version 1.
            let _ = enable_controllers(&root, cgroup);
        }
        let dir = root.join(relative(cgroup));
        fs::create_dir_all(&dir)?;
        // A new version 1 cpuset is empty, and nothing can enter it that way.
        if dir.join("cpuset.cpus").exists() && !version_2 {
            inherit_cpuset(&root, cgroup)?;
        }
        for (file, value) in settings(resources) {
            let file = dir.join(file);
            if file.exists() {
                fs::write(&file, value)?;
            }
        }
    }
    Ok(())
}

/// Removes the cgroup from every hierarchy. Idempotent.
///
/// # Errors
/// The first refusal, for instance because a process is still in it.
pub fn remove(cgroup: &Path) -> io::Result<()> {
    cgroup_roots().iter().map(|root| remove_cgroup(&root.join(relative(cgroup)))).fold(Ok(()), Result::and)
}

fn relative(cgroup: &Path) -> &Path {
    cgroup.strip_prefix("/").unwrap_or(cgroup)
}

/// Files of version 1 and version 2; those that do not exist are left out.
fn settings(resources: &LinuxContainerResources) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("cpu.shares", resources.cpu_shares.to_string()),
        ("cpu.weight", weight(resources.cpu_shares).to_string()),
    ];
    if resources.cpu_quota > 0 {
        settings.push(("cpu.cfs_period_us", resources.cpu_period.to_string()));
        settings.push(("cpu.cfs_quota_us", resources.cpu_quota.to_string()));
        settings.push(("cpu.max", format!("{} {}", resources.cpu_quota, resources.cpu_period)));
    }
    if resources.memory_limit_in_bytes > 0 {
        settings.push(("memory.limit_in_bytes", resources.memory_limit_in_bytes.to_string()));
        settings.push(("memory.max", resources.memory_limit_in_bytes.to_string()));
    }
    settings
}

/// Version 1 shares (2 to 262144) as version 2 weight (1 to 10000).
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Version 2: a child has a controller when all its ancestors pass it on.
fn enable_controllers(root: &Path, cgroup: &Path) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in relative(cgroup) {
        let available = fs::read_to_string(dir.join("cgroup.controllers"))?;
        for controller in available.split_whitespace() {
            fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        dir.push(part);
        fs::create_dir_all(&dir)?;
    }
    Ok(())
}

/// Version 1: copies CPUs and memory nodes down from the root.
fn inherit_cpuset(root: &Path, cgroup: &Path) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in relative(cgroup) {
        let above = dir.clone();
        dir.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                fs::write(dir.join(file), fs::read_to_string(above.join(file))?)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_onto_the_whole_range_of_weights() {
        for (shares, want) in [(2, 1), (1024, 39), (262_144, 10_000), (0, 1)] {
            assert_eq!(weight(shares), want, "{shares}");
        }
    }

    #[test]
    fn a_cgroup_is_made_limited_and_removed() {
        let name = format!("/osc-node-test-{}", std::process::id());
        let cgroup = Path::new(&name).join("pod1");
        let limit = 64 << 20;
        let resources = LinuxContainerResources { cpu_shares: 512, memory_limit_in_bytes: limit, ..Default::default() };
        make(&cgroup, &resources).expect("make");
        let limited = cgroup_roots().iter().any(|root| {
            let read = |file| fs::read_to_string(root.join(relative(&cgroup)).join(file)).unwrap_or_default();
            [read("memory.limit_in_bytes"), read("memory.max")].iter().any(|text| text.trim() == limit.to_string())
        });
        assert!(limited, "no hierarchy took the limit");
        remove(Path::new(&name)).expect("remove");
        remove(Path::new(&name)).expect("again");
        assert!(cgroup_roots().iter().all(|root| !root.join(relative(Path::new(&name))).exists()));
    }
}
