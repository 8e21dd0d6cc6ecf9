//! TaintNodesByCondition: a new node takes no pods until it has said that it is ready.

use serde_json::{Value, json};
use skiff_api::{object::Object, status::ApiError};

use super::{Operation, World, Write};

/// The taint of a node that is not ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Adds the taint to a new node.
pub(super) fn mutate(_: &dyn World, write: &Write<'_>, node: &mut Object) -> Result<(), ApiError> {
    if !write.is(Operation::Create, "", "nodes") {
        return Ok(());
    }
    let mut taints = node.at(&["spec", "taints"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let has = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
    if !taints.iter().any(has) {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        node.set_at(&["spec", "taints"], taints);
    }
    Ok(())
}
