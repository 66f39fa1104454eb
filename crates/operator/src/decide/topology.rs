//! Which pool sandboxes go to.

use osc_objects::{
    MachineConfigPool,
    names::{kata, role},
};

use crate::seen::{NodeSeen, Seen};

/// Where sandboxes run in this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// On some workers, in a pool of their own.
    Workers,
    /// On all control-plane nodes, because there are no others.
    Converged,
}

impl Topology {
    pub(super) fn of(seen: &Seen) -> Self {
        // Once decided, it stays: the role of what was made tells.
        match seen.own_configs.first().map(|config| config.role.as_str()) {
            Some(role::MASTER) => return Self::Converged,
            Some(kata::POOL) => return Self::Workers,
            _ => {}
        }
        let workers = seen.pools.get(role::WORKER).and_then(|pool| pool.status.as_ref());
        let empty = workers.is_some_and(|status| status.machine_count == 0);
        // A pool may not have counted yet; nodes are better witnesses.
        let worker = seen.nodes.iter().any(|node| node.is_worker() && !node.is_control_plane());
        if seen.pools.len() == 2 && empty && !worker { Self::Converged } else { Self::Workers }
    }

    pub(super) fn is_converged(self) -> bool {
        self == Self::Converged
    }

    /// Pool that gets the configuration.
    pub(super) fn pool_name(self) -> &'static str {
        match self {
            Self::Workers => kata::POOL,
            Self::Converged => role::MASTER,
        }
    }

    /// Pool that gets the configuration, if it exists.
    pub(super) fn pool(self, seen: &Seen) -> Option<&MachineConfigPool> {
        seen.pools.get(self.pool_name())
    }

    /// Pool to which nodes go back.
    pub(super) fn home(self, seen: &Seen) -> Option<&MachineConfigPool> {
        seen.pools.get(match self {
            Self::Workers => role::WORKER,
            Self::Converged => role::MASTER,
        })
    }

    /// Whether a node is in the pool that gets the configuration. A control-plane node
    /// stays in its own pool whatever labels it has.
    pub(super) fn has(self, node: &NodeSeen) -> bool {
        match self {
            Self::Workers => node.is_kata() && !node.is_control_plane(),
            Self::Converged => node.is_control_plane(),
        }
    }

    /// Whether a rendered configuration is one for sandboxes.
    pub(super) fn carries(self, seen: &Seen, rendered: &str) -> bool {
        match self {
            Self::Workers => {
                let prefix = rendered.strip_prefix("rendered-").and_then(|rest| rest.strip_prefix(kata::POOL));
                prefix.is_some_and(|rest| rest.starts_with('-'))
            }
            Self::Converged => seen.kata_rendered.contains(rendered),
        }
    }
}
