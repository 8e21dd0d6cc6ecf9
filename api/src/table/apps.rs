//! Workloads and their autoscalers.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Printer, Row, core,
    format::{NONE, UNKNOWN, UNSET, field, label_selector, labels, quantity},
    human_duration,
};
use crate::selector::LabelSelector;

/// How many metrics of an autoscaler are listed before they are only counted.
const METRICS_LISTED: usize = 2;

pub(super) fn printer(resource: &str, version: &str) -> Option<Printer> {
    Some(match (resource, version) {
        ("controllerrevisions", _) => controller_revision,
        ("daemonsets", _) => daemon_set,
        ("deployments", _) => deployment,
        ("replicasets", _) => core::replica_set,
        ("statefulsets", _) => stateful_set,
        ("cronjobs", _) => cron_job,
        ("jobs", _) => job,
        ("horizontalpodautoscalers", "v1") => |row| autoscaler(row, utilization(row)),
        ("horizontalpodautoscalers", _) => |row| autoscaler(row, metrics(row)),
        _ => return None,
    })
}

fn controller_revision(row: &Row<'_>) -> Vec<Value> {
    let owner = row.object.owner_references().find(|owner| owner.controller);
    let controller = owner.map_or(NONE.to_owned(), |owner| {
        let kind = owner.kind.to_lowercase();
        match owner.api_version.split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
            None => format!("{kind}/{}", owner.name),
        }
    });
    vec![row.name(), controller.into(), row.int("revision").into(), row.age().into()]
}

fn daemon_set(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("spec/template/spec");
    let count = |name: &str| row.int(&format!("status/{name}")).into();
    vec![
        row.name(),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        labels(row.at("spec/template/spec/nodeSelector")).into(),
        row.age().into(),
        names,
        images,
        label_selector(row.at("spec/selector")).into(),
    ]
}

fn ready(row: &Row<'_>) -> Value {
    format!("{}/{}", row.int("status/readyReplicas"), row.int("spec/replicas")).into()
}

fn deployment(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("spec/template/spec");
    let selector = LabelSelector::from_value(row.at("spec/selector")).map(|selector| selector.to_string());
    vec![
        row.name(),
        ready(row),
        row.int("status/updatedReplicas").into(),
        row.int("status/availableReplicas").into(),
        row.age().into(),
        names,
        images,
        selector.unwrap_or_default().into(),
    ]
}

fn stateful_set(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("spec/template/spec");
    vec![row.name(), ready(row), row.age().into(), names, images]
}

fn cron_job(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("spec/jobTemplate/spec/template/spec");
    let suspend = match row.at("spec/suspend").and_then(Value::as_bool) {
        None => UNSET,
        Some(true) => "True",
        Some(false) => "False",
    };
    let last = row.at("status/lastScheduleTime").and_then(Value::as_str);
    vec![
        row.name(),
        row.text("spec/schedule").into(),
        row.text_or("spec/timeZone", NONE).into(),
        suspend.into(),
        row.count("status/active").into(),
        last.map_or_else(|| NONE.to_owned(), |time| row.since(Some(time))).into(),
        row.age().into(),
        names,
        images,
        label_selector(row.at("spec/jobTemplate/spec/selector")).into(),
    ]
}

fn job(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("spec/template/spec");
    let succeeded = row.int("status/succeeded");
    let completions = match (row.at("spec/completions").and_then(Value::as_i64), row.int("spec/parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    };
    vec![
        row.name(),
        job_status(row).into(),
        completions.into(),
        job_duration(row).into(),
        row.age().into(),
        names,
        images,
        label_selector(row.at("spec/selector")).into(),
    ]
}

fn job_status(row: &Row<'_>) -> &'static str {
    let first = ["Complete", "Failed"].into_iter().find(|kind| row.has_condition(kind));
    let later = ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| row.has_condition(kind));
    match (first, row.is_deleting(), later) {
        (Some(word), ..) => word,
        (None, true, _) => "Terminating",
        (None, false, Some(word)) => word,
        _ => "Running",
    }
}

fn job_duration(row: &Row<'_>) -> String {
    let time = |path: &str| row.text(path).parse::<Timestamp>().ok();
    let Some(start) = time("status/startTime") else { return String::new() };
    human_duration(time("status/completionTime").unwrap_or(row.now).duration_since(start))
}

fn autoscaler(row: &Row<'_>, targets: String) -> Vec<Value> {
    let reference = format!("{}/{}", row.text("spec/scaleTargetRef/kind"), row.text("spec/scaleTargetRef/name"));
    let min = row.at("spec/minReplicas").map_or_else(|| UNSET.to_owned(), Value::to_string);
    vec![
        row.name(),
        reference.into(),
        targets.into(),
        min.into(),
        row.int("spec/maxReplicas").into(),
        row.int("status/currentReplicas").into(),
        row.age().into(),
    ]
}

/// The one metric of `autoscaling/v1`.
fn utilization(row: &Row<'_>) -> String {
    let percent = |path: &str| row.at(path).and_then(Value::as_i64).map(|n| format!("{n}%"));
    let Some(target) = percent("spec/targetCPUUtilizationPercentage") else { return NONE.to_owned() };
    let current = percent("status/currentCPUUtilizationPercentage");
    format!("cpu: {}/{target}", current.as_deref().unwrap_or(UNKNOWN))
}

fn metrics(row: &Row<'_>) -> String {
    let specs = row.list("spec/metrics");
    let statuses = row.list("status/currentMetrics");
    let mut shown: Vec<String> =
        specs.iter().enumerate().map(|(index, spec)| metric(spec, statuses.get(index))).collect();
    if shown.is_empty() {
        return NONE.to_owned();
    }
    let more = shown.len().saturating_sub(METRICS_LISTED);
    shown.truncate(METRICS_LISTED);
    if more > 0 { format!("{} + {more} more...", shown.join(", ")) } else { shown.join(", ") }
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let (source, suffix) = match field(spec, "type") {
        "External" => ("external", " (avg)"),
        "Object" => ("object", " (avg)"),
        "Pods" => ("pods", ""),
        "Resource" => ("resource", ""),
        "ContainerResource" => ("containerResource", ""),
        _ => return "<unknown type>".to_owned(),
    };
    let of = |value: Option<&Value>, part: &str, amount: &str| {
        value.and_then(|value| value.get(source)?.get(part)?.get(amount)).map(quantity)
    };
    let is_resource = matches!(source, "resource" | "containerResource");
    let name = spec.get(source).map_or("", |metric| field(metric, "name"));
    let prefix = if is_resource { format!("{name}: ") } else { String::new() };
    let unknown = || UNKNOWN.to_owned();
    let current = |amount: &str| of(status, "current", amount);
    if let Some(target) = of(Some(spec), "target", "averageValue") {
        return format!("{prefix}{}/{target}{suffix}", current("averageValue").unwrap_or_else(unknown));
    }
    if is_resource {
        let percent = |amount: Option<String>, absent: &str| amount.map_or(absent.to_owned(), |n| format!("{n}%"));
        let target = percent(of(Some(spec), "target", "averageUtilization"), "<auto>");
        return format!("{prefix}{}/{target}", percent(current("averageUtilization"), UNKNOWN));
    }
    let target = of(Some(spec), "target", "value").unwrap_or_else(|| "0".to_owned());
    format!("{}/{target}", current("value").unwrap_or_else(unknown))
}
