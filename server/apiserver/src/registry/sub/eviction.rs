//! `pods/NAME/eviction`: a deletion that a PodDisruptionBudget may forbid.

use serde_json::{Value, json};
use skiff_api::{
    object::Object,
    selector::LabelSelector,
    status::{ApiError, Reason},
};

use super::{
    super::{
        Answer, admit,
        call::Call,
        decide::DeleteOptions,
        delete, forms, meta,
        update::{self, Proposal},
    },
    success,
};
use crate::{
    admission::{Operation, World},
    strategy::Part,
};

/// How many pods a budget may have in its list of those whose disruption it has not seen yet.
const MAX_DISRUPTED_PODS: usize = 2000;

/// 429 with what the budget says.
fn too_many(cause: &str, retry_seconds: u32) -> ApiError {
    let details = json!({
        "causes": [{"reason": "DisruptionBudget", "message": cause}],
        "retryAfterSeconds": retry_seconds,
    });
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    ApiError { details, ..ApiError::new(Reason::TooManyRequests, message) }
}

/// Whether a pod goes without asking a budget: it does not run, or is going already.
fn needs_no_budget(pod: &Object) -> bool {
    pod.is_deleting() || matches!(pod.str_at(&["status", "phase"]), Some("Pending" | "Succeeded" | "Failed"))
}

/// Whether a pod is ready.
fn is_ready(pod: &Object) -> bool {
    let conditions = pod.at(&["status", "conditions"]).and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Whether a pod that is not ready may go under a budget without being counted.
fn unhealthy_may_go(pod: &Object, budget: &Object) -> bool {
    if is_ready(pod) {
        return false;
    }
    let status = |name: &str| budget.int_at(&["status", name]).unwrap_or_default();
    budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow")
        || (status("currentHealthy") >= status("desiredHealthy") && status("desiredHealthy") > 0)
}

/// The budget with one disruption fewer, and the pod in its list; or why it cannot be charged.
fn charge(budget: &Object, pod: &str, now: &str) -> Result<Object, ApiError> {
    let status = |name: &str| budget.int_at(&["status", name]).unwrap_or_default();
    let name = budget.name();
    if status("observedGeneration") < budget.generation() {
        return Err(too_many(&format!("The disruption budget {name} is still being processed by the server."), 10));
    }
    if status("disruptionsAllowed") <= 0 {
        let (needs, has) = (status("desiredHealthy"), status("currentHealthy"));
        return Err(too_many(
            &format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently"),
            0,
        ));
    }
    let disrupted = budget.at(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if disrupted > MAX_DISRUPTED_PODS {
        return Err(ApiError::forbidden(
            "policy",
            "poddisruptionbudgets",
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    let mut charged = budget.clone();
    charged.set_at(&["status", "disruptionsAllowed"], status("disruptionsAllowed") - 1);
    charged.set_at(&["status", "disruptedPods", pod], now);
    Ok(charged)
}

/// The budget of a pod; more than one cannot be reckoned with.
fn budget_of(call: &Call<'_>, pod: &Object) -> Result<Option<Object>, ApiError> {
    let all = call.registry.all("policy", "poddisruptionbudgets", Some(call.namespace()));
    let selects = |budget: &Object| {
        LabelSelector::from_value(budget.at(&["spec", "selector"])).is_ok_and(|selector| selector.matches(pod))
    };
    let mut mine = all.into_iter().filter(selects);
    let first = mine.next();
    if mine.next().is_some() {
        return Err(ApiError::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(first)
}

/// Charges the budget of a pod that is to go, if it has one.
async fn ask_budget(call: &Call<'_>, pod: &Object) -> Result<(), ApiError> {
    if needs_no_budget(pod) {
        return Ok(());
    }
    let Some(budget) = budget_of(call, pod)? else { return Ok(()) };
    if unhealthy_may_go(pod, &budget) {
        return Ok(());
    }
    let kinds = call.registry.kinds();
    let def = kinds.resource("policy", "v1", "poddisruptionbudgets").cloned().ok_or_else(ApiError::no_such_path)?;
    let now = meta::time(call.now);
    let make = |there: &Object| Ok(Proposal { object: charge(there, pod.name(), &now)?, pinned: false });
    update::change(&call.on(def), budget.name(), Part::Whole, &make).await.map(|_| ())
}

/// Deletes a pod if its budget allows it.
pub(super) async fn evict(call: &Call<'_>) -> Result<Answer, ApiError> {
    let eviction = forms::decode_as(call, &forms::eviction())?;
    let name = call.name();
    if !eviction.name().is_empty() && eviction.name() != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let entry = call.fetch(name).await?.ok_or_else(|| call.not_found(name))?;
    let pod = call.parse(&entry)?;
    let asked = super::super::options::strings(eviction.at(&["deleteOptions", "dryRun"]));
    if let Some(error) = super::super::options::dry_run_errors(&asked) {
        return Err(ApiError::invalid(super::super::options::META_GROUP, "DeleteOptions", "", &[error]));
    }
    let mut own = call.on(call.def.clone());
    own.dry_run |= !asked.is_empty();
    let call = &own;
    admit::validate_uncounted(call.registry, &call.write(Operation::Create, name, Some(&pod)), &eviction)?;
    ask_budget(call, &pod).await?;
    let text = |field: &str| eviction.str_at(&["deleteOptions", "preconditions", field]).map(str::to_owned);
    let options = DeleteOptions {
        grace_period_seconds: eviction.int_at(&["deleteOptions", "gracePeriodSeconds"]),
        propagation: None,
        // The pod whose budget was asked, and no other of its name.
        uid: text("uid").or_else(|| Some(pod.uid().to_owned())),
        resource_version: text("resourceVersion"),
    };
    delete::delete_object(call, name, &options, call.dry_run).await?;
    Ok(success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_charged_or_refuses() {
        let mut budget = Object::default();
        budget.set_at(&["metadata", "name"], "b");
        budget.set_at(&["metadata", "generation"], 2);
        budget.set_at(&["status"], json!({"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2}));
        assert_eq!(charge(&budget, "p", "t").map_err(|error| error.code), Err(429), "not observed yet");
        budget.set_at(&["status", "observedGeneration"], 2);
        let charged = charge(&budget, "p", "t").unwrap_or_default();
        assert_eq!(charged.int_at(&["status", "disruptionsAllowed"]), Some(0));
        assert_eq!(charged.str_at(&["status", "disruptedPods", "p"]), Some("t"));
        let refused = charge(&charged, "q", "t").map_err(|error| error.details["causes"][0]["message"].clone());
        assert_eq!(refused, Err(json!("The disruption budget b needs 2 healthy pods and has 0 currently")));
    }
}
