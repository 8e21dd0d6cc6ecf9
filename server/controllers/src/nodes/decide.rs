//! What is to be done about a node's health: conditions of a node that is no longer heard of, taints, and which
//! pods have to leave it. No I/O.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};

use skiff_scheduler::filters::covers;

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

/// Whether a node that is not well may be given the taint that makes its pods leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execute {
    /// It may.
    Allow,
    /// Not yet; one that it has stays.
    Hold,
    /// It must not have it.
    Forbid,
}

/// The zone that a node is in: region and zone, as its labels say.
pub fn zone(node: &Node) -> String {
    let label =
        |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
    format!("{}/{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// Whether a node's health calls for its pods to leave.
pub fn wants_execution(node: &Node) -> bool {
    wanted_taints(node).iter().any(|(_, effect)| *effect == NO_EXECUTE)
}

/// Whether a node has one of the taints by which its health makes pods leave.
pub fn is_executing(node: &Node) -> bool {
    taints_of(node).any(is_executing_taint)
}

/// Whether a node has any taint that makes pods leave.
pub fn has_executing_taint(node: &Node) -> bool {
    taints_of(node).any(|taint| taint.effect == NO_EXECUTE)
}

fn taints_of(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn is_executing_taint(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

/// The taints that a node should have, where they differ from what it has. Taints of others stay as they are.
pub fn taints(node: &Node, execute: Execute, now: Timestamp) -> Option<Vec<Taint>> {
    let known: Vec<Taint> = taints_of(node).cloned().collect();
    let mut wanted = wanted_taints(node);
    if execute == Execute::Forbid || (execute == Execute::Hold && !is_executing(node)) {
        wanted.retain(|(_, effect)| *effect != NO_EXECUTE);
    }
    let is_managed = |taint: &Taint| {
        let by_condition = CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key);
        is_executing_taint(taint) || (taint.effect == NO_SCHEDULE && (by_condition || taint.key == UNSCHEDULABLE))
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
    let taints: Vec<&Taint> = taints_of(node).filter(|taint| taint.effect == NO_EXECUTE).collect();
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
