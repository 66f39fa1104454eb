//! One request about one resource, on its way through the handlers.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::USER_AGENT};
use osc_access::Identity;
use osc_api::status::Status;
use serde_json::{Value, json};

use crate::{
    api::{Allowed, Api},
    render,
    request::{Accept, Query, ResourcePath, Verb},
    resources::{Served, Snapshot},
    response::{self, Body},
};

/// Longest name of a field manager, in bytes.
const LONGEST_MANAGER: usize = 128;

/// A request that was understood, authenticated and authorised.
pub(crate) struct Call {
    pub api: Arc<Api>,
    pub snapshot: Arc<Snapshot>,
    pub served: Arc<Served>,
    pub path: ResourcePath,
    pub verb: Verb,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub identity: Arc<Identity>,
    warnings: Mutex<Vec<String>>,
}

impl Call {
    pub fn new(api: Arc<Api>, allowed: Allowed, headers: HeaderMap, body: Bytes) -> Self {
        let Allowed { snapshot, served, path, verb, query, identity } = allowed;
        Self { api, snapshot, served, path, verb, query, headers, body, identity, warnings: Mutex::default() }
    }

    /// Remembers something the client should be told beside the answer.
    pub fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        let mut known = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings {
            if !known.contains(&warning) {
                known.push(warning);
            }
        }
    }

    /// Everything to be told beside the answer.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// In which form the answer is wanted.
    pub fn accept(&self) -> Result<Accept, Status> {
        Accept::negotiate(&self.headers)
            .ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))
    }

    /// Answers with an object of this resource, in the form the client wants.
    pub fn object(&self, code: StatusCode, object: Value) -> Result<Response<Body>, Status> {
        let accept = self.accept()?;
        let value = render::object(&self.served, accept.form, object, &self.query)?;
        Ok(response::value(code, accept.wire, &value))
    }

    /// Answers with a value of another kind.
    pub fn plain(&self, code: StatusCode, value: &Value) -> Result<Response<Body>, Status> {
        Ok(response::value(code, self.accept()?.wire, value))
    }

    /// How the write is to be made.
    pub fn write_options(&self) -> Result<WriteOptions, Status> {
        Ok(WriteOptions { dry_run: self.query.dry_run()?, manager: self.manager()? })
    }

    /// Who owns the fields written: `fieldManager`, or the client program's name.
    fn manager(&self) -> Result<String, Status> {
        if let Some(manager) = self.query.get("fieldManager") {
            if manager.len() > LONGEST_MANAGER || manager.chars().any(char::is_control) {
                let why = format!("must be printable and no longer than {LONGEST_MANAGER} bytes");
                return Err(crate::request::query::invalid_option("fieldManager", manager, "Invalid value", &why));
            }
            return Ok(manager.into());
        }
        let agent = self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
        let name = agent.split('/').next().unwrap_or_default();
        let end = name.char_indices().map(|(at, _)| at).nth(LONGEST_MANAGER).unwrap_or(name.len());
        Ok(if name.is_empty() { "unknown".into() } else { name[..end].into() })
    }
}

/// Parameters all writes share.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub manager: String,
}

impl WriteOptions {
    /// As admission sees them: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub fn to_value(&self, kind: &str) -> Value {
        let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "fieldManager": self.manager});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }
}
