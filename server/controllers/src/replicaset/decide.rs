//! What a ReplicaSet needs next. No I/O.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use skiff_api::selector::{LabelSelector, Labels};

use super::rank::sort_for_deletion;
use crate::{
    meta::{availability, is_active, is_deleting, is_ready, is_terminal, name, seconds, selector},
    pods::{BURST, claim, pod_from_template},
};

/// What is known when deciding.
pub struct View<'a> {
    /// The set.
    pub set: &'a ReplicaSet,
    /// The labels of its pods.
    pub labels: LabelSelector,
    /// The pods it controls, and those of its namespace that nobody controls.
    pub pods: Vec<Arc<Pod>>,
    /// The pods of the set and of its siblings under the same owner.
    pub related: Vec<Arc<Pod>>,
    /// Whether a pod has been deleted already though it is still shown as staying.
    pub is_doomed: &'a (dyn Fn(&Pod) -> bool + Sync),
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Decision {
    /// Pods to take on.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods to let go.
    pub release: Vec<Arc<Pod>>,
    /// How many pods to create.
    pub create: usize,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The pods that count, for the status.
    pub active: Vec<Arc<Pod>>,
    /// How many pods are going but have not ended.
    pub terminating: usize,
}

/// Decides on pods. Pods that are adopted count at once.
pub fn decide(view: &View<'_>, now: Timestamp) -> Decision {
    let mut decision = sort_out(view);
    if is_deleting(&view.set.metadata) {
        return decision;
    }
    let wanted = wanted(view.set);
    let have = decision.active.len();
    if have < wanted {
        decision.create = (wanted - have).min(BURST);
    } else if have > wanted {
        let mut candidates = decision.active.clone();
        sort_for_deletion(&mut candidates, &view.related, now);
        candidates.truncate((have - wanted).min(BURST));
        decision.delete = candidates;
    }
    decision
}

/// `spec.replicas`, 1 where absent.
pub fn wanted(set: &ReplicaSet) -> usize {
    set.spec.as_ref().and_then(|spec| spec.replicas).map_or(1, |count| usize::try_from(count).unwrap_or_default())
}

/// Which of the pods are the set's.
fn sort_out(view: &View<'_>) -> Decision {
    let claimed = claim(&view.set.metadata, &view.labels, view.pods.clone(), is_active);
    let mut decision = Decision { adopt: claimed.adopt, release: claimed.release, ..Decision::default() };
    for pod in claimed.mine {
        if is_active(&pod) && !(view.is_doomed)(&pod) {
            decision.active.push(pod);
        } else if !is_terminal(&pod) {
            decision.terminating += 1;
        }
    }
    decision
}

/// The labels of a set's pods.
pub fn selector_of(set: &ReplicaSet) -> LabelSelector {
    set.spec.as_ref().map_or_else(LabelSelector::nothing, |spec| selector(&spec.selector))
}

/// The pod that a set makes from its template.
pub fn pod_of(set: &ReplicaSet, reference: OwnerReference) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    pod_from_template(template, &set.metadata, name(&set.metadata), reference)
}

/// A set's new status, and when the next of its pods becomes available.
pub fn status(
    set: &ReplicaSet,
    decision: &Decision,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = seconds(spec.min_ready_seconds.unwrap_or_default());
    let template = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let is_labeled = |pod: &Pod| template.iter().all(|(k, v)| pod.metadata.labels.label(k) == Some(v));
    let available: Vec<(bool, Option<Duration>)> =
        decision.active.iter().map(|pod| availability(pod, min_ready, now)).collect();
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(decision.active.len()),
        fully_labeled_replicas: Some(count(decision.active.iter().filter(|pod| is_labeled(pod)).count())),
        ready_replicas: Some(count(decision.active.iter().filter(|pod| is_ready(pod)).count())),
        available_replicas: Some(count(available.iter().filter(|(is, _)| *is).count())),
        terminating_replicas: Some(count(decision.terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, failure, now),
    };
    (status, available.iter().filter_map(|(_, wait)| *wait).min())
}

/// `ReplicaFailure` is there as long as pods cannot be created or deleted.
fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const TYPE: &str = "ReplicaFailure";
    let mut all = old.unwrap_or_default();
    match failure {
        None => all.retain(|condition| condition.type_ != TYPE),
        Some((reason, message)) => {
            if !all.iter().any(|c| c.type_ == TYPE && c.reason.as_deref() == Some(reason)) {
                all.retain(|condition| condition.type_ != TYPE);
                all.push(ReplicaSetCondition {
                    type_: TYPE.to_owned(),
                    status: "True".to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message),
                    last_transition_time: Some(Time(now)),
                });
            }
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Whether two statuses say the same; absent counts are zero.
pub fn same(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let numbers = |s: &ReplicaSetStatus| {
        let n = |count: Option<i32>| count.unwrap_or_default();
        let counts = [s.replicas, n(s.fully_labeled_replicas), n(s.ready_replicas), n(s.available_replicas)];
        (counts, n(s.terminating_replicas), s.observed_generation)
    };
    numbers(a) == numbers(b) && a.conditions.as_deref().unwrap_or(&[]) == b.conditions.as_deref().unwrap_or(&[])
}
