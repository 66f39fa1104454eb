//! The same server without a network: for the controllers in our own process.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use osc_access::identity::Identity;

use super::{Limits, answer};
use crate::{
    api::{Api, Caller},
    response::Body,
};

/// A `tower::Service` that answers as the server would answer `identity`; fit
/// for `kube::Client::new`. Streams that need an upgraded connection (exec,
/// attach, port-forward) do not work here.
#[derive(Clone)]
pub struct InProcess {
    api: Arc<Api>,
    identity: Arc<Identity>,
}

impl InProcess {
    pub(crate) fn new(api: Arc<Api>, identity: Identity) -> Self {
        Self { api, identity: Arc::new(identity) }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (api, caller) = (Arc::clone(&self.api), Caller::Known(Arc::clone(&self.identity)));
        Box::pin(async move { Ok(answer(&api, request, caller, Limits::default()).await) })
    }
}
