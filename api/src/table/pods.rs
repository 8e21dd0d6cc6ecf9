//! Pods: what state a pod is in, told from its containers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Row,
    format::{NONE, field, number},
};
use crate::{kinds::ResourceDef, object::Object};

/// What the containers of a pod say together.
struct Summary {
    reason: String,
    ready: i64,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn pod(row: &Row<'_>) -> Vec<Value> {
    let summary = Summary::of(row);
    let total = row.count("spec/containers") + i64::try_from(sidecars(row).count()).unwrap_or_default();
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, row.since(Some(&time.to_string())))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = row.list("status/podIPs").first().map_or("", |ip| field(ip, "ip"));
    let ip = if ip.is_empty() { row.text_or("status/podIP", NONE) } else { ip.to_owned() };
    vec![
        row.name(),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        row.age().into(),
        ip.into(),
        row.text_or("spec/nodeName", NONE).into(),
        row.text_or("status/nominatedNodeName", NONE).into(),
        readiness_gates(row).into(),
    ]
}

/// The condition of a row whose pod has ended.
pub(super) fn completion(def: &ResourceDef, object: &Object) -> Option<Value> {
    if def.resource != "pods" || !def.gvk.group.is_empty() {
        return None;
    }
    let (reason, message) = match object.str_at(&["status", "phase"])? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

fn readiness_gates(row: &Row<'_>) -> String {
    let gates = row.list("spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = gates.iter().filter(|gate| row.has_condition(field(gate, "conditionType"))).count();
    format!("{met}/{}", gates.len())
}

/// The names of the init containers that keep running beside the others.
fn sidecars<'a>(row: &Row<'a>) -> impl Iterator<Item = &'a str> {
    let all = row.list("spec/initContainers").iter();
    all.filter(|container| field(container, "restartPolicy") == "Always").map(|container| field(container, "name"))
}

fn state<'v>(status: &'v Value, name: &str) -> Option<&'v Value> {
    status.get("state")?.get(name)
}

fn last_end(status: &Value) -> Option<Timestamp> {
    let ended = status.get("lastState")?.get("terminated")?;
    field(ended, "finishedAt").parse().ok()
}

fn is_ready(status: &Value) -> bool {
    status.get("ready").and_then(Value::as_bool).unwrap_or_default()
}

/// Why a container ended, in one word.
fn end_reason(ended: &Value) -> String {
    match (field(ended, "reason"), number(ended, "signal")) {
        ("", 0) => format!("ExitCode:{}", number(ended, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

impl Summary {
    fn of(row: &Row<'_>) -> Self {
        let phase = row.text("status/phase");
        let mut reason = row.text_or("status/reason", phase);
        let is_gated = row.condition("PodScheduled").is_some_and(|c| field(c, "reason") == "SchedulingGated");
        if is_gated {
            reason = "SchedulingGated".to_owned();
        }
        let mut summary = Self { reason, ready: 0, restarts: 0, last_restart: None };
        let sidecars = summary.init_containers(row);
        if let Some(sidecars) = sidecars {
            (summary.restarts, summary.last_restart) = sidecars;
            summary.containers(row);
        }
        if row.is_deleting() {
            if row.text("status/reason") == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Goes through the init containers. The restarts of the sidecars among them once all have ended well.
    fn init_containers(&mut self, row: &Row<'_>) -> Option<(i64, Option<Timestamp>)> {
        let mut sidecar_restarts = (0, None);
        let total = row.count("spec/initContainers");
        let mut is_initializing = false;
        for (index, status) in row.list("status/initContainerStatuses").iter().enumerate() {
            let is_sidecar = sidecars(row).any(|name| name == field(status, "name"));
            let restarts = number(status, "restartCount");
            self.restarts += restarts;
            self.last_restart = self.last_restart.max(last_end(status));
            if is_sidecar {
                sidecar_restarts.0 += restarts;
                sidecar_restarts.1 = sidecar_restarts.1.max(last_end(status));
            }
            let ended = state(status, "terminated");
            if ended.is_some_and(|ended| number(ended, "exitCode") == 0) {
                continue;
            }
            if is_sidecar && status.get("started").and_then(Value::as_bool).unwrap_or_default() {
                self.ready += i64::from(is_ready(status));
                continue;
            }
            self.reason = init_reason(status, index, total);
            is_initializing = true;
            break;
        }
        (!is_initializing || row.has_condition("Initialized")).then_some(sidecar_restarts)
    }

    fn containers(&mut self, row: &Row<'_>) {
        let mut has_running = false;
        for status in row.list("status/containerStatuses").iter().rev() {
            self.restarts += number(status, "restartCount");
            self.last_restart = self.last_restart.max(last_end(status));
            let waiting = state(status, "waiting").map_or("", |waiting| field(waiting, "reason"));
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(ended) = state(status, "terminated") {
                self.reason = end_reason(ended);
            } else if is_ready(status) && state(status, "running").is_some() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && has_running {
            self.reason = if row.has_condition("Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn init_reason(status: &Value, index: usize, total: i64) -> String {
    if let Some(ended) = state(status, "terminated") {
        return format!("Init:{}", end_reason(ended));
    }
    match state(status, "waiting").map_or("", |waiting| field(waiting, "reason")) {
        "" | "PodInitializing" => format!("Init:{index}/{total}"),
        reason => format!("Init:{reason}"),
    }
}

pub(super) fn pod_template(row: &Row<'_>) -> Vec<Value> {
    let [names, images] = row.containers("template/spec");
    let labels = super::format::labels(row.at("template/metadata/labels"));
    vec![row.name(), names, images, labels.into()]
}
