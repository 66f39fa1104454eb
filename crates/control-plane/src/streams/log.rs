//! `pods/log`.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use http::Response;
use osc_api::status::Status;
use tokio::time::timeout;

use super::options;
use crate::{
    call::Call,
    objects,
    response::{self, Body},
};

/// Time a node has to begin.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// `GET` of the output of a container.
pub(crate) async fn log(call: &Call) -> Result<Response<Body>, Status> {
    let pod = objects::expect(&call.api.store, &call.served, &call.path.namespace, &call.path.name)?;
    let options = options::log(&pod, &call.query)?;
    let agent = call.api.nodes.of(&pod)?;
    let permit = Arc::clone(&call.api.nodes.streams).try_acquire_owned().map_err(|_| busy())?;
    let stream = timeout(PATIENCE, agent.logs(&pod, options)).await;
    let stream = stream.map_err(|_| Status::timeout("the node does not answer"))?.map_err(super::NodeError::status)?;
    let stop = call.api.stop.clone();
    let stream = stream.take_until(async move { stop.cancelled().await }).map(move |item| {
        // Held as long as the stream lives.
        let _ = &permit;
        item
    });
    Ok(response::stream("text/plain", stream))
}

/// 429: as many streams are open as may be.
pub(super) fn busy() -> Status {
    Status::too_many_requests("too many streams are open", 5)
}
