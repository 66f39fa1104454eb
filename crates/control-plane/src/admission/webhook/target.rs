//! Where a webhook is: from its configuration to addresses.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Uri;
use osc_api::status::Status;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::hook::{ClientConfig, ServiceReference};
use crate::reader::Reader;

const HTTPS: u16 = 443;
/// Most addresses tried for one call.
const MOST_ADDRESSES: usize = 8;

/// A webhook's place.
#[derive(Debug)]
pub(super) struct Target {
    /// Whom the server's certificate must name.
    pub server_name: String,
    /// Port named in the configuration; for services not the one connected to.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Hosts and ports to connect to; any will do.
    pub addresses: Vec<(String, u16)>,
    /// Certificates to trust, PEM.
    pub bundle: Vec<u8>,
}

/// The webhook is nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadTarget {
    #[error("clientConfig needs either a url or a service")]
    Unset,
    #[error("url {0:?} must be an https URL without user, query or fragment")]
    Url(String),
    #[error("path {0:?} is not the path of a URL")]
    Path(String),
    #[error("clientConfig.caBundle is missing or not base64: put the certificate of the server's authority there")]
    Bundle,
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("service {service:?} has no port {port}")]
    NoPort { service: String, port: u16 },
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    #[error("endpoints cannot be read")]
    Read(#[source] Status),
}

impl Target {
    /// The address people know.
    pub fn url(&self) -> String {
        format!("https://{}:{}{}", self.server_name, self.port, self.path)
    }
}

pub(super) async fn find(reader: &Reader, config: &ClientConfig, timeout: Duration) -> Result<Target, BadTarget> {
    let bundle = config.ca_bundle.as_deref().filter(|bundle| !bundle.is_empty()).ok_or(BadTarget::Bundle)?;
    let bundle = STANDARD.decode(bundle).map_err(|_| BadTarget::Bundle)?;
    let mut target = match (&config.url, &config.service) {
        (Some(url), None) => at_url(url, bundle)?,
        (None, Some(service)) => at_service(reader, service, bundle).await?,
        _ => return Err(BadTarget::Unset),
    };
    target.path = format!("{}?timeout={}s", target.path, timeout.as_secs());
    target.path.parse::<Uri>().map_err(|_| BadTarget::Path(target.path.clone()))?;
    Ok(target)
}

fn at_url(url: &str, bundle: Vec<u8>) -> Result<Target, BadTarget> {
    let bad = || BadTarget::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    let plain = !authority.as_str().contains('@') && uri.query().is_none() && !url.contains('#');
    if uri.scheme_str() != Some("https") || !plain {
        return Err(bad());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(HTTPS);
    let addresses = vec![(host.clone(), port)];
    Ok(Target { server_name: host, port, path: uri.path().to_owned(), addresses, bundle })
}

async fn at_service(reader: &Reader, reference: &ServiceReference, bundle: Vec<u8>) -> Result<Target, BadTarget> {
    let ServiceReference { namespace, name, path, port } = reference;
    let port = port.unwrap_or(HTTPS);
    let service = reader.get("", "services", namespace, name).map_err(BadTarget::Read)?;
    let service = service.ok_or_else(|| BadTarget::NoService(name.clone()))?;
    let no_port = || BadTarget::NoPort { service: name.clone(), port };
    let entry = list(&service["spec"]["ports"]).iter().find(|entry| entry["port"] == port).ok_or_else(no_port)?;
    let mut addresses = endpoints(reader, namespace, name, &service, entry).await.map_err(BadTarget::Read)?;
    if addresses.is_empty() {
        return Err(BadTarget::NoEndpoints(name.clone()));
    }
    addresses.shuffle(&mut rand::rng());
    addresses.truncate(MOST_ADDRESSES);
    let path = match path.as_deref() {
        None | Some("") => "/".to_owned(),
        Some(path) => path.to_owned(),
    };
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(BadTarget::Path(path));
    }
    Ok(Target { server_name: format!("{name}.{namespace}.svc"), port, path, addresses, bundle })
}

/// The addresses behind a port of a service: from its slices, else its Endpoints, else its pods themselves, which
/// helps in the moment before a controller has made the others.
async fn endpoints(
    reader: &Reader,
    namespace: &str,
    name: &str,
    service: &Value,
    port: &Value,
) -> Result<Vec<(String, u16)>, Status> {
    let slices = reader.list("discovery.k8s.io", "endpointslices", namespace).await?;
    let own = |slice: &&Value| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name;
    let found: Vec<_> = slices.iter().filter(own).flat_map(|slice| in_slice(slice, port)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if let Some(endpoints) = reader.get("", "endpoints", namespace, name)? {
        let found: Vec<_> = list(&endpoints["subsets"]).iter().flat_map(|subset| in_subset(subset, port)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let Some(selector) = service["spec"]["selector"].as_object().filter(|selector| !selector.is_empty()) else {
        return Ok(Vec::new());
    };
    let pods = reader.list("", "pods", namespace).await?;
    let chosen = pods.iter().filter(|pod| {
        let labels = &pod["metadata"]["labels"];
        selector.iter().all(|(key, value)| labels.get(key) == Some(value)) && is_ready(pod)
    });
    Ok(chosen.filter_map(|pod| Some((text(&pod["status"]["podIP"])?, pod_port(pod, port)?))).collect())
}

fn in_slice(slice: &Value, port: &Value) -> Vec<(String, u16)> {
    let Some(number) = named(&slice["ports"], port) else { return Vec::new() };
    let ready = list(&slice["endpoints"]).iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
    ready.flat_map(|endpoint| list(&endpoint["addresses"])).filter_map(|it| Some((text(it)?, number))).collect()
}

fn in_subset(subset: &Value, port: &Value) -> Vec<(String, u16)> {
    let Some(number) = named(&subset["ports"], port) else { return Vec::new() };
    list(&subset["addresses"]).iter().filter_map(|address| Some((text(&address["ip"])?, number))).collect()
}

/// The number of the port that has the name of the service's port; both may be without.
fn named(ports: &Value, port: &Value) -> Option<u16> {
    let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
    list(ports).iter().find(|own| name(own) == name(port)).and_then(|own| number(&own["port"]))
}

/// Where a pod listens for a service's port, which may name one of the pod's.
fn pod_port(pod: &Value, port: &Value) -> Option<u16> {
    match &port["targetPort"] {
        Value::Null => number(&port["port"]),
        Value::String(name) => list(&pod["spec"]["containers"])
            .iter()
            .flat_map(|container| list(&container["ports"]))
            .find(|own| own["name"] == name.as_str())
            .and_then(|own| number(&own["containerPort"])),
        target => number(target),
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = list(&pod["status"]["conditions"]);
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::World;
    use serde_json::json;

    fn config(rest: Value) -> ClientConfig {
        let mut config = json!({ "caBundle": STANDARD.encode("pem") });
        config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    fn service(name: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" },
            "spec": { "selector": { "app": name }, "ports": [
                { "name": "other", "port": 80, "targetPort": 80 },
                { "name": "hook", "port": 443, "targetPort": "tls" },
            ] } })
    }

    #[tokio::test]
    async fn services_lead_to_addresses() {
        let objects = [
            service("sliced"),
            json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": { "name": "s", "namespace": "default", "labels": { "kubernetes.io/service-name": "sliced" } },
                "ports": [{ "name": "other", "port": 8080 }, { "name": "hook", "port": 9443 }],
                "endpoints": [
                    { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
                    { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
                    { "addresses": ["10.0.0.3"] },
                ] }),
            service("old"),
            json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "old", "namespace": "default" },
                "subsets": [{ "addresses": [{ "ip": "10.0.1.1" }], "notReadyAddresses": [{ "ip": "10.0.1.2" }],
                    "ports": [{ "name": "hook", "port": 9443 }] }] }),
            service("fresh"),
            json!({ "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "p", "namespace": "default", "labels": { "app": "fresh" } },
                "spec": { "containers": [{ "name": "c", "ports": [{ "name": "tls", "containerPort": 7443 }] }] },
                "status": { "podIP": "10.0.2.1", "conditions": [{ "type": "Ready", "status": "True" }] } }),
            service("empty"),
        ];
        let world = World::with(&objects).await;
        let rows = [
            ("sliced", None, Ok(vec![("10.0.0.1", 9443), ("10.0.0.3", 9443)])),
            ("sliced", Some(80), Ok(vec![("10.0.0.1", 8080), ("10.0.0.3", 8080)])),
            ("sliced", Some(81), Err("service \"sliced\" has no port 81")),
            ("old", None, Ok(vec![("10.0.1.1", 9443)])),
            ("fresh", None, Ok(vec![("10.0.2.1", 7443)])),
            ("empty", None, Err("no endpoints available for service \"empty\"")),
            ("none", None, Err("service \"none\" not found")),
        ];
        for (name, port, want) in rows {
            let service = json!({ "service": { "namespace": "default", "name": name, "port": port, "path": "/x" } });
            let seen = find(&world.reader, &config(service), Duration::from_secs(3)).await;
            match want {
                Ok(want) => {
                    let mut target = seen.unwrap();
                    target.addresses.sort();
                    let want: Vec<_> = want.into_iter().map(|(host, port)| (host.to_owned(), port)).collect();
                    assert_eq!(target.addresses, want, "{name}");
                    assert_eq!(target.server_name, format!("{name}.default.svc"));
                    assert_eq!(target.path, "/x?timeout=3s");
                }
                Err(want) => assert_eq!(seen.unwrap_err().to_string(), want, "{name}"),
            }
        }
    }

    #[tokio::test]
    async fn only_plain_https_urls_are_taken() {
        let world = World::with(&[]).await;
        let rows = [
            ("https://127.0.0.1:9443/mutate", Some("https://127.0.0.1:9443/mutate?timeout=1s")),
            ("https://hook.example.org", Some("https://hook.example.org:443/?timeout=1s")),
            ("http://hook.example.org", None),
            ("https://user@hook.example.org/", None),
            ("https://hook.example.org/?a=b", None),
            ("https://hook.example.org/#a", None),
            ("/path", None),
            ("", None),
        ];
        for (url, want) in rows {
            let seen = find(&world.reader, &config(json!({ "url": url })), Duration::from_secs(1)).await;
            assert_eq!(seen.ok().map(|target| target.url()).as_deref(), want, "{url}");
        }
        let both = config(json!({ "url": "https://x", "service": { "namespace": "a", "name": "b" } }));
        assert!(matches!(find(&world.reader, &both, Duration::from_secs(1)).await, Err(BadTarget::Unset)));
        let bare = ClientConfig { ca_bundle: None, ..config(json!({ "url": "https://x" })) };
        assert!(matches!(find(&world.reader, &bare, Duration::from_secs(1)).await, Err(BadTarget::Bundle)));
    }
}
