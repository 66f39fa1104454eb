//! Who owns whom, as far as watched, and what follows for one object.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::kinds::Kind;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";
/// Owners remembered as deleted, so that their dependants need no question to the API.
const REMEMBERED: usize = 4096;

/// What matters about one object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    pub(super) foreground: bool,
    pub(super) orphan: bool,
}

impl Node {
    pub(super) fn of(kind: Arc<Kind>, meta: &ObjectMeta) -> Self {
        let finalizer = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        Self {
            kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: finalizer(FOREGROUND),
            orphan: finalizer(ORPHAN),
        }
    }
}

/// How one owner of an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Exists and stays.
    Solid,
    /// Is being deleted and waits for its dependants.
    Waiting,
    /// Does not exist.
    Absent,
    /// Not among what is watched: the API must be asked.
    Unknown,
}

/// What to do with one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Its owner is gone: look at these dependants.
    WakeDependants(Vec<String>),
    /// It waits for these dependants, of which some block.
    AwaitDependants(Vec<String>),
    /// Nothing blocks its deletion any more: drop the foreground finalizer.
    ReleaseForeground,
    /// Take it out of the owners of these dependants, then drop the orphan finalizer.
    OrphanDependants(Vec<String>),
    /// Its owners have to be judged.
    JudgeOwners,
}

/// Outcome of judging all owners of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Somebody owns it still: only drop the references to these uids.
    DropReferences(Vec<String>),
    /// Delete it and let it wait for its own dependants.
    DeleteForeground,
    /// Delete it.
    Delete,
}

/// All watched objects by uid.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependants: HashMap<String, BTreeSet<String>>,
    gone: HashSet<String>,
    gone_order: VecDeque<String>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Takes over an object; returns the uids worth a look.
    pub(super) fn put(&mut self, uid: &str, node: Node) -> Vec<String> {
        let mut wake = Vec::new();
        let before = self.nodes.get(uid);
        let owners_changed = before.is_none_or(|before| before.owners != node.owners);
        let deletion_changed = before.is_none_or(|before| {
            (before.deleting, before.foreground, before.orphan) != (node.deleting, node.foreground, node.orphan)
        });
        let former: Vec<String> =
            before.into_iter().flat_map(|node| &node.owners).map(|owner| owner.uid.clone()).collect();
        if owners_changed {
            self.unlink(uid, &former);
            for owner in &node.owners {
                self.dependants.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
            }
            // An owner that waits may have lost its last dependant.
            wake.extend(former.into_iter().filter(|owner| self.waits(owner)));
        }
        if deletion_changed && node.deleting {
            wake.extend(node.owners.iter().map(|owner| owner.uid.clone()).filter(|owner| self.waits(owner)));
        }
        let concerned = (owners_changed && !node.owners.is_empty()) || (deletion_changed && node.deleting);
        self.nodes.insert(uid.to_owned(), node);
        if concerned {
            wake.push(uid.to_owned());
        }
        wake
    }

    /// Takes out an object that was deleted; returns the uids worth a look.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut wake = self.forget(uid);
        if self.gone.insert(uid.to_owned()) {
            self.gone_order.push_back(uid.to_owned());
            if self.gone_order.len() > REMEMBERED
                && let Some(oldest) = self.gone_order.pop_front()
            {
                self.gone.remove(&oldest);
            }
        }
        wake.extend(self.dependants_of(uid));
        wake
    }

    /// Takes out an object that is merely no longer watched; returns waiting owners.
    pub(super) fn forget(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let owners: Vec<String> = node.owners.into_iter().map(|owner| owner.uid).collect();
        self.unlink(uid, &owners);
        owners.into_iter().filter(|owner| self.waits(owner)).collect()
    }

    fn unlink(&mut self, uid: &str, owners: &[String]) {
        for owner in owners {
            if let Some(dependants) = self.dependants.get_mut(owner) {
                dependants.remove(uid);
                if dependants.is_empty() {
                    self.dependants.remove(owner);
                }
            }
        }
    }

    fn waits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.deleting && node.foreground)
    }

    pub(super) fn dependants_of(&self, uid: &str) -> Vec<String> {
        self.dependants.get(uid).into_iter().flatten().cloned().collect()
    }

    /// What to do with an object now.
    pub(super) fn decide(&self, uid: &str) -> Action {
        let dependants = self.dependants_of(uid);
        let Some(node) = self.nodes.get(uid) else {
            return if dependants.is_empty() { Action::Nothing } else { Action::WakeDependants(dependants) };
        };
        if node.deleting && node.orphan {
            return Action::OrphanDependants(dependants);
        }
        if node.deleting && node.foreground {
            let blocked = dependants.iter().any(|dependant| self.blocks(dependant, uid));
            return if blocked { Action::AwaitDependants(dependants) } else { Action::ReleaseForeground };
        }
        if node.deleting || node.owners.is_empty() { Action::Nothing } else { Action::JudgeOwners }
    }

    fn blocks(&self, dependant: &str, owner: &str) -> bool {
        let Some(node) = self.nodes.get(dependant) else { return false };
        node.owners.iter().any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
    }

    /// How an owner of a dependant in `namespace` stands.
    pub(super) fn standing(&self, owner: &OwnerReference, namespace: &str) -> Standing {
        match self.nodes.get(&owner.uid) {
            Some(node) if node.name != owner.name || node.kind.resource.kind != owner.kind => Standing::Unknown,
            // Such a reference is invalid, and nothing may be deleted for it.
            Some(node) if node.kind.namespaced && namespace.is_empty() => Standing::Solid,
            // A namespaced owner elsewhere is no owner at all.
            Some(node) if node.kind.namespaced && node.namespace != namespace => Standing::Absent,
            Some(node) if node.deleting && node.foreground => Standing::Waiting,
            Some(_) => Standing::Solid,
            None if self.gone.contains(&owner.uid) => Standing::Absent,
            None => Standing::Unknown,
        }
    }
}

/// Judges an object by all its owners. `has_dependants` says whether others depend on it.
pub(super) fn judge(owners: &[(OwnerReference, Standing)], has_dependants: bool) -> Verdict {
    let with = |standing: Standing| owners.iter().filter(move |(_, have)| *have == standing);
    if owners.is_empty() || with(Standing::Unknown).next().is_some() {
        return Verdict::Keep;
    }
    if with(Standing::Solid).next().is_some() {
        let others = owners.iter().filter(|(_, standing)| *standing != Standing::Solid);
        let uids: Vec<String> = others.map(|(owner, _)| owner.uid.clone()).collect();
        return if uids.is_empty() { Verdict::Keep } else { Verdict::DropReferences(uids) };
    }
    if with(Standing::Waiting).next().is_some() && has_dependants {
        return Verdict::DeleteForeground;
    }
    Verdict::Delete
}

#[cfg(test)]
mod tests {
    use kube::core::discovery::ApiResource;

    use super::*;

    fn kind(name: &str, namespaced: bool) -> Arc<Kind> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: name.into(),
            plural: name.to_lowercase(),
        };
        Arc::new(Kind {
            resource,
            namespaced,
            watchable: true,
            listable: true,
            deletable: true,
            collection_deletable: true,
        })
    }

    fn owner(uid: &str, blocking: bool) -> OwnerReference {
        OwnerReference {
            api_version: "v1".into(),
            kind: "Owner".into(),
            name: uid.into(),
            uid: uid.into(),
            controller: None,
            block_owner_deletion: Some(blocking),
        }
    }

    fn node(name: &str, owners: Vec<OwnerReference>) -> Node {
        Node {
            kind: kind("Owner", true),
            namespace: "x".into(),
            name: name.into(),
            owners,
            deleting: false,
            foreground: false,
            orphan: false,
        }
    }

    fn dying(name: &str, foreground: bool, orphan: bool) -> Node {
        Node { deleting: true, foreground, orphan, ..node(name, vec![]) }
    }

    #[test]
    fn background_deletion_wakes_the_dependants() {
        let mut graph = Graph::default();
        assert!(graph.put("o", node("o", vec![])).is_empty());
        assert_eq!(graph.put("d", node("d", vec![owner("o", true)])), ["d"]);
        assert_eq!(graph.decide("d"), Action::JudgeOwners);
        assert_eq!(graph.standing(&owner("o", true), "x"), Standing::Solid);
        assert_eq!(graph.remove("o"), ["d"]);
        assert_eq!(graph.standing(&owner("o", true), "x"), Standing::Absent);
        assert_eq!(graph.decide("o"), Action::WakeDependants(vec!["d".into()]));
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependants_only() {
        let mut graph = Graph::default();
        graph.put("o", node("o", vec![]));
        graph.put("b", node("b", vec![owner("o", true)]));
        graph.put("f", node("f", vec![owner("o", false)]));
        assert_eq!(graph.put("o", dying("o", true, false)), ["o"]);
        assert_eq!(graph.decide("o"), Action::AwaitDependants(vec!["b".into(), "f".into()]));
        assert_eq!(graph.standing(&owner("o", true), "x"), Standing::Waiting);
        assert_eq!(graph.remove("b"), ["o"], "the owner hears of it");
        assert_eq!(graph.decide("o"), Action::ReleaseForeground);
    }

    #[test]
    fn an_owner_hears_when_a_dependant_is_orphaned_by_somebody_else() {
        let mut graph = Graph::default();
        graph.put("o", dying("o", true, false));
        graph.put("b", node("b", vec![owner("o", true)]));
        assert_eq!(graph.put("b", node("b", vec![])), ["o"]);
        assert_eq!(graph.decide("o"), Action::ReleaseForeground);
    }

    #[test]
    fn orphaning_comes_before_anything_else() {
        let mut graph = Graph::default();
        graph.put("d", node("d", vec![owner("o", true)]));
        assert_eq!(graph.put("o", dying("o", true, true)), ["o"]);
        assert_eq!(graph.decide("o"), Action::OrphanDependants(vec!["d".into()]));
    }

    #[test]
    fn owners_are_known_by_uid_and_namespace() {
        let mut graph = Graph::default();
        graph.put("o", node("o", vec![]));
        assert_eq!(graph.standing(&owner("o", true), "elsewhere"), Standing::Absent);
        assert_eq!(graph.standing(&owner("o", true), ""), Standing::Solid, "a cluster-scoped dependant stays");
        let namesake = OwnerReference { uid: "other".into(), ..owner("o", true) };
        assert_eq!(graph.standing(&namesake, "x"), Standing::Unknown, "same name, other uid");
        let renamed = OwnerReference { name: "else".into(), ..owner("o", true) };
        assert_eq!(graph.standing(&renamed, "x"), Standing::Unknown);
        graph.forget("o");
        assert_eq!(graph.standing(&owner("o", true), "x"), Standing::Unknown, "unwatched is not deleted");
        let cluster = Node { kind: kind("Owner", false), namespace: String::new(), ..node("c", vec![]) };
        graph.put("c", cluster);
        assert_eq!(graph.standing(&owner("c", true), "x"), Standing::Solid);
    }

    #[test]
    fn verdicts() {
        use Standing::{Absent, Solid, Unknown, Waiting};
        let rows: &[(&[Standing], bool, Verdict)] = &[
            (&[], false, Verdict::Keep),
            (&[Solid], false, Verdict::Keep),
            (&[Solid, Solid], true, Verdict::Keep),
            (&[Absent], false, Verdict::Delete),
            (&[Absent, Absent], true, Verdict::Delete),
            (&[Waiting], false, Verdict::Delete),
            (&[Waiting], true, Verdict::DeleteForeground),
            (&[Waiting, Absent], true, Verdict::DeleteForeground),
            (&[Solid, Absent], false, Verdict::DropReferences(vec!["1".into()])),
            (&[Absent, Waiting, Solid], true, Verdict::DropReferences(vec!["0".into(), "1".into()])),
            (&[Unknown], false, Verdict::Keep),
            (&[Unknown, Absent], false, Verdict::Keep),
        ];
        for (standings, has_dependants, want) in rows {
            let owners: Vec<_> =
                standings.iter().enumerate().map(|(n, standing)| (owner(&n.to_string(), true), *standing)).collect();
            assert_eq!(judge(&owners, *has_dependants), *want, "{standings:?} {has_dependants}");
        }
    }

    #[test]
    fn cycles_do_not_keep_each_other_waiting_in_the_graph() {
        let mut graph = Graph::default();
        graph.put("a", node("a", vec![owner("b", true)]));
        graph.put("b", node("b", vec![owner("a", true)]));
        graph.remove("a");
        assert_eq!(graph.standing(&owner("a", true), "x"), Standing::Absent);
        graph.remove("b");
        assert!(graph.nodes.is_empty() && graph.dependants.is_empty());
    }
}
