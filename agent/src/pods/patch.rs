//! The patch that makes the status in the API the one that was found.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// A strategic merge patch of the status; names the UID, so that a pod of the same name is left alone. Fails where
/// JSON cannot say a status, which does not happen.
pub(super) fn of(uid: &str, before: &PodStatus, after: &PodStatus) -> serde_json::Result<Value> {
    let fields = |status: &PodStatus| serde_json::from_value::<Map<String, Value>>(serde_json::to_value(status)?);
    let mut status = fields(after)?;
    for (name, _) in fields(before)? {
        status.entry(name).or_insert(Value::Null);
    }
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        conditions.iter_mut().filter_map(Value::as_object_mut).for_each(clear_what_is_gone);
    }
    Ok(json!({"metadata": {"uid": uid}, "status": status}))
}

/// Conditions are merged by their types, so what a condition no longer says is taken away by name.
fn clear_what_is_gone(condition: &mut Map<String, Value>) {
    for name in ["reason", "message"] {
        condition.entry(name).or_insert(Value::Null);
    }
}
