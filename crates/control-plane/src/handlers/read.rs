//! One object.

use http::{Response, StatusCode};
use osc_api::status::Status;

use crate::{call::Call, objects, response::Body};

/// `GET` of an object or of a subresource that shows the whole object.
pub(super) fn get(call: &Call) -> Result<Response<Body>, Status> {
    let object = objects::expect(&call.api.store, &call.served, &call.path.namespace, &call.path.name)?;
    call.object(StatusCode::OK, object)
}
