//! A webhook server for tests, with a certificate of its own authority.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use osc_access::ca::Authority;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// What the server answers, after a while.
pub(super) struct Reply {
    pub code: u16,
    pub body: Vec<u8>,
    pub after: Duration,
}

type Behaviour = dyn Fn(&str, &Value) -> Reply + Send + Sync;

/// A server that keeps every question; its tasks end with it.
pub(super) struct Server {
    pub address: SocketAddr,
    /// In base64, as configurations hold it.
    pub bundle: String,
    pub connections: Arc<AtomicUsize>,
    questions: Arc<Mutex<Vec<(String, Value)>>>,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Serves under these names; `behaviour` gets path and review.
    pub async fn start(names: &[&str], behaviour: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path(), OffsetDateTime::now_utc()).unwrap());
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(names).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let questions = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let mut tasks = JoinSet::new();
        let (kept, count) = (questions.clone(), connections.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, kept, behaviour) = (acceptor.clone(), kept.clone(), behaviour.clone());
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, kept.clone(), behaviour.clone()));
                    // A client that goes away ends the connection: no concern of the test's.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let bundle = STANDARD.encode(authority.certificate_pem());
        Self { address, bundle, connections, questions, _tasks: tasks, _directory: directory }
    }

    /// Paths of the questions so far, without query.
    pub fn paths(&self) -> Vec<String> {
        self.questions.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    /// The questions so far.
    pub fn reviews(&self) -> Vec<Value> {
        self.questions.lock().unwrap().iter().map(|(_, review)| review.clone()).collect()
    }

    /// A hook at this server under `path` that looks at all config maps.
    pub fn hook(&self, name: &str, path: &str, rest: Value) -> Value {
        let mut hook = json!({
            "name": name,
            "clientConfig": { "url": format!("https://127.0.0.1:{}{path}", self.address.port()), "caBundle": self.bundle },
            "rules": [{ "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }],
            "sideEffects": "None",
            "admissionReviewVersions": ["v2", "v1", "v1beta1"],
        });
        hook.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        hook
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

fn answer(request: Request<Incoming>, kept: Arc<Mutex<Vec<(String, Value)>>>, behaviour: Arc<Behaviour>) -> Answering {
    Box::pin(async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&body).unwrap();
        let reply = behaviour(&path, &review);
        kept.lock().unwrap().push((path, review));
        tokio::time::sleep(reply.after).await;
        Ok(Response::builder().status(reply.code).body(Full::new(reply.body.into())).unwrap())
    })
}

/// An answer to `review` with these fields in its response.
pub(super) fn says(review: &Value, response: Value) -> Reply {
    let mut answer = json!({ "kind": "AdmissionReview", "apiVersion": review["apiVersion"],
        "response": { "uid": review["request"]["uid"], "allowed": true } });
    answer["response"].as_object_mut().unwrap().extend(response.as_object().unwrap().clone());
    Reply { code: 200, body: answer.to_string().into_bytes(), after: Duration::ZERO }
}

/// An answer that changes the object.
pub(super) fn patches(review: &Value, patch: &Value) -> Reply {
    says(review, json!({ "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string()) }))
}

pub(super) fn mutating(name: &str, hooks: &[Value]) -> Value {
    configuration("MutatingWebhookConfiguration", name, hooks)
}

pub(super) fn validating(name: &str, hooks: &[Value]) -> Value {
    configuration("ValidatingWebhookConfiguration", name, hooks)
}

fn configuration(kind: &str, name: &str, hooks: &[Value]) -> Value {
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "webhooks": hooks })
}

pub(super) fn config_map() -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "default" }, "data": {} })
}
