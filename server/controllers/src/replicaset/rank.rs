//! Which pods go first when there are too many, as Kubernetes' `ActivePodsWithRanks`.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::meta::{elapsed, is_active, node_of, phase, pod_condition, ready_since, uid};

/// The annotation by which users say which pods may go first; the lower, the sooner.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts pods so that those to be deleted first come first. `related` are all pods that count for how crowded a
/// node is: those of the set and of its siblings under the same owner.
pub fn sort_for_deletion(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *crowd.entry(node_of(pod)).or_default() += 1;
    }
    let crowd = |pod: &Pod| crowd.get(node_of(pod)).copied().unwrap_or_default();
    pods.sort_by(|a, b| {
        eager(a)
            .cmp(&eager(b))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| younger_first(ready_since(a), ready_since(b), a, b, now))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| younger_first(created(a), created(b), a, b, now))
    });
}

/// Unbound before bound, pending before running, not ready before ready, cheap before dear.
fn eager(pod: &Pod) -> (bool, u8, bool, i32) {
    let progress = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let ready = pod_condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|map| map.get(DELETION_COST)?.parse().ok()).unwrap_or_default();
    (!node_of(pod).is_empty(), progress, ready, cost)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The most restarts of a container, then those of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |list: &Option<Vec<ContainerStatus>>| {
        list.iter().flatten().map(|status| status.restart_count).max().unwrap_or_default()
    };
    pod.status.as_ref().map_or((0, 0), |s| (most(&s.container_statuses), most(&s.init_container_statuses)))
}

/// Younger before older, but only by orders of magnitude: among pods of about the same age chance decides (the
/// UID), so that scaling down does not always hit the newest failure domain.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, pod_a: &Pod, pod_b: &Pod, now: Timestamp) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (Some(a), Some(b)) = (a, b) else {
        // What has no time yet is younger than all.
        return a.is_some().cmp(&b.is_some());
    };
    let magnitude = |time| elapsed(time, now).as_nanos().checked_ilog2();
    magnitude(a).cmp(&magnitude(b)).then_with(|| uid(&pod_a.metadata).cmp(uid(&pod_b.metadata)))
}
