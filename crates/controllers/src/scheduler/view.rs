//! The cluster as the scheduler sees it: nodes, the pods on them, and the pods
//! it has just placed although the API does not show that yet.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};

use crate::{
    cache::{Cache, Key},
    pods,
    scheduler::resources::{Resources, requested, weighed},
};

/// A port a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    port: i32,
    protocol: String,
    /// Empty means every address.
    ip: String,
}

impl HostPort {
    fn collides(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip)
    }
}

/// Host ports of a pod.
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().filter(|ip| ip != "0.0.0.0" && ip != "::").unwrap_or_default();
            Some(HostPort { port: number, protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()), ip })
        })
        .collect()
}

/// One node and what runs on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// `None` while pods are known but their node is not.
    pub(crate) node: Option<Arc<Node>>,
    /// Pods by uid.
    pub(crate) pods: BTreeMap<String, Arc<Pod>>,
    pub(crate) allocatable: Resources,
    pub(crate) used: Resources,
    pub(crate) weight: Resources,
}

impl Place {
    pub(crate) fn name(&self) -> &str {
        self.node.as_ref().and_then(|node| node.metadata.name.as_deref()).unwrap_or_default()
    }

    /// Value of a label of the node.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn ports_free(&self, wanted: &[HostPort]) -> bool {
        wanted.is_empty()
            || !self
                .pods
                .values()
                .flat_map(|pod| host_ports(pod))
                .any(|taken| wanted.iter().any(|w| w.collides(&taken)))
    }

    fn put(&mut self, uid: String, pod: Arc<Pod>) {
        self.take(&uid);
        if let Some(spec) = &pod.spec {
            self.used.add(&requested(spec));
            self.weight.add(&weighed(spec));
        }
        self.pods.insert(uid, pod);
    }

    fn take(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid)
            && let Some(spec) = &pod.spec
        {
            self.used.subtract(&requested(spec));
            self.weight.subtract(&weighed(spec));
        }
    }
}

/// Everything placement depends on.
pub(crate) struct View {
    pub(crate) places: BTreeMap<String, Place>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) claims: Cache<PersistentVolumeClaim>,
    pub(crate) volumes: Cache<PersistentVolume>,
    bound: HashMap<String, String>,
    assumed: HashSet<String>,
}

impl View {
    pub(crate) fn new(
        namespaces: Cache<Namespace>,
        claims: Cache<PersistentVolumeClaim>,
        volumes: Cache<PersistentVolume>,
    ) -> Self {
        let (places, bound, assumed) = (BTreeMap::new(), HashMap::new(), HashSet::new());
        Self { places, namespaces, claims, volumes, bound, assumed }
    }

    /// Nodes that exist, with what runs there.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Place> {
        self.places.values().filter(|place| place.node.is_some())
    }

    /// Takes over a node as it is now; `None` once it is gone.
    pub(crate) fn node_changed(&mut self, name: &str, node: Option<Arc<Node>>) {
        let place = self.places.entry(name.to_owned()).or_default();
        place.allocatable = Resources::of(
            node.as_ref().and_then(|node| node.status.as_ref()).and_then(|status| status.allocatable.as_ref()),
        );
        place.node = node;
        if place.node.is_none() && place.pods.is_empty() {
            self.places.remove(name);
        }
    }

    /// Takes over a pod as it is now; `None` once it is gone.
    pub(crate) fn pod_changed(&mut self, uid: &str, pod: Option<Arc<Pod>>) {
        let Some(pod) = pod.filter(|pod| !pods::is_finished(pod)) else {
            self.assumed.remove(uid);
            return self.unplace(uid);
        };
        let node = pods::node(&pod).to_owned();
        if node.is_empty() {
            // An older sight of a pod that was placed since; the placement stays.
            if !self.assumed.contains(uid) {
                self.unplace(uid);
            }
            return;
        }
        self.assumed.remove(uid);
        self.place(uid, &node, pod);
    }

    /// Counts a pod on a node before the API confirms it.
    pub(crate) fn assume(&mut self, uid: &str, node: &str, pod: Arc<Pod>) {
        self.assumed.insert(uid.to_owned());
        self.place(uid, node, pod);
    }

    /// Takes an assumption back, unless the API has confirmed it meanwhile.
    pub(crate) fn forget(&mut self, uid: &str) {
        if self.assumed.remove(uid) {
            self.unplace(uid);
        }
    }

    pub(crate) fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains(uid)
    }

    fn place(&mut self, uid: &str, node: &str, pod: Arc<Pod>) {
        if self.bound.get(uid).is_some_and(|bound| bound != node) {
            self.unplace(uid);
        }
        self.bound.insert(uid.to_owned(), node.to_owned());
        self.places.entry(node.to_owned()).or_default().put(uid.to_owned(), pod);
    }

    fn unplace(&mut self, uid: &str) {
        let Some(node) = self.bound.remove(uid) else { return };
        if let Some(place) = self.places.get_mut(&node) {
            place.take(uid);
            if place.node.is_none() && place.pods.is_empty() {
                self.places.remove(&node);
            }
        }
    }

    /// Names of namespaces whose labels match.
    pub(crate) fn namespaces_matching(&self, selector: &kube::core::Selector) -> BTreeSet<String> {
        use kube::core::SelectorExt;
        let all = self.namespaces.all();
        let matching = all.iter().filter(|namespace| selector.matches(pods::labels(&namespace.metadata)));
        matching.filter_map(|namespace| namespace.metadata.name.clone()).collect()
    }

    pub(crate) fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(&Key::new(namespace, name))
    }

    pub(crate) fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get(&Key::cluster(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{object, pod};

    fn view() -> View {
        let mut view = View::new(Cache::new(), Cache::new(), Cache::new());
        view.node_changed(
            "n",
            Some(Arc::new(object(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4"}}})))),
        );
        view
    }

    fn one_cpu(node: Option<&str>) -> Arc<Pod> {
        Arc::new(pod(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": node, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}})))
    }

    #[test]
    fn an_assumption_survives_stale_sights_and_ends_with_the_truth() {
        let mut view = view();
        let used = |view: &View| view.places["n"].used.get("cpu");
        view.assume("u", "n", one_cpu(None));
        assert_eq!(used(&view), 1000);
        view.pod_changed("u", Some(one_cpu(None)));
        assert_eq!(used(&view), 1000, "a stale update does not free the place");
        view.pod_changed("u", Some(one_cpu(Some("n"))));
        assert_eq!(used(&view), 1000, "confirmation does not count twice");
        view.forget("u");
        assert_eq!(used(&view), 1000, "what is confirmed is not forgotten");
        view.pod_changed("u", None);
        assert_eq!(used(&view), 0);
    }

    #[test]
    fn a_failed_binding_frees_the_place() {
        let mut view = view();
        view.assume("u", "n", one_cpu(None));
        view.forget("u");
        assert_eq!(view.places["n"].used.get("cpu"), 0);
        assert!(!view.is_assumed("u"));
    }

    #[test]
    fn finished_pods_use_nothing_and_unknown_nodes_vanish_with_their_pods() {
        let mut view = view();
        view.pod_changed("u", Some(one_cpu(Some("elsewhere"))));
        assert_eq!(view.nodes().count(), 1);
        assert_eq!(view.places.len(), 2);
        let mut done = one_cpu(Some("elsewhere")).as_ref().clone();
        done.status = Some(object(json!({"phase": "Succeeded"})));
        view.pod_changed("u", Some(Arc::new(done)));
        assert_eq!(view.places.len(), 1);
    }

    #[test]
    fn host_ports_collide_by_port_protocol_and_address() {
        let with = |ip: &str, port: i32, protocol: &str| {
            host_ports(&pod(json!({"spec": {"containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": port, "hostIP": ip, "protocol": protocol}]}]}})))
        };
        for (other, free) in [
            (with("", 80, "TCP"), false),
            (with("10.0.0.1", 80, "TCP"), false),
            (with("10.0.0.2", 80, "TCP"), true),
            (with("10.0.0.1", 81, "TCP"), true),
            (with("10.0.0.1", 80, "UDP"), true),
            (with("0.0.0.0", 80, "TCP"), false),
        ] {
            let mine = with("10.0.0.1", 80, "TCP");
            assert_eq!(!mine[0].collides(&other[0]), free, "{other:?}");
        }
    }
}
