//! What pods of a cluster need of its API: objects, tokens, claims, services.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1 as core,
};
use kube::{Api, Client, api::PostParams};

use super::{
    error::PodError,
    model::{Object, ObjectKind, Pod},
};

/// How old an object may be: pods that start together share one question.
const FRESH: Duration = Duration::from_secs(5);
/// No answer of the API takes longer.
const ANSWER: Duration = Duration::from_secs(20);

/// Keys and values of a ConfigMap or Secret.
pub type Data = Arc<BTreeMap<String, Vec<u8>>>;

/// The node as its pods see it.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Where pods reach the API: `KUBERNETES_SERVICE_HOST` and `_PORT`.
    pub api: Option<(String, u16)>,
    /// Who knows the names of Services.
    pub dns: Option<IpAddr>,
}

/// A claim that is bound to something on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Directory or device.
    pub path: PathBuf,
    /// Whether it is a raw block device.
    pub block: bool,
}

/// Access to the API on behalf of the pods of one node.
pub struct Cluster {
    client: Client,
    /// The node.
    pub node: NodeFacts,
    objects: Mutex<HashMap<ObjectKey, (Instant, Data)>>,
    tokens: Mutex<HashMap<TokenKey, (Instant, String)>>,
}

/// Kind, namespace, name.
type ObjectKey = (ObjectKind, String, String);
/// Pod, audience, lifetime in seconds.
type TokenKey = (String, String, u64);

impl Cluster {
    /// The cluster behind `client`.
    pub fn new(client: Client, node: NodeFacts) -> Self {
        Self { client, node, objects: Mutex::default(), tokens: Mutex::default() }
    }

    /// The API's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Data of an object; `None` where it does not exist and need not.
    ///
    /// # Errors
    /// [`PodError::Missing`], or why the API does not answer.
    pub async fn data(&self, namespace: &str, object: &Object) -> Result<Option<Data>, PodError> {
        let key = (object.kind, namespace.to_owned(), object.name.clone());
        let known = {
            let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
            objects.retain(|_, (asked, _)| asked.elapsed() < FRESH);
            objects.get(&key).map(|(_, data)| data.clone())
        };
        if known.is_some() {
            return Ok(known);
        }
        match self.fetch(namespace, object).await? {
            Some(data) => {
                let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
                objects.insert(key, (Instant::now(), data.clone()));
                Ok(Some(data))
            }
            // What is missing may come at any moment: this is not remembered.
            None if object.optional => Ok(None),
            None => Err(PodError::Missing { what: object.kind.name(), name: object.name.clone(), key: None }),
        }
    }

    async fn fetch(&self, namespace: &str, object: &Object) -> Result<Option<Data>, PodError> {
        let action = || format!("read {} {namespace}/{}", object.kind.name(), object.name);
        let bytes = |(key, bytes): (String, k8s_openapi::ByteString)| (key, bytes.0);
        Ok(match object.kind {
            ObjectKind::ConfigMap => {
                let api: Api<core::ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                let found = within(action(), api.get_opt(&object.name)).await?;
                found.map(|map| {
                    let text = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
                    Arc::new(text.chain(map.binary_data.into_iter().flatten().map(bytes)).collect())
                })
            }
            ObjectKind::Secret => {
                let api: Api<core::Secret> = Api::namespaced(self.client.clone(), namespace);
                let found = within(action(), api.get_opt(&object.name)).await?;
                found.map(|secret| Arc::new(secret.data.into_iter().flatten().map(bytes).collect()))
            }
        })
    }

    /// A token of the pod's account, renewed when four fifths of its life are over.
    ///
    /// # Errors
    /// Why the API does not issue it.
    pub async fn token(&self, pod: &Pod, audience: &str, lifetime: Duration) -> Result<String, PodError> {
        let key = (pod.uid.clone(), audience.to_owned(), lifetime.as_secs());
        {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.retain(|_, (until, _)| *until > Instant::now());
            if let Some((_, token)) = tokens.get(&key) {
                return Ok(token.clone());
            }
        }
        let asked = Instant::now();
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
        };
        let audiences = if audience.is_empty() { Vec::new() } else { vec![audience.to_owned()] };
        let spec = TokenRequestSpec {
            audiences,
            bound_object_ref: Some(bound),
            expiration_seconds: i64::try_from(lifetime.as_secs()).ok(),
        };
        let request = TokenRequest { spec, ..Default::default() };
        let api: Api<core::ServiceAccount> = Api::namespaced(self.client.clone(), &pod.namespace);
        let action = format!("get a token of service account {}/{}", pod.namespace, pod.service_account);
        let parameters = PostParams::default();
        let answer = within(action, api.create_token_request(&pod.service_account, &parameters, &request)).await?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(key, (asked + lifetime * 4 / 5, token.clone()));
        Ok(token)
    }

    /// What a claim is bound to.
    ///
    /// # Errors
    /// [`PodError::Missing`] until it is bound to a volume this node can reach.
    pub async fn claim(&self, namespace: &str, name: &str) -> Result<Claimed, PodError> {
        let missing = |what, name: &str| PodError::Missing { what, name: name.to_owned(), key: None };
        let claims: Api<core::PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = within(format!("read claim {namespace}/{name}"), claims.get_opt(name)).await?;
        let claim = claim.ok_or_else(|| missing("persistentvolumeclaim", name))?;
        let volume = claim.spec.and_then(|spec| spec.volume_name);
        let volume = volume.ok_or_else(|| missing("volume of unbound claim", name))?;
        let volumes: Api<core::PersistentVolume> = Api::all(self.client.clone());
        let found = within(format!("read volume {volume}"), volumes.get_opt(&volume)).await?;
        let spec = found.and_then(|found| found.spec).ok_or_else(|| missing("persistentvolume", &volume))?;
        let block = spec.volume_mode.as_deref() == Some("Block");
        let path = spec.local.map(|local| local.path).or_else(|| spec.host_path.map(|host| host.path));
        let path = path.ok_or_else(|| missing("local or hostPath source of volume", &volume))?;
        Ok(Claimed { path: path.into(), block })
    }

    /// Variables that name the services of a namespace, and the API's always.
    ///
    /// # Errors
    /// Why the API does not answer.
    pub async fn service_variables(&self, namespace: &str, links: bool) -> Result<Vec<(String, String)>, PodError> {
        let mut variables = Vec::new();
        if let Some((host, port)) = &self.node.api {
            variables.push(("KUBERNETES_SERVICE_HOST".into(), host.clone()));
            variables.push(("KUBERNETES_SERVICE_PORT".into(), port.to_string()));
            variables.push(("KUBERNETES_SERVICE_PORT_HTTPS".into(), port.to_string()));
        }
        if links {
            let api: Api<core::Service> = Api::namespaced(self.client.clone(), namespace);
            let services = within(format!("list services of {namespace}"), api.list(&Default::default())).await?;
            variables.extend(services.items.iter().flat_map(service_variables));
        }
        Ok(variables)
    }
}

/// `NAME_SERVICE_HOST` and the ports of one service that has an address.
fn service_variables(service: &core::Service) -> Vec<(String, String)> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let Some(spec) = service.spec.as_ref().filter(|_| name != "kubernetes") else { return Vec::new() };
    let Some(address) = spec.cluster_ip.as_ref().filter(|ip| !ip.is_empty() && *ip != "None") else {
        return Vec::new();
    };
    let upper = |text: &str| text.to_ascii_uppercase().replace(['-', '.'], "_");
    let prefix = upper(&name);
    let mut variables = vec![(format!("{prefix}_SERVICE_HOST"), address.clone())];
    for (n, port) in spec.ports.iter().flatten().enumerate() {
        if n == 0 {
            variables.push((format!("{prefix}_SERVICE_PORT"), port.port.to_string()));
        }
        if let Some(name) = &port.name {
            variables.push((format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string()));
        }
    }
    variables
}

/// Waits for an answer of the API, but not for ever.
///
/// # Errors
/// [`PodError::Api`].
async fn within<T>(action: String, answer: impl Future<Output = kube::Result<T>>) -> Result<T, PodError> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(PodError::Api { action, source: Some(Box::new(source)) }),
        Err(_) => Err(PodError::Api { action, source: None }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_with_an_address_become_variables() {
        let service = |name: &str, address: &str| -> core::Service {
            let ports = json!([{"name": "web-ui", "port": 80}, {"port": 81}]);
            let spec = json!({"clusterIP": address, "ports": ports});
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("service")
        };
        let want =
            [("MY_DB_SERVICE_HOST", "10.0.0.1"), ("MY_DB_SERVICE_PORT", "80"), ("MY_DB_SERVICE_PORT_WEB_UI", "80")];
        assert_eq!(
            service_variables(&service("my-db", "10.0.0.1")),
            want.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert!(service_variables(&service("my-db", "None")).is_empty());
        assert!(service_variables(&service("kubernetes", "10.0.0.1")).is_empty());
    }
}
