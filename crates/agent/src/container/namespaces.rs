//! Which namespaces a container gets: made, entered or shared with the agent.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use nix::sched::CloneFlags;
use osc_agent_protocol::oci;

use super::{Error, Result, SandboxNamespaces, wire::Task};

/// How the process that builds the container gets its pid namespace. It must be
/// in it from its first moment, so the agent's thread that starts it goes ahead.
#[derive(Clone, Debug)]
pub enum PidNamespace {
    /// A new one.
    New,
    /// An existing one.
    Join(Arc<OwnedFd>),
    /// A new one below a new user namespace, which only the builder can make.
    LeftToBuilder,
}

/// The namespaces of one container.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its pid namespace.
    pub pid: PidNamespace,
    /// To be made by the builder.
    pub unshare: CloneFlags,
    /// To be entered by the builder; a user namespace first.
    pub join: Vec<(PathBuf, CloneFlags)>,
}

impl Plan {
    /// What `spec` and the sandbox ask for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown namespace type.
    pub fn new(spec: &oci::Spec, sandbox: &SandboxNamespaces) -> Result<Self> {
        let mut unshare = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
        let mut join = Vec::new();
        for namespace in &spec.Linux.Namespaces {
            let flag = flag(&namespace.Type)?;
            let shared = match flag {
                CloneFlags::CLONE_NEWIPC => sandbox.ipc.clone(),
                CloneFlags::CLONE_NEWUTS => sandbox.uts.clone(),
                _ => None,
            };
            match flag {
                // Always made, decided below, or without use in a guest.
                CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWPID => {}
                _ if !namespace.Path.is_empty() => join.push((PathBuf::from(&namespace.Path), flag)),
                _ => match shared {
                    Some(path) => join.push((path, flag)),
                    None => unshare |= flag,
                },
            }
        }
        join.sort_by_key(|(_, flag)| *flag != CloneFlags::CLONE_NEWUSER);
        let pid = match &sandbox.pid {
            Some(namespace) => PidNamespace::Join(namespace.clone()),
            None if unshare.contains(CloneFlags::CLONE_NEWUSER) => {
                unshare |= CloneFlags::CLONE_NEWPID;
                PidNamespace::LeftToBuilder
            }
            None => PidNamespace::New,
        };
        Ok(Self { pid, unshare, join })
    }

    /// The builder's share of the plan.
    pub fn task(&self) -> Task {
        let join = self.join.iter().map(|(path, flag)| (path.clone(), flag.bits())).collect();
        Task::Build { unshare: self.unshare.bits(), join }
    }
}

/// What a process added to a container enters; its pid namespace aside.
///
/// # Errors
/// [`Error::Invalid`] for an unknown namespace type.
pub fn to_join(spec: &oci::Spec) -> Result<CloneFlags> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
    for namespace in &spec.Linux.Namespaces {
        flags |= flag(&namespace.Type)?;
    }
    Ok(flags - CloneFlags::CLONE_NEWPID)
}

fn flag(kind: &str) -> Result<CloneFlags> {
    Ok(match kind {
        "mount" => CloneFlags::CLONE_NEWNS,
        "pid" => CloneFlags::CLONE_NEWPID,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "uts" => CloneFlags::CLONE_NEWUTS,
        "network" => CloneFlags::CLONE_NEWNET,
        "user" => CloneFlags::CLONE_NEWUSER,
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        other => {
            let reason = "one of mount, pid, ipc, uts, network, user, cgroup";
            return Err(Error::Invalid { field: "Linux.Namespaces.Type", value: other.into(), reason });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(entries: &[(&str, &str)]) -> oci::Spec {
        let namespaces = entries.iter().map(|(kind, path)| oci::LinuxNamespace {
            Type: (*kind).into(),
            Path: (*path).into(),
            ..oci::LinuxNamespace::default()
        });
        let linux = oci::Linux { Namespaces: namespaces.collect(), ..oci::Linux::default() };
        oci::Spec { Linux: Some(linux).into(), ..oci::Spec::default() }
    }

    #[test]
    fn the_sandbox_fills_in_paths_the_runtime_left_out() {
        let sandbox = SandboxNamespaces { ipc: Some("/ns/ipc".into()), ..SandboxNamespaces::default() };
        let plan = Plan::new(&spec(&[("ipc", ""), ("uts", ""), ("network", "/ns/net")]), &sandbox).unwrap();
        assert_eq!(
            plan.join,
            [("/ns/ipc".into(), CloneFlags::CLONE_NEWIPC), ("/ns/net".into(), CloneFlags::CLONE_NEWNET)]
        );
        let base = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
        assert_eq!(plan.unshare, base | CloneFlags::CLONE_NEWUTS);
        assert!(matches!(plan.pid, PidNamespace::New));
    }

    #[test]
    fn namespaces_not_listed_stay_the_agents() {
        let sandbox = SandboxNamespaces { ipc: Some("/ns/ipc".into()), ..SandboxNamespaces::default() };
        let plan = Plan::new(&spec(&[]), &sandbox).unwrap();
        assert!(plan.join.is_empty());
        assert!(!plan.unshare.intersects(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET));
    }

    #[test]
    fn a_user_namespace_comes_first_and_takes_the_pid_namespace_along() {
        let plan = Plan::new(&spec(&[("user", "")]), &SandboxNamespaces::default()).unwrap();
        assert!(matches!(plan.pid, PidNamespace::LeftToBuilder));
        assert!(plan.unshare.contains(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUSER));
        let plan = Plan::new(&spec(&[("ipc", "/a"), ("user", "/b")]), &SandboxNamespaces::default()).unwrap();
        assert_eq!(plan.join[0].1, CloneFlags::CLONE_NEWUSER);
    }

    #[test]
    fn unknown_types_are_refused() {
        let error = Plan::new(&spec(&[("moon", "")]), &SandboxNamespaces::default()).unwrap_err();
        assert_eq!(error.kind(), osc_agent_protocol::Kind::Invalid);
    }
}
