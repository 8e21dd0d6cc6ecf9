//! One stored object in several versions: Events of both groups, and both versions of HorizontalPodAutoscaler.
//!
//! Everything else has one version. Source: the conversions of Kubernetes 1.36 (`pkg/apis/*/v1/conversion.go`).

use serde_json::{Map, Value, json};

use crate::{kinds::GroupVersionKind, object::Object};

/// What a field of a core Event is called in `events.k8s.io`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Where `autoscaling/v1` keeps the metrics that it has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

/// Where `autoscaling/v1` keeps the behaviour that it has no field for.
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// An object in another version of its kind. One that is in that version already, or whose kind has no other, stays
/// as it is.
pub fn to_version(mut object: Object, gvk: &GroupVersionKind) -> Object {
    let to = gvk.api_version();
    match (object.api_version(), to.as_str(), gvk.kind.as_str()) {
        ("v1", "events.k8s.io/v1", "Event") => rename(&mut object.0, EVENT_FIELDS),
        ("events.k8s.io/v1", "v1", "Event") => rename(&mut object.0, EVENT_FIELDS.map(|(core, own)| (own, core))),
        ("autoscaling/v2", "autoscaling/v1", _) => scaler_to_v1(&mut object),
        ("autoscaling/v1", "autoscaling/v2", _) => scaler_to_v2(&mut object),
        _ => return object,
    }
    object.set_at(&["apiVersion"], to);
    object
}

fn rename(map: &mut Map<String, Value>, fields: [(&str, &str); 7]) {
    for (from, to) in fields {
        if let Some(value) = map.shift_remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

/// Whether a metric (of a spec or a status) is the CPU of the pods.
fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// Takes the metrics of a list, with the one that `autoscaling/v1` has a field for apart.
fn split_metrics(object: &mut Object, path: &[&str], utilization: &[&str]) -> (Option<Value>, Vec<Value>) {
    let Some(Value::Array(metrics)) = object.remove_at(path) else { return (None, Vec::new()) };
    let value = |metric: &Value| {
        let found = utilization.iter().try_fold(metric, |value, name| value.get(*name))?;
        is_cpu(metric).then(|| found.clone())
    };
    let at = metrics.iter().position(|metric| value(metric).is_some());
    let mut others = metrics;
    let own = at.and_then(|at| value(&others.remove(at)));
    (own, others)
}

/// Keeps a value in an annotation.
fn annotate(object: &mut Object, name: &str, value: &Value) {
    object.set_at(&["metadata", "annotations", name], value.to_string());
}

/// Takes a value out of its annotation.
fn take_annotation(object: &mut Object, name: &str) -> Option<Value> {
    let text = object.remove_at(&["metadata", "annotations", name])?;
    if object.at(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove_at(&["metadata", "annotations"]);
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn scaler_to_v1(object: &mut Object) {
    let (target, others) = split_metrics(object, &["spec", "metrics"], &["resource", "target", "averageUtilization"]);
    if let Some(target) = target {
        object.set_at(&["spec", "targetCPUUtilizationPercentage"], target);
    }
    if !others.is_empty() {
        annotate(object, METRICS, &Value::Array(others));
    }
    if let Some(behavior) = object.remove_at(&["spec", "behavior"]) {
        annotate(object, BEHAVIOR, &behavior);
    }
    let (current, _) =
        split_metrics(object, &["status", "currentMetrics"], &["resource", "current", "averageUtilization"]);
    if let Some(current) = current {
        object.set_at(&["status", "currentCPUUtilizationPercentage"], current);
    }
    object.remove_at(&["status", "conditions"]);
}

fn scaler_to_v2(object: &mut Object) {
    let mut metrics = Vec::new();
    if let Some(target) = object.remove_at(&["spec", "targetCPUUtilizationPercentage"]) {
        let target = json!({"type": "Utilization", "averageUtilization": target});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if let Some(Value::Array(others)) = take_annotation(object, METRICS) {
        metrics.extend(others);
    }
    if !metrics.is_empty() {
        object.set_at(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = take_annotation(object, BEHAVIOR) {
        object.set_at(&["spec", "behavior"], behavior);
    }
    if let Some(current) = object.remove_at(&["status", "currentCPUUtilizationPercentage"]) {
        let current = json!({"averageUtilization": current, "averageValue": "0"});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": current}});
        object.set_at(&["status", "currentMetrics"], json!([metric]));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn object(value: Value) -> Object {
        Object(value.as_object().unwrap().clone())
    }

    #[test]
    fn versions_come_back_as_they_were() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let cases = [
            (
                json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"name": "p"},
                "message": "m", "count": 2}),
                "events.k8s.io/v1",
                "Event",
            ),
            (
                json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
                "spec": {"maxReplicas": 3, "metrics": [cpu, memory], "behavior": {"scaleUp": {}}}, "status": {}}),
                "autoscaling/v1",
                "HorizontalPodAutoscaler",
            ),
        ];
        for (value, version, kind) in cases {
            let original = object(value);
            let own = GroupVersionKind::parse(original.api_version(), kind);
            let other = to_version(original.clone(), &GroupVersionKind::parse(version, kind));
            assert_eq!(other.api_version(), version);
            assert_ne!(other, original);
            assert_eq!(to_version(other, &own), original);
        }
    }

    #[test]
    fn the_older_scaler_has_its_one_metric_as_a_field() {
        let older = object(json!({"apiVersion": "autoscaling/v1", "spec": {"targetCPUUtilizationPercentage": 50}}));
        let newer = to_version(older, &GroupVersionKind::parse("autoscaling/v2", "HorizontalPodAutoscaler"));
        assert_eq!(newer.at(&["spec", "metrics"]).unwrap()[0]["resource"]["target"]["averageUtilization"], 50);
    }
}
