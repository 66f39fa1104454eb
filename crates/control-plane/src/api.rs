//! The heart: everything a request needs, and the way of a request through it.
//!
//! ```text
//!  who? (authenticate, impersonate) ─► what? (path, catalog) ─► may they? (authorise) ─► handlers
//! ```

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Response, header::AUTHORIZATION, request::Parts};
use osc_access::{
    Attributes as Action, Authenticator, Authorizer, Decision, Identity,
    impersonate::{Impersonation, Refused},
    token::Reference,
};
use osc_api::status::Status;
use osc_fault::chain;
use osc_store::Store;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    admission::Chain,
    call::Call,
    config::Config,
    handlers::{self, Outlines},
    load::Load,
    metrics::{Asked, Metrics},
    paths,
    reader::Reader,
    request::{Path, Query, ResourcePath, Verb},
    resources::{Catalog, Served, Snapshot},
    response::{self, Body},
    server::Received,
    streams::Nodes,
};

/// Who is on the other end of a request.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Somebody behind a TLS connection, with the certificates shown there.
    Peer(Arc<[CertificateDer<'static>]>),
    /// A part of our own process.
    Known(Arc<Identity>),
}

/// A request for a resource by somebody who may make it.
pub(crate) struct Allowed {
    pub snapshot: Arc<Snapshot>,
    pub served: Arc<Served>,
    pub path: ResourcePath,
    pub verb: Verb,
    pub query: Query,
    pub identity: Arc<Identity>,
}

impl Allowed {
    /// Whether the client ends it, not the server; such requests have bounds of their own.
    fn is_endless(&self) -> bool {
        self.verb == Verb::Watch || matches!(self.path.subresource.as_str(), "attach" | "exec" | "log" | "portforward")
    }
}

/// Everything requests are served from.
pub(crate) struct Api {
    pub config: Config,
    pub store: Store,
    pub catalog: Arc<Catalog>,
    pub reader: Reader,
    pub authenticator: Authenticator,
    pub authorizer: Arc<Authorizer>,
    pub admission: Chain,
    pub nodes: Nodes,
    pub load: Load,
    /// Of the newest changes, for watches with selectors.
    pub outlines: Outlines,
    pub metrics: Metrics,
    /// Fires when the server stops: watches and streams end.
    pub stop: CancellationToken,
    /// Work that outlives its request.
    pub tasks: TaskTracker,
}

impl Api {
    /// Answers one request; never fails, failures are answers. The body is read once the request is allowed.
    pub async fn serve<'a>(
        api: &'a Arc<Self>,
        parts: Parts,
        body: impl Future<Output = Result<Received<'a>, Status>> + Send,
        caller: Caller,
    ) -> Response<Body> {
        let (began, mut asked) = (Instant::now(), Asked::default());
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let answer = match Self::route(api, parts, body, caller, &mut asked).await {
            Ok(response) => response,
            Err(status) => {
                debug!(%method, path, code = status.code, reason = status.reason, "request refused");
                response::error(&status)
            }
        };
        api.metrics.count(asked, answer.status().as_u16(), began.elapsed());
        answer
    }

    async fn route<'a>(
        api: &'a Arc<Self>,
        parts: Parts,
        body: impl Future<Output = Result<Received<'a>, Status>> + Send,
        caller: Caller,
        asked: &mut Asked,
    ) -> Result<Response<Body>, Status> {
        let stranger = matches!(caller, Caller::Peer(_));
        let identity = api.identify(&parts.headers, caller)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        match Path::parse(parts.uri.path()) {
            Path::Resource(path) => {
                let allowed = api.allow(&parts, query, path, identity)?;
                *asked = Asked::of(allowed.verb, &allowed.served, &allowed.path.subresource);
                let body = body.await?;
                // Parts of this process know themselves how much they ask at once.
                let _place = if stranger && !allowed.is_endless() { Some(api.load.request()?) } else { None };
                Self::resource(api, parts, body.bytes.clone(), allowed).await
            }
            path => {
                api.authorize_path(&identity, &parts)?;
                paths::answer(api, &parts, &path, &query)
            }
        }
    }

    /// Finds the resource of a request and refuses who may not do this to it.
    fn allow(
        &self,
        parts: &Parts,
        query: Query,
        path: ResourcePath,
        identity: Arc<Identity>,
    ) -> Result<Allowed, Status> {
        let watch = query.flag("watch");
        let verb = path.verb(&parts.method, watch).ok_or_else(Status::method_not_allowed)?;
        // A stranger learns nothing about which resources exist: first the permission.
        let name = pinned_name(&path, verb, &query);
        let action = Action::resource(verb.as_str(), &path.group, &path.resource, &path.namespace, &name)
            .on_subresource(&path.subresource);
        self.authorize(&identity, &action)?;
        let snapshot = self.catalog.snapshot();
        let served = snapshot.find(&path.group, &path.version, &path.resource).ok_or_else(Status::unknown_path)?;
        let served = Arc::clone(served);
        if !served.resource.namespaced && !path.namespace.is_empty() && path.resource != "namespaces" {
            return Err(Status::unknown_path());
        }
        Ok(Allowed { snapshot, served, path, verb, query, identity })
    }

    async fn resource(
        api: &Arc<Self>,
        mut parts: Parts,
        body: Bytes,
        allowed: Allowed,
    ) -> Result<Response<Body>, Status> {
        let upgrade = parts.extensions.remove();
        let call = Call::new(Arc::clone(api), allowed, parts.headers, body);
        let mut answer = handlers::dispatch(&call, &parts.method, upgrade).await;
        let warnings = call.take_warnings();
        match &mut answer {
            Ok(response) => response::warn(response, &warnings),
            Err(status) => {
                let mut response = response::error(status);
                response::warn(&mut response, &warnings);
                debug!(path = parts.uri.path(), code = status.code, reason = status.reason, "request refused");
                return Ok(response);
            }
        }
        answer
    }

    fn identify(&self, headers: &HeaderMap, caller: Caller) -> Result<Arc<Identity>, Status> {
        let identity = match caller {
            Caller::Known(identity) => identity,
            Caller::Peer(certificates) => {
                let header = match headers.get(AUTHORIZATION) {
                    Some(header) => Some(header.to_str().map_err(|_| Status::unauthorized())?),
                    None => None,
                };
                let live = |reference: &Reference<'_>| self.reader.live_uid(reference);
                let found = self.authenticator.authenticate(&certificates, header, live, OffsetDateTime::now_utc());
                Arc::new(found.map_err(|refusal| {
                    debug!(error = chain(&refusal), "credentials refused");
                    Status::unauthorized()
                })?)
            }
        };
        let texts = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let refused = |refused| match refused {
            Refused::NoUser => Status::bad_request(Refused::NoUser.to_string()),
            Refused::Forbidden(message) => Status::forbidden_message(message),
        };
        match Impersonation::from_headers(texts).map_err(refused)? {
            None => Ok(identity),
            Some(wish) => wish.assume(&identity, &self.authorizer).map(Arc::new).map_err(refused),
        }
    }

    /// Refuses with 403 what no rule allows.
    pub fn authorize(&self, identity: &Identity, action: &Action<'_>) -> Result<(), Status> {
        match self.authorizer.authorize(identity, action) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Denied { message, .. } => {
                let mut status = Status::forbidden_message(message);
                if let osc_access::rbac::Target::Resource { group, resource, name, .. } = action.target {
                    let details = status.details_mut();
                    details.group = group.into();
                    details.kind = resource.into();
                    details.name = name.into();
                }
                Err(status)
            }
        }
    }

    /// Refuses who may patch but not create, when apply has to create.
    pub fn authorize_create(&self, call: &Call) -> Result<(), Status> {
        let path = &call.path;
        let action = Action::resource(Verb::Create.as_str(), &path.group, &path.resource, &path.namespace, &path.name);
        self.authorize(&call.identity, &action)
    }

    fn authorize_path(&self, identity: &Identity, parts: &Parts) -> Result<(), Status> {
        let verb = parts.method.as_str().to_ascii_lowercase();
        self.authorize(identity, &Action::path(&verb, parts.uri.path()))
    }
}

/// The object a request is about: named by the path, or pinned by a field selector.
fn pinned_name(path: &ResourcePath, verb: Verb, query: &Query) -> String {
    if !path.name.is_empty() || !matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection) {
        return path.name.clone();
    }
    let selector = query.get("fieldSelector").unwrap_or_default();
    let pinned = selector.split(',').find_map(|part| part.strip_prefix("metadata.name="));
    pinned.map(|name| name.trim_start_matches('=').to_owned()).unwrap_or_default()
}
