//! What is done for each verb and subresource.

mod binding;
mod change;
mod collection;
mod eviction;
mod list;
mod outlines;
mod read;
mod reviews;
mod scale;
mod selection;
mod token;
mod watch;

use http::{Method, Response};
use hyper::upgrade::OnUpgrade;
use osc_api::status::Status;

use crate::{call::Call, request::Verb, response::Body, streams};
pub(crate) use outlines::Outlines;

/// Finds the handler of a call and runs it.
pub(crate) async fn dispatch(
    call: &Call,
    method: &Method,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let path = &call.path;
    if path.subresource.is_empty() {
        return main(call).await;
    }
    let served = &call.served.resource;
    let subresource = served.subresource(&path.subresource).ok_or_else(Status::unknown_path)?;
    if !subresource.verbs.iter().any(|verb| verb == call.verb.as_str()) {
        return Err(Status::method_not_allowed());
    }
    match (path.subresource.as_str(), call.verb) {
        ("scale", Verb::Get) => scale::get(call),
        ("scale", _) => scale::change(call).await,
        ("binding", _) => binding::create(call, &path.name).await,
        ("eviction", _) => eviction::create(call).await,
        ("token", _) => token::create(call).await,
        ("log", _) => streams::log(call).await,
        ("exec" | "attach" | "portforward", _) => streams::upgrade(call, method, upgrade).await,
        (_, Verb::Get) => read::get(call),
        (_, Verb::Update) => change::update(call).await,
        (_, Verb::Patch) => change::patch(call).await,
        _ => Err(Status::method_not_allowed()),
    }
}

async fn main(call: &Call) -> Result<Response<Body>, Status> {
    let resource = &call.served.resource;
    if !resource.can(call.verb.as_str()) {
        return Err(Status::method_not_allowed());
    }
    if resource.namespaced && call.path.namespace.is_empty() {
        // Without a namespace there is only the list of all namespaces.
        match call.verb {
            Verb::List | Verb::Watch if call.path.name.is_empty() => {}
            Verb::Create => return Err(Status::bad_request("an object of this kind is created in a namespace")),
            _ => return Err(Status::unknown_path()),
        }
    }
    match call.verb {
        Verb::Get => read::get(call),
        Verb::List => list::list(call).await,
        Verb::Watch => watch::watch(call).await,
        Verb::Create if reviews::is_review(resource) => reviews::create(call),
        Verb::Create if resource.is("", "bindings") => binding::create(call, "").await,
        Verb::Create if !call.path.name.is_empty() => Err(Status::method_not_allowed()),
        Verb::Create => change::create(call).await,
        Verb::Update => change::update(call).await,
        Verb::Patch => change::patch(call).await,
        Verb::Delete => change::delete(call).await,
        Verb::DeleteCollection => collection::delete(call).await,
    }
}
