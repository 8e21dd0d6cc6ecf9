//! What a DaemonSet needs next. No I/O.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus},
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::placement::{Wish, spec_of, target, wish};
use crate::{
    meta::{availability, is_deleting, is_ready, name, phase, scaled, seconds, to_i32},
    revisions::HASH_LABEL,
};

/// How many pods one pass creates or deletes, as in Kubernetes.
const BURST: usize = 250;

/// What is known when deciding.
pub struct View<'a> {
    /// The set.
    pub set: &'a DaemonSet,
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Whether a pod has been deleted already though it is still shown as staying.
    pub is_doomed: &'a (dyn Fn(&Pod) -> bool + Sync),
    /// The hash of the revision that its template is.
    pub hash: &'a str,
    /// How often names of revisions have collided.
    pub collisions: Option<i32>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// The nodes that are to have a pod.
    pub create: Vec<String>,
    /// Pods that are to go.
    pub delete: Vec<Arc<Pod>>,
    /// What there is to say: whether it is a warning, reason and message.
    pub events: Vec<(bool, &'static str, String)>,
    /// The status.
    pub status: DaemonSetStatus,
    /// When to look again though nothing changes.
    pub again: Option<Duration>,
}

/// One node with its pods of the set.
struct Place<'a> {
    node: &'a str,
    wish: Wish,
    /// Those that neither go nor have ended; the oldest first.
    pods: Vec<&'a Arc<Pod>>,
    /// Whether there is any, whatever its state.
    any: bool,
}

/// How a pod does.
struct Health {
    is_new: bool,
    is_available: bool,
}

struct Decider<'a> {
    view: &'a View<'a>,
    spec: DaemonSetSpec,
    now: Timestamp,
    plan: Plan,
}

/// Decides.
pub fn decide(view: &View<'_>, now: Timestamp) -> Plan {
    let spec = view.set.spec.clone().unwrap_or_default();
    let mut decider = Decider { view, spec, now, plan: Plan::default() };
    let mut places = decider.places();
    decider.report(&places);
    if !is_deleting(&view.set.metadata) {
        places.iter_mut().for_each(|place| decider.clear_ended(place));
        decider.manage(&places);
        decider.roll(&places);
    }
    let mut plan = decider.plan;
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

impl<'a> Decider<'a> {
    /// Every node, with its pods; pods of nodes that are gone go.
    fn places(&mut self) -> Vec<Place<'a>> {
        let spec = spec_of(self.view.set);
        let mut by_node: HashMap<&str, Vec<&'a Arc<Pod>>> = HashMap::new();
        for pod in self.view.pods {
            by_node.entry(target(pod)).or_default().push(pod);
        }
        let mut places = Vec::with_capacity(self.view.nodes.len());
        for node in self.view.nodes {
            let node_name = name(&node.metadata);
            let mut pods = by_node.remove(node_name).unwrap_or_default();
            pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), name(&pod.metadata)));
            let any = !pods.is_empty();
            pods.retain(|pod| !is_deleting(&pod.metadata) && !(self.view.is_doomed)(pod));
            places.push(Place { node: node_name, wish: wish(&spec, node), pods, any });
        }
        // What is meant for a node that does not exist never runs; what ran on one is the pod collector's.
        let lost = by_node.into_values().flatten().filter(|pod| crate::meta::node_of(pod).is_empty());
        let lost: Vec<Arc<Pod>> = lost.filter(|pod| !is_deleting(&pod.metadata)).cloned().collect();
        if !is_deleting(&self.view.set.metadata) {
            self.plan.delete.extend(lost);
        }
        places
    }

    /// Pods that have ended are deleted, and replaced once they are gone.
    fn clear_ended(&mut self, place: &mut Place<'a>) {
        let node = place.node;
        place.pods.retain(|pod| {
            let pod_name = name(&pod.metadata);
            let said = match phase(pod) {
                "Failed" => {
                    let message = format!("Found failed daemon pod {pod_name} on node {node}, will try to kill it");
                    (true, "FailedDaemonPod", message)
                }
                "Succeeded" => {
                    let message =
                        format!("Found succeeded daemon pod {pod_name} on node {node}, will try to delete it");
                    (false, "SucceededDaemonPod", message)
                }
                _ => return true,
            };
            self.plan.events.push(said);
            self.plan.delete.push(Arc::clone(pod));
            false
        });
    }

    fn health(&mut self, pod: &Pod) -> Health {
        let labels = pod.metadata.labels.as_ref();
        let is_new = labels.and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|hash| hash == self.view.hash);
        let min_ready = seconds(self.spec.min_ready_seconds.unwrap_or_default());
        let (is_available, left) = availability(pod, min_ready, self.now);
        self.plan.again = [self.plan.again, left].into_iter().flatten().min();
        Health { is_new, is_available }
    }

    fn report(&mut self, places: &[Place<'a>]) {
        let (mut desired, mut current, mut wrong, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
        for place in places {
            if place.wish != Wish::Run {
                wrong += usize::from(place.any);
                continue;
            }
            desired += 1;
            current += usize::from(place.any);
            let health: Vec<(bool, Health)> = place.pods.iter().map(|pod| (is_ready(pod), self.health(pod))).collect();
            ready += usize::from(health.iter().any(|(is_ready, _)| *is_ready));
            available += usize::from(health.iter().any(|(_, health)| health.is_available));
            updated += usize::from(health.iter().any(|(_, health)| health.is_new));
        }
        let old = self.view.set.status.as_ref();
        self.plan.status = DaemonSetStatus {
            desired_number_scheduled: to_i32(desired),
            current_number_scheduled: to_i32(current),
            number_misscheduled: to_i32(wrong),
            number_ready: to_i32(ready),
            number_available: Some(to_i32(available)),
            number_unavailable: Some(to_i32(desired - available)),
            updated_number_scheduled: Some(to_i32(updated)),
            observed_generation: self.view.set.metadata.generation,
            collision_count: self.view.collisions,
            conditions: old.and_then(|status| status.conditions.clone()),
        };
    }

    /// A pod on each node that is to have one, one only, and none on others.
    fn manage(&mut self, places: &[Place<'a>]) {
        let surges = self.surge() > 0;
        for place in places {
            match place.wish {
                Wish::Run if !place.any => self.plan.create.push(place.node.to_owned()),
                Wish::None => self.plan.delete.extend(place.pods.iter().map(|pod| Arc::clone(pod))),
                Wish::Run | Wish::Keep if surges => self.drop_replaced(place),
                Wish::Run | Wish::Keep => self.plan.delete.extend(place.pods.iter().skip(1).map(|pod| Arc::clone(pod))),
            }
        }
    }

    /// Where new pods come before old ones go: one of each may be there, and the old one goes when the new one is
    /// available, or when it is not ready itself.
    fn drop_replaced(&mut self, place: &Place<'a>) {
        let (mut new, mut old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = (Vec::new(), Vec::new());
        for pod in &place.pods {
            if self.health(pod).is_new { new.push(pod) } else { old.push(pod) }
        }
        let surplus = old.iter().skip(1).chain(new.iter().skip(1));
        self.plan.delete.extend(surplus.map(|pod| Arc::clone(pod)));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (self.health(new).is_available || !is_ready(old))
        {
            self.plan.delete.push(Arc::clone(old));
        }
    }

    fn rolling(
        &self,
        field: fn(&k8s_openapi::api::apps::v1::RollingUpdateDaemonSet) -> Option<&IntOrString>,
    ) -> Option<i32> {
        let rolling = self.spec.update_strategy.as_ref()?.rolling_update.as_ref()?;
        Some(scaled(field(rolling)?, self.plan.status.desired_number_scheduled, true))
    }

    fn surge(&self) -> i32 {
        self.rolling(|rolling| rolling.max_surge.as_ref()).unwrap_or_default()
    }

    /// Replaces pods of old revisions, within the limits of the strategy.
    fn roll(&mut self, places: &[Place<'a>]) {
        let kind = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        if kind == Some("OnDelete") {
            return;
        }
        if self.surge() > 0 {
            self.roll_with_surge(places);
        } else {
            self.roll_in_place(places);
        }
    }

    fn roll_in_place(&mut self, places: &[Place<'a>]) {
        let most = self.rolling(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(1);
        let (mut unavailable, mut candidates) = (0, Vec::new());
        for place in places.iter().filter(|place| place.wish == Wish::Run) {
            let [pod] = place.pods[..] else {
                unavailable += 1;
                continue;
            };
            let health = self.health(pod);
            unavailable += i32::from(!health.is_available);
            match (health.is_new, health.is_available) {
                (true, _) => {}
                // It serves nobody: its going costs nothing.
                (false, false) => self.plan.delete.push(Arc::clone(pod)),
                (false, true) => candidates.push(Arc::clone(pod)),
            }
        }
        let room = usize::try_from(most.saturating_sub(unavailable)).unwrap_or_default();
        self.plan.delete.extend(candidates.into_iter().take(room));
    }

    fn roll_with_surge(&mut self, places: &[Place<'a>]) {
        let (mut surging, mut candidates) = (0, Vec::new());
        for place in places.iter().filter(|place| place.wish == Wish::Run && !place.pods.is_empty()) {
            let health: Vec<Health> = place.pods.iter().map(|pod| self.health(pod)).collect();
            let new = health.iter().find(|health| health.is_new);
            match (new, health.iter().find(|health| !health.is_new)) {
                (Some(new), Some(_)) => surging += i32::from(!new.is_available),
                (None, Some(old)) if !old.is_available => self.plan.create.push(place.node.to_owned()),
                (None, Some(_)) => candidates.push(place.node.to_owned()),
                _ => {}
            }
        }
        let room = usize::try_from(self.surge().saturating_sub(surging)).unwrap_or_default();
        self.plan.create.extend(candidates.into_iter().take(room));
    }
}
