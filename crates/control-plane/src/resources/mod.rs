//! Which resources are served right now: the built-in ones and those that
//! CustomResourceDefinitions declare.
//!
//! ```text
//!  api::builtin() ─┐
//!                  ├─► Snapshot (immutable, shared) ─► handlers, discovery, openapi
//!  crds::watch ────┘      └ replaced whole when a definition changes
//! ```

mod custom;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use osc_api::{Resource, builtin, convert, definitions::definitions, status::Status, table::Printer};
use osc_schema::{Node, Schema};
use osc_store::{Key, Prefix};

pub use custom::{Custom, ScalePaths};

/// One resource in one version, ready to be served.
#[derive(Debug)]
pub struct Served {
    /// Its names, verbs and subresources.
    pub resource: Arc<Resource>,
    /// `apiVersion` of its objects in this version.
    pub api_version: String,
    /// Columns of its tables.
    pub printer: Printer,
    /// What only custom resources have; built-in kinds are described in `osc-api`.
    pub custom: Option<Custom>,
}

impl Served {
    fn built_in(resource: &Arc<Resource>) -> Self {
        Self {
            resource: Arc::clone(resource),
            api_version: resource.api_version(),
            printer: Printer::builtin(resource),
            custom: None,
        }
    }

    /// What objects look like.
    pub fn node(&self) -> Node<'_> {
        static ANYTHING: OnceLock<Schema> = OnceLock::new();
        match (&self.custom, &self.resource.definition) {
            (Some(custom), _) => Node::custom(&custom.schema),
            (None, Some(name)) => {
                definitions().node(name).unwrap_or_else(|| Node::custom(ANYTHING.get_or_init(Schema::anything)))
            }
            (None, None) => Node::custom(ANYTHING.get_or_init(Schema::anything)),
        }
    }

    /// Group and plural under which objects are stored: one place for all versions of a kind.
    fn place(&self) -> (&str, &str) {
        let stored = convert::stored(&self.resource);
        (&stored.group, &stored.plural)
    }

    /// Where an object is stored.
    ///
    /// # Errors
    /// 404: a name that cannot be one names nothing.
    pub fn key(&self, namespace: &str, name: &str) -> Result<Key, Status> {
        let (group, plural) = self.place();
        let namespace = if self.resource.namespaced { namespace } else { "" };
        Key::new(group, plural, namespace, name).map_err(|_| Status::not_found(&self.resource, name))
    }

    /// Where the objects of a namespace, or of all (`""`), are stored.
    ///
    /// # Errors
    /// 400 for a namespace that cannot be one.
    pub fn prefix(&self, namespace: &str) -> Result<Prefix, Status> {
        let (group, plural) = self.place();
        let namespace = if self.resource.namespaced { namespace } else { "" };
        Prefix::namespace(group, plural, namespace)
            .map_err(|_| Status::bad_request(format!("{namespace:?} is not the name of a namespace")))
    }

    /// Whether `status` has an endpoint of its own, and so is out of reach of the main one.
    pub fn has_status(&self) -> bool {
        self.resource.subresource("status").is_some()
    }
}

/// All resources at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    served: Vec<Arc<Served>>,
    by_path: HashMap<(String, String, String), usize>,
    /// Counts the changes of the set since the start.
    pub generation: u64,
    /// Documents made from this set, when first asked for.
    pub(crate) documents: crate::discovery::Documents,
}

impl Snapshot {
    fn new(custom: &BTreeMap<String, Vec<Arc<Served>>>, generation: u64) -> Self {
        let built_in = builtin().iter().map(|resource| Arc::new(Served::built_in(resource)));
        let served: Vec<_> = built_in.chain(custom.values().flatten().cloned()).collect();
        let key = |it: &Resource| (it.group.clone(), it.version.clone(), it.plural.clone());
        let by_path = served.iter().enumerate().map(|(at, served)| (key(&served.resource), at)).collect();
        Self { served, by_path, generation, documents: crate::discovery::Documents::default() }
    }

    /// All of them; built-in ones first, of one group the preferred version first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.iter()
    }

    /// The resource at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        let at = self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))?;
        self.served.get(*at)
    }

    /// A resource in whichever version comes first.
    pub fn find_any_version(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.served.iter().find(|served| served.resource.is(group, plural))
    }

    /// The resource whose objects carry this `apiVersion` and `kind`.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Served>> {
        self.served.iter().find(|served| served.api_version == api_version && served.resource.kind == kind)
    }
}

/// The current [`Snapshot`], and the way to change it.
#[derive(Debug)]
pub struct Catalog {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    custom: BTreeMap<String, Vec<Arc<Served>>>,
    current: Arc<Snapshot>,
}

impl Default for Catalog {
    fn default() -> Self {
        let custom = BTreeMap::new();
        let current = Arc::new(Snapshot::new(&custom, 0));
        Self { state: RwLock::new(State { custom, current }) }
    }
}

impl Catalog {
    /// What is served now. Hold it for one request, not longer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    /// Serves what a definition (by its name) declares, in place of what it declared before.
    pub fn set(&self, definition: &str, served: Vec<Arc<Served>>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let known = if served.is_empty() {
            state.custom.remove(definition).is_some()
        } else {
            state.custom.insert(definition.to_owned(), served);
            true
        };
        if known {
            state.current = Arc::new(Snapshot::new(&state.custom, state.current.generation + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_come_and_go() {
        let catalog = Catalog::default();
        let crd = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}]}
        });
        assert!(catalog.snapshot().find("example.com", "v1", "widgets").is_none());
        catalog.set("widgets.example.com", Custom::served(&crd));
        let seen = catalog.snapshot();
        let widgets = seen.find("example.com", "v1", "widgets").expect("served");
        assert_eq!(widgets.key("a", "w").unwrap().as_str(), "example.com/widgets/a/w");
        assert_eq!(widgets.custom.as_ref().unwrap().stored_version, "example.com/v1");
        assert!(seen.find_kind("example.com/v1", "Widget").is_some());
        catalog.set("widgets.example.com", Vec::new());
        assert!(catalog.snapshot().find("example.com", "v1", "widgets").is_none());
        assert_eq!(catalog.snapshot().generation, 2);
    }

    #[test]
    fn every_built_in_kind_has_a_schema() {
        for served in Catalog::default().snapshot().iter() {
            let node = served.node();
            assert!(
                !node.preserves_unknown_fields() || served.resource.group == "apiregistration.k8s.io",
                "{}",
                served.resource.kind
            );
        }
    }
}
