//! What is to be done about a node's health: conditions of a node that is no longer heard of, taints, and which
//! pods have to leave it. No I/O.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::meta::{elapsed, is_deleting, is_terminal, seconds};

/// The taint of a node that says of itself that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node that is not heard of.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Conditions and the taint that goes with each, with the status that calls for it.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The taint of a node that is closed for new pods.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that nobody can vouch for when a node is not heard of.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// A node's condition of a type.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// The conditions of a node that is not heard of any more, where they differ from what it has.
pub fn lost_conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut all = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let before = all.clone();
    for kind in VOUCHED {
        match all.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) if known.status != "Unknown" => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
            None => all.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (all != before).then_some(all)
}

/// The taints that a node should have, where they differ from what it has. Taints of others stay as they are.
pub fn taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let known = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let wanted = wanted_taints(node);
    let is_managed = |taint: &Taint| {
        let by_condition = CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key);
        let executes = taint.effect == NO_EXECUTE && (taint.key == NOT_READY || taint.key == UNREACHABLE);
        executes || (taint.effect == NO_SCHEDULE && (by_condition || taint.key == UNSCHEDULABLE))
    };
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect);
    let mut all: Vec<Taint> = known.iter().filter(|taint| !is_managed(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !all.iter().any(|taint| taint.key == key && taint.effect == effect) {
            all.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    (all != known).then_some(all)
}

fn wanted_taints(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    for (kind, status, key) in CONDITION_TAINTS {
        if condition(node, kind).is_some_and(|condition| condition.status == status) {
            wanted.push((key, NO_SCHEDULE));
            if kind == "Ready" {
                wanted.push((key, NO_EXECUTE));
            }
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

/// The pods of a node that must leave it now, and when the next one must.
pub fn evictions(node: &Node, pods: &[Arc<Pod>], now: Timestamp) -> (Vec<Arc<Pod>>, Option<Duration>) {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taints: Vec<&Taint> = taints.filter(|taint| taint.effect == NO_EXECUTE).collect();
    let (mut leave, mut next) = (Vec::new(), None::<Duration>);
    if taints.is_empty() {
        return (leave, next);
    }
    for pod in pods.iter().filter(|pod| !is_deleting(&pod.metadata) && !is_terminal(pod)) {
        match time_left(pod, &taints, now) {
            Some(left) if left.is_zero() => leave.push(Arc::clone(pod)),
            Some(left) => next = Some(next.map_or(left, |known| known.min(left))),
            None => {}
        }
    }
    (leave, next)
}

/// How long a pod may stay: nothing if a taint is not tolerated, `None` for ever.
fn time_left(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<Duration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or(&[]);
    let mut least = None::<Duration>;
    for taint in taints {
        let covering: Vec<&Toleration> = tolerations.iter().filter(|toleration| covers(toleration, taint)).collect();
        if covering.is_empty() {
            return Some(Duration::ZERO);
        }
        let Some(limit) = covering.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let left = seconds(limit).saturating_sub(elapsed(since, now));
        least = Some(least.map_or(left, |known| known.min(left)));
    }
    least
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let is_any = |field: &Option<String>| field.as_deref().is_none_or(str::is_empty);
    let effect = is_any(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
    let key = is_any(&toleration.key) || toleration.key.as_deref() == Some(&taint.key);
    let value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    };
    effect && key && value
}
