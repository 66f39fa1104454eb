//! A control plane in a directory of its own, and ways to talk to it.

use std::{
    path::PathBuf,
    process::Output,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::config::{KubeConfigOptions, Kubeconfig};
use osc_access::Identity;
use osc_control_plane::{Body, Config, ControlPlane};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::timeout,
};
use tower::ServiceExt;

/// Nothing in these tests takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Tests that need the machine for themselves wait for those that do not.
static MACHINE: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

/// Held by a test beside which no other runs.
pub async fn alone() -> OwnedRwLockWriteGuard<()> {
    Arc::clone(&MACHINE).write_owned().await
}

/// A running control plane; gone with its directory when dropped after `stop`.
pub struct Cluster {
    pub plane: ControlPlane,
    pub directory: tempfile::TempDir,
    _turn: Turn,
}

/// The machine, shared with other tests or not.
enum Turn {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

impl Cluster {
    pub async fn start() -> Self {
        let cluster = Self::open(|_| {}).await;
        // What controllers would do.
        cluster.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        cluster
    }

    /// An empty one, configured otherwise than by default.
    pub async fn open(configure: impl FnOnce(&mut Config)) -> Self {
        let turn = Turn::Shared { _guard: Arc::clone(&MACHINE).read_owned().await };
        Self::open_in(turn, configure).await
    }

    /// The same, with no other test beside it.
    pub async fn alone(configure: impl FnOnce(&mut Config)) -> Self {
        Self::open_in(Turn::Alone { _guard: alone().await }, configure).await
    }

    async fn open_in(turn: Turn, configure: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::new(directory.path());
        configure(&mut config);
        let plane = ControlPlane::open(config).await.expect("a control plane");
        Self { plane, directory, _turn: turn }
    }

    /// Stops it and opens it again on the same directory, at the same address.
    pub async fn restart(mut self, configure: impl FnOnce(&mut Config)) -> Self {
        self.plane.shutdown().await;
        let mut config = Config::new(self.directory.path());
        configure(&mut config);
        config.listen = self.plane.address();
        self.plane = ControlPlane::open(config).await.expect("the same control plane");
        self
    }

    /// kube-rs as the administrator, over TLS.
    pub async fn client(&self) -> kube::Client {
        let config = Kubeconfig::from_yaml(&self.plane.administrator().expect("a certificate")).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.expect("a configuration")).expect("a client")
    }

    pub async fn stop(self) {
        timeout(PATIENCE, self.plane.shutdown()).await.expect("an orderly end");
    }

    /// Sends a request as the administrator.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.send_as(Identity::administrator(), request).await
    }

    pub async fn send_as(&self, identity: Identity, request: Request<Full<Bytes>>) -> Response<Body> {
        let answer = self.plane.service(identity).oneshot(request);
        timeout(PATIENCE, answer).await.expect("an answer in time").expect("services do not fail")
    }

    /// Sends JSON and reads JSON.
    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.call_with(method, path, "application/json", body.to_string()).await
    }

    pub async fn call_with(&self, method: Method, path: &str, media_type: &str, body: String) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", media_type);
        let body = if body == "null" { String::new() } else { body };
        read(self.send(request.body(Full::from(body)).expect("a request")).await).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, Value::Null).await
    }

    pub async fn create(&self, path: &str, object: Value) -> Value {
        let (code, value) = self.call(Method::POST, path, object).await;
        assert_eq!(code, 201, "POST {path}: {value}");
        value
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, Value::Null).await
    }

    pub async fn merge(&self, path: &str, patch: Value) -> (u16, Value) {
        self.call_with(Method::PATCH, path, "application/merge-patch+json", patch.to_string()).await
    }

    /// Begins a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let request = Request::builder().uri(path).body(Full::default()).expect("a request");
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Watch { body: response.into_body(), buffer: Vec::new() }
    }

    /// Asks until `wanted` says yes.
    pub async fn until(&self, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        let asking = async {
            loop {
                let (code, value) = self.get(path).await;
                if wanted(code, &value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} did not become what it should"))
    }

    /// Writes the administrator's kubeconfig and returns its path.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        std::fs::write(&path, self.plane.administrator().expect("a certificate")).expect("a file");
        path
    }
}

pub async fn read(response: Response<Body>) -> (u16, Value) {
    let code = response.status().as_u16();
    let bytes = timeout(PATIENCE, response.into_body().collect()).await.expect("a body in time").expect("a body");
    let bytes = bytes.to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned())))
}

/// The lines of a watch.
pub struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            self.buffer.extend_from_slice(&frame.expect("a frame").into_data().expect("data"));
        }
    }

    /// Type and name of the next event.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }
}

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}}})
}

pub fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wi"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale":
                    {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {
                        "type": "object", "required": ["size"],
                        "description": "What is wanted.",
                        "properties": {
                            "size": {"type": "integer", "minimum": 1, "description": "How big."},
                            "colour": {"type": "string", "default": "red"},
                            "replicas": {"type": "integer"}
                        },
                        "x-kubernetes-validations": [{"rule": "self.size < 10", "message": "too big"}]
                    },
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
                }}}
            }]
        }
    })
}

/// Everything a program said.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
