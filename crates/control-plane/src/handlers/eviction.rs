//! Deleting a pod as far as disruption budgets allow.

use http::{Response, StatusCode};
use osc_api::{
    selector::LabelSelector,
    status::{Cause, Status},
};
use serde_json::{Value, json};

use super::change;
use crate::{
    call::Call,
    objects,
    response::Body,
    write::{self, Intent, Ownership, delete, update},
};

/// Seconds after which an eviction is worth another try while its budget is not worked out.
const RETRY: u32 = 10;
/// Disruptions a budget remembers; more means its controller does not keep up.
const MOST_DISRUPTED: usize = 2000;

/// `POST` to `pods/<name>/eviction`, in `policy/v1` or `v1beta1`.
pub(super) async fn create(call: &Call) -> Result<Response<Body>, Status> {
    let eviction = body(call)?;
    let given = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !given.is_empty() && given != call.path.name {
        return Err(Status::bad_request(format!("the eviction is of pod {given}, the path of {}", call.path.name)));
    }
    let options = change::checked(eviction["deleteOptions"].clone())?;
    let dry_run = eviction["deleteOptions"]["dryRun"].as_array().is_some_and(|all| !all.is_empty());
    let pod = objects::expect(&call.api.store, &call.served, &call.path.namespace, &call.path.name)?;
    let warn = |warnings| call.warn(warnings);
    let mut intent = write::intent(call, Ownership::Update, &warn)?;
    intent.options.dry_run |= dry_run;
    if !is_free(&pod) {
        charge_budget(call, &intent, &pod).await?;
    }
    // To admission it is the deletion of a pod.
    let intent = Intent { subresource: "", ..intent };
    delete::delete(&intent, &options).await?;
    call.plain(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

fn body(call: &Call) -> Result<Value, Status> {
    match write::body::foreign(call, "policy/v1", "Eviction") {
        Err(status) if status.code == 400 => write::body::foreign(call, "policy/v1beta1", "Eviction"),
        other => other,
    }
}

/// Pods that do no work may go whatever a budget says.
fn is_free(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
        || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

/// Takes one disruption from the budget that covers the pod.
async fn charge_budget(call: &Call, intent: &Intent<'_>, pod: &Value) -> Result<(), Status> {
    let namespace = &call.path.namespace;
    let budgets = call.api.reader.list("policy", "poddisruptionbudgets", namespace).await?;
    let covers = |budget: &&Value| {
        LabelSelector::from_object(&budget["spec"]["selector"]).is_ok_and(|selector| selector.matches_object(pod))
    };
    let mut covering = budgets.iter().filter(covers);
    let (Some(budget), other) = (covering.next(), covering.next()) else { return Ok(()) };
    if other.is_some() {
        return Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let served = call.snapshot.find("policy", "v1", "poddisruptionbudgets").ok_or_else(Status::unknown_path)?;
    let base = Intent {
        api: intent.api,
        served,
        identity: intent.identity,
        namespace,
        name,
        subresource: "status",
        options: intent.options.clone(),
        ownership: intent.ownership,
        warn: intent.warn,
    };
    update::update(&base, |budget| charged(budget, &call.path.name)).await.map(drop)
}

/// The budget with one disruption less, or 429.
fn charged(budget: &Value, pod: &str) -> Result<Value, Status> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let status = &budget["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let generation = budget["metadata"]["generation"].as_i64().unwrap_or(0);
    if status["observedGeneration"].as_i64().unwrap_or(0) < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(&why).with_retry_after(RETRY));
    }
    if number("disruptionsAllowed") <= 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(refused(&why));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() >= MOST_DISRUPTED) {
        return Err(refused("too many evictions are not confirmed yet").with_retry_after(RETRY));
    }
    let mut charged = budget.clone();
    charged["status"]["disruptionsAllowed"] = (number("disruptionsAllowed") - 1).into();
    charged["status"]["disruptedPods"][pod] = osc_api::meta::format_time(jiff::Timestamp::now()).into();
    Ok(charged)
}

/// Without a time to come back: clients would wait silently, where they shall say what
/// the budget lacks.
fn refused(why: &str) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    Status::new(429, "TooManyRequests", message).with_causes([Cause::new("DisruptionBudget", why, "")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_pays_for_each_eviction() {
        let budget = |allowed: i64, observed: i64| {
            json!({"metadata": {"name": "b", "generation": 2}, "status": {
                "observedGeneration": observed, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2}})
        };
        let paid = charged(&budget(1, 2), "p").unwrap();
        assert_eq!(paid["status"]["disruptionsAllowed"], 0);
        assert!(paid["status"]["disruptedPods"]["p"].is_string());
        for (budget, words) in
            [(budget(0, 2), "needs 2 healthy pods and has 2"), (budget(1, 1), "still being processed")]
        {
            let status = charged(&budget, "p").unwrap_err();
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            assert_eq!((status.code, causes[0].reason.as_str()), (429, "DisruptionBudget"));
            assert!(causes[0].message.contains(words), "{}", causes[0].message);
        }
    }
}
