//! The patch that makes the status in the API the one that was found.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// A strategic merge patch of the status; names the UID, so that a pod of the same name is left alone.
pub(super) fn of(uid: &str, before: &PodStatus, after: &Value) -> Value {
    let mut status = after.as_object().cloned().unwrap_or_default();
    if let Ok(Value::Object(before)) = serde_json::to_value(before) {
        for name in before.keys() {
            status.entry(name.clone()).or_insert(Value::Null);
        }
    }
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        conditions.iter_mut().filter_map(Value::as_object_mut).for_each(clear_what_is_gone);
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

/// Conditions are merged by their types, so what a condition no longer says is taken away by name.
fn clear_what_is_gone(condition: &mut Map<String, Value>) {
    for name in ["reason", "message"] {
        condition.entry(name).or_insert(Value::Null);
    }
}
