//! Events are news: old ones are deleted.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};
use osc_fault::{Kind, chain};

use crate::{
    context::Context,
    error::{Attempt, Error},
    pods::elapsed,
};

/// Time between rounds, as a part of the age limit.
const ROUNDS_PER_TTL: u32 = 12;
/// Events looked at together.
const PAGE: u32 = 250;

/// Runs the controller.
pub(crate) fn controller(cx: &Context) -> impl Future<Output = ()> + Send + 'static {
    let cx = cx.clone();
    async move {
        let period = (cx.options.event_ttl / ROUNDS_PER_TTL).max(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = cx.stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
            tokio::select! {
                () = cx.stop.cancelled() => return,
                result = sweep(&cx) => if let Err(error) = result {
                    tracing::warn!(error = %chain(&error), "old events not deleted; they are tried again");
                }
            }
        }
    }
}

async fn sweep(cx: &Context) -> Result<(), Error> {
    let all: Api<Event> = Api::all(cx.client.clone());
    let now = Timestamp::now();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let events = all.list(&page).await.during("list", "events")?;
        for event in events.items.iter().filter(|event| elapsed(last_seen(event), now) > cx.options.event_ttl) {
            let name = event.name_any();
            let api: Api<Event> = Api::namespaced(cx.client.clone(), &event.namespace().unwrap_or_default());
            let preconditions = Preconditions { uid: event.uid(), resource_version: event.resource_version() };
            let params = DeleteParams::default().preconditions(preconditions);
            // One that was counted again this moment stays.
            match api.delete(&name, &params).await.unless_gone("delete event", &name) {
                Err(error) if error.kind() == Kind::Busy => {}
                other => drop(other?),
            }
        }
        match events.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// When the event was last observed.
fn last_seen(event: &Event) -> Timestamp {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let times = [
        series,
        event.event_time.as_ref().map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    // An event without any time is taken for new: it cannot be judged.
    times.into_iter().flatten().max().unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{object, timestamp};

    #[test]
    fn the_latest_time_counts() {
        let seen = |value: serde_json::Value| {
            let mut event = value;
            event["involvedObject"] = json!({});
            last_seen(&object(event))
        };
        let early = "2026-01-01T00:00:00Z";
        let late = "2026-01-01T01:00:00Z";
        assert_eq!(seen(json!({"metadata": {"creationTimestamp": early}, "lastTimestamp": late})), timestamp(late));
        assert_eq!(
            seen(json!({"metadata": {"creationTimestamp": early}, "eventTime": "2026-01-01T01:00:00.000000Z"})),
            timestamp(late)
        );
        assert_eq!(seen(json!({"metadata": {}})), Timestamp::MAX);
    }
}
