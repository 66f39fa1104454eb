//! Static pods: manifests in a directory of the node, run as long as they lie there.
//!
//! ```text
//! etc/kubernetes/manifests/*.yaml ──► mirror pod in the API ──watch──► worker
//! ```
//!
//! A kubelet runs such pods without an API and shows a mirror of each in it. Here
//! the API is part of the machine, so the mirror is the pod: one way to run pods,
//! and one that is deleted by hand comes back.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use osc_agent_protocol::kind::chain;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::pod::Manifest;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// No answer of the API takes longer.
const ANSWER: Duration = Duration::from_secs(10);
/// A larger manifest, or more of them, are none that people wrote.
const MAX_SIZE: u64 = 1 << 20;
const MAX_FILES: usize = 256;
/// The mark of a mirror pod: a digest of what it is made from.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Keeps mirror pods in step with the manifests of one node.
pub(super) struct Statics {
    pub(super) client: Client,
    pub(super) node: String,
    pub(super) dir: PathBuf,
}

/// A pod as the API has it: the digest it was made from, and what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    digest: String,
    uid: String,
    deleting: bool,
}

/// Namespace and name.
type Key = (String, String);

impl Statics {
    /// Looks until `stop`. A node without the directory has no static pods.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut complaints = Vec::new();
        loop {
            let (wanted, told) = read(&self.dir, &self.node);
            // Told once, not every time.
            for complaint in told.iter().filter(|complaint| !complaints.contains(*complaint)) {
                tracing::warn!(
                    node.name = self.node,
                    manifest = complaint.0,
                    error = complaint.1,
                    "static pod ignored"
                );
            }
            complaints = told;
            match tokio::time::timeout(ANSWER, self.settle(wanted)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(node.name = self.node, error = chain(&error), "static pods are not settled");
                }
                Err(_) => tracing::warn!(node.name = self.node, "static pods are not settled in time"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Brings the API to what is wanted.
    async fn settle(&self, mut wanted: BTreeMap<Key, Value>) -> kube::Result<()> {
        let here = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        let pods = Api::<Pod>::all(self.client.clone()).list(&here).await?;
        let there: BTreeMap<Key, Mirror> = pods.items.into_iter().filter_map(seen).collect();
        let (make, remove) = compare(&wanted, &there);
        for (key, uid) in remove {
            let preconditions = Preconditions { uid: Some(uid), resource_version: None };
            let parameters = DeleteParams::default().preconditions(preconditions);
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.0);
            match pods.delete(&key.1, &parameters).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                result => drop(result?),
            }
        }
        if make.is_empty() {
            return Ok(());
        }
        let node = Api::<Node>::all(self.client.clone()).get(&self.node).await?;
        for key in make {
            let Some(mut object) = wanted.remove(&key) else { continue };
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "Node", "name": self.node, "uid": node.metadata.uid, "controller": true,
            }]);
            let pod: Pod = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.0);
            match pods.create(&PostParams::default(), &pod).await {
                // Made by hand under this name, or just made and not listed yet.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                result => drop(result?),
            }
        }
        Ok(())
    }
}

/// The pods of a directory, and which files are no use and why.
fn read(dir: &Path, node: &str) -> (BTreeMap<Key, Value>, Vec<(String, String)>) {
    let (mut wanted, mut complaints) = (BTreeMap::new(), Vec::new());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_manifest(path)).collect();
    files.sort();
    for path in files.iter().take(MAX_FILES) {
        let name = path.display().to_string();
        match text(path).map_err(|error| error.to_string()).and_then(|text| objects(&name, &text)) {
            Ok(objects) => wanted.extend(objects.into_iter().map(|object| mirror(object, node))),
            Err(error) => complaints.push((name, error)),
        }
    }
    (wanted, complaints)
}

/// What to make, and what to remove, by its identity. A pod that is to be another
/// goes first, and its successor is made when it is gone.
fn compare(wanted: &BTreeMap<Key, Value>, there: &BTreeMap<Key, Mirror>) -> (Vec<Key>, Vec<(Key, String)>) {
    let digest = |object: &Value| object["metadata"]["annotations"][MIRROR].as_str().unwrap_or_default().to_owned();
    let make = wanted.keys().filter(|key| !there.contains_key(*key)).cloned().collect();
    let stale = there.iter().filter(|(key, mirror)| {
        !mirror.deleting && wanted.get(*key).is_none_or(|object| digest(object) != mirror.digest)
    });
    (make, stale.map(|(key, mirror)| (key.clone(), mirror.uid.clone())).collect())
}

fn seen(pod: Pod) -> Option<(Key, Mirror)> {
    let digest = pod.metadata.annotations?.get(MIRROR)?.clone();
    let deleting = pod.metadata.deletion_timestamp.is_some();
    let mirror = Mirror { digest, uid: pod.metadata.uid?, deleting };
    Some(((pod.metadata.namespace?, pod.metadata.name?), mirror))
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    !hidden && matches!(path.extension().and_then(|end| end.to_str()), Some("yaml" | "yml" | "json")) && path.is_file()
}

fn text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_SIZE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(path)
}

/// The pods of a manifest, as `osc run` reads them.
fn objects(name: &str, text: &str) -> Result<Vec<Value>, String> {
    let manifests = Manifest::read(name, text).map_err(|error| chain(&error))?;
    Ok(manifests.into_iter().map(|manifest| manifest.given).collect())
}

/// The mirror of a manifest on `node`.
fn mirror(mut object: Value, node: &str) -> (Key, Value) {
    let digest = hex::encode(&Sha256::digest(object.to_string())[..16]);
    let meta = &mut object["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or("default").to_owned();
    let name = format!("{}-{node}", meta["name"].as_str().unwrap_or_default());
    meta["namespace"] = namespace.clone().into();
    meta["name"] = name.clone().into();
    if let Some(meta) = meta.as_object_mut() {
        meta.remove("uid");
    }
    meta["annotations"][MIRROR] = digest.clone().into();
    meta["annotations"]["kubernetes.io/config.hash"] = digest.into();
    meta["annotations"]["kubernetes.io/config.source"] = "file".into();
    object["spec"]["nodeName"] = node.into();
    // Whatever the node is short of, these stay.
    let mut tolerations = object["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    tolerations.push(json!({"operator": "Exists", "effect": "NoExecute"}));
    object["spec"]["tolerations"] = tolerations.into();
    ((namespace, name), object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
        )
    }

    #[test]
    fn the_directory_says_what_is_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path().join("manifests");
        let nothing = read(&dir, "n1");
        assert!(nothing.0.is_empty() && nothing.1.is_empty(), "no directory, no pods");
        fs::create_dir(&dir).expect("mkdir");
        for (name, text) in [
            ("web.yaml", manifest("i:1")),
            (".swp.yaml", "x".into()),
            ("notes.txt", "x".into()),
            ("bad.yaml", "a: [".into()),
        ] {
            fs::write(dir.join(name), text).expect("write");
        }
        let (wanted, complaints) = read(&dir, "n1");
        assert_eq!(wanted.keys().collect::<Vec<_>>(), [&("default".to_owned(), "web-n1".to_owned())]);
        let web = wanted.values().next().expect("one");
        assert_eq!((&web["spec"]["nodeName"], &web["metadata"]["name"]), (&json!("n1"), &json!("web-n1")));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].0.ends_with("bad.yaml"));
    }

    #[test]
    fn a_changed_manifest_replaces_its_pod() {
        let wanted = |image: &str| -> BTreeMap<Key, Value> {
            objects("test", &manifest(image)).expect("good").into_iter().map(|object| mirror(object, "n1")).collect()
        };
        let (key, one) = wanted("i:1").pop_first().expect("one");
        let digest = one["metadata"]["annotations"][MIRROR].as_str().expect("digest").to_owned();
        let there =
            |deleting| BTreeMap::from([(key.clone(), Mirror { digest: digest.clone(), uid: "u".into(), deleting })]);
        let gone = (Vec::new(), vec![(key.clone(), "u".to_owned())]);
        assert_eq!(compare(&wanted("i:1"), &BTreeMap::new()), (vec![key.clone()], Vec::new()));
        assert_eq!(compare(&wanted("i:1"), &there(false)), (Vec::new(), Vec::new()));
        assert_eq!(compare(&wanted("i:2"), &there(false)), gone);
        assert_eq!(compare(&wanted("i:2"), &there(true)), (Vec::new(), Vec::new()), "its end is waited for");
        assert_eq!(compare(&BTreeMap::new(), &there(false)), gone);
    }
}
