//! Defaults of `autoscaling/v2` HorizontalPodAutoscalers.

use serde_json::{Map, Value, json};

use super::{child, set_default};

/// Scales on 80% of the CPU request; rules that a behaviour leaves out are the usual ones.
pub(super) fn scaler_spec(spec: &mut Map<String, Value>) {
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let cpu = json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80},
        }});
        spec.insert("metrics".to_owned(), json!([cpu]));
    }
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    if let Some(up) = child(behavior, "scaleUp") {
        set_default(up, "stabilizationWindowSeconds", 0);
        rules(up, json!([pods, percent]));
    }
    if let Some(down) = child(behavior, "scaleDown") {
        rules(down, json!([percent]));
    }
}

fn rules(rules: &mut Map<String, Value>, policies: Value) {
    set_default(rules, "selectPolicy", "Max");
    set_default(rules, "policies", policies);
}
