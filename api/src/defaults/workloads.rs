//! Defaults of workloads that depend on other fields.

use serde_json::{Map, Value};

use super::{child, is_unset, set_default, text};

type Fields = Map<String, Value>;

/// How often a Job's pods may fail, where nothing else says so.
const BACKOFF_LIMIT: i64 = 6;

/// Sets parameters of a rolling update, where the strategy is one.
fn rolling_update(strategy: &mut Fields, defaults: &[(&str, Value)]) {
    set_default(strategy, "type", "RollingUpdate");
    if text(strategy, "type") != "RollingUpdate" {
        return;
    }
    let Some(parameters) = child(strategy, "rollingUpdate") else { return };
    for (field, value) in defaults {
        if parameters.get(*field).is_none_or(Value::is_null) {
            parameters.insert((*field).to_owned(), value.clone());
        }
    }
}

/// A Deployment replaces a quarter of its pods at a time.
pub(super) fn deployment_strategy(strategy: &mut Fields) {
    rolling_update(strategy, &[("maxUnavailable", "25%".into()), ("maxSurge", "25%".into())]);
}

/// A DaemonSet replaces one pod at a time.
pub(super) fn daemon_set_strategy(strategy: &mut Fields) {
    rolling_update(strategy, &[("maxUnavailable", 1.into()), ("maxSurge", 0.into())]);
}

/// A StatefulSet replaces all its pods. A type given without parameters gets none.
pub(super) fn stateful_set_strategy(strategy: &mut Fields) {
    if is_unset(strategy.get("type")) || strategy.contains_key("rollingUpdate") {
        rolling_update(strategy, &[("partition", 0.into())]);
    }
}

fn template_labels(object: &Fields) -> Option<Value> {
    let labels = object.get("spec")?.get("template")?.get("metadata")?.get("labels")?;
    labels.as_object().filter(|labels| !labels.is_empty())?;
    Some(labels.clone())
}

/// Gives the object the labels of its template, where it has none.
fn take_labels(object: &mut Fields, labels: &Value) {
    let Some(metadata) = child(object, "metadata") else { return };
    if metadata.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty) {
        metadata.insert("labels".to_owned(), labels.clone());
    }
}

/// Labels and selector are the template's.
pub(super) fn replication_controller(controller: &mut Fields) {
    let Some(labels) = template_labels(controller) else { return };
    take_labels(controller, &labels);
    let Some(spec) = child(controller, "spec") else { return };
    if spec.get("selector").and_then(Value::as_object).is_none_or(Map::is_empty) {
        spec.insert("selector".to_owned(), labels);
    }
}

/// Counts, limits and policies of a Job.
pub(super) fn job(job: &mut Fields) {
    if let Some(labels) = template_labels(job) {
        take_labels(job, &labels);
    }
    let Some(spec) = child(job, "spec") else { return };
    if is_unset(spec.get("completions")) && is_unset(spec.get("parallelism")) {
        set_default(spec, "completions", 1);
    }
    set_default(spec, "parallelism", 1);
    let is_per_index = !is_unset(spec.get("backoffLimitPerIndex"));
    set_default(spec, "backoffLimit", if is_per_index { i64::from(i32::MAX) } else { BACKOFF_LIMIT });
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    let replaces_failed_only = !is_unset(spec.get("podFailurePolicy"));
    set_default(spec, "podReplacementPolicy", if replaces_failed_only { "Failed" } else { "TerminatingOrFailed" });
}
