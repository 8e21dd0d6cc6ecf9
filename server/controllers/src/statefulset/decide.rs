//! What a StatefulSet needs next. No I/O.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus},
    core::v1::Pod,
};

use super::identity::{ordinal_of, revision_of};
use crate::meta::{availability, is_deleting, is_ready, is_terminal, name, phase, scaled, seconds, to_i32};

/// What is known when deciding.
pub struct View<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Whether a pod has been deleted already though it is still shown as staying.
    pub is_doomed: &'a (dyn Fn(&Pod) -> bool + Sync),
    /// The name of the revision that its template is.
    pub update: &'a str,
    /// The name of the revision that its pods had before.
    pub current: &'a str,
    /// How often names of revisions have collided.
    pub collisions: Option<i32>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Ordinals that are to have a pod, and whether by the revision that is current (and not by the new one).
    pub create: Vec<(i32, bool)>,
    /// Pods that are to go.
    pub delete: Vec<Arc<Pod>>,
    /// Of those, the ones that have ended and will be made again.
    pub ended: Vec<Arc<Pod>>,
    /// Pods that are too many, whether they go now or later.
    pub condemned: Vec<Arc<Pod>>,
    /// The status.
    pub status: StatefulSetStatus,
    /// When to look again though nothing changes.
    pub again: Option<Duration>,
}

/// One ordinal that is to have a pod.
struct Place<'a> {
    ordinal: i32,
    pod: Option<&'a Arc<Pod>>,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Going,
    Ended,
    NotReady,
    NotAvailable,
    Available,
}

struct Decider<'a> {
    view: &'a View<'a>,
    spec: StatefulSetSpec,
    now: Timestamp,
    plan: Plan,
}

/// Decides.
pub fn decide(view: &View<'_>, now: Timestamp) -> Plan {
    let spec = view.set.spec.clone().unwrap_or_default();
    let mut decider = Decider { view, spec, now, plan: Plan::default() };
    let (places, condemned) = decider.places();
    decider.report(&places, &condemned);
    decider.plan.condemned = condemned.iter().map(|pod| Arc::clone(pod)).collect();
    if !is_deleting(&view.set.metadata) && decider.fill(&places) && decider.shrink(&places, &condemned) {
        decider.roll(&places);
    }
    decider.plan
}

impl<'a> Decider<'a> {
    fn ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
    }

    /// The ordinals that are to have a pod, and the pods that are too many, the highest first.
    fn places(&self) -> (Vec<Place<'a>>, Vec<&'a Arc<Pod>>) {
        let start = self.start();
        let end = start.saturating_add(self.spec.replicas.unwrap_or(1).max(0));
        let mut places: Vec<Place<'a>> = (start..end).map(|ordinal| Place { ordinal, pod: None }).collect();
        let mut condemned = Vec::new();
        for pod in self.view.pods {
            let Some(ordinal) = ordinal_of(self.view.set, pod) else { continue };
            match usize::try_from(ordinal.saturating_sub(start)).ok().and_then(|place| places.get_mut(place)) {
                Some(place) if ordinal >= start => place.pod = Some(pod),
                _ => condemned.push((ordinal, pod)),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        (places, condemned.into_iter().map(|(_, pod)| pod).collect())
    }

    fn health(&mut self, pod: &Pod) -> Health {
        if is_deleting(&pod.metadata) || (self.view.is_doomed)(pod) {
            return Health::Going;
        }
        if is_terminal(pod) {
            return Health::Ended;
        }
        if !is_ready(pod) || phase(pod) != "Running" {
            return Health::NotReady;
        }
        let min_ready = seconds(self.spec.min_ready_seconds.unwrap_or_default());
        let (is_available, left) = availability(pod, min_ready, self.now);
        self.plan.again = [self.plan.again, left].into_iter().flatten().min();
        if is_available { Health::Available } else { Health::NotAvailable }
    }

    /// Whether a pod of an ordinal is to be made by the revision that is current: below the partition of a rollout.
    fn is_held_back(&self, ordinal: i32) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return false;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let current = || self.view.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or_default();
        let below = rolling.map_or_else(current, |rolling| rolling.partition.unwrap_or_default());
        ordinal < self.start().saturating_add(below)
    }

    /// Pods that are missing, or that have ended, one after the other where order is asked for. Whether to go on.
    fn fill(&mut self, places: &[Place<'a>]) -> bool {
        let ordered = self.ordered();
        for place in places {
            let wait = match place.pod {
                None => {
                    self.plan.create.push((place.ordinal, self.is_held_back(place.ordinal)));
                    true
                }
                Some(pod) => match self.health(pod) {
                    Health::Ended => {
                        self.plan.ended.push(Arc::clone(pod));
                        self.plan.delete.push(Arc::clone(pod));
                        true
                    }
                    Health::Available => false,
                    Health::Going | Health::NotReady | Health::NotAvailable => true,
                },
            };
            if wait && ordered {
                return false;
            }
        }
        true
    }

    /// Pods that are too many, the highest ordinal first, one after the other where order is asked for. Whether to
    /// go on.
    fn shrink(&mut self, places: &[Place<'a>], condemned: &[&'a Arc<Pod>]) -> bool {
        let ordered = self.ordered();
        let mut lowest_unhealthy = None;
        for pod in places.iter().filter_map(|place| place.pod).chain(condemned.iter().rev().copied()) {
            if lowest_unhealthy.is_none() && self.health(pod) != Health::Available {
                lowest_unhealthy = Some(name(&pod.metadata));
            }
        }
        for pod in condemned {
            match self.health(pod) {
                Health::Going if ordered => return false,
                Health::Going => continue,
                // An unhealthy one may only be passed by if it is the first that is.
                Health::NotReady | Health::NotAvailable if ordered && lowest_unhealthy != Some(name(&pod.metadata)) => {
                    return false;
                }
                _ => self.plan.delete.push(Arc::clone(pod)),
            }
            if ordered {
                return false;
            }
        }
        true
    }

    /// Replaces pods of old revisions, from the highest ordinal down to the partition.
    fn roll(&mut self, places: &[Place<'a>]) {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return;
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let least = self.start().saturating_add(rolling.partition.unwrap_or_default());
        let total = to_i32(places.len());
        let most = rolling.max_unavailable.map_or(1, |most| scaled(&most, total, false).max(1));
        let mut unavailable = 0;
        for place in places {
            let is_unavailable = place.pod.is_none_or(|pod| self.health(pod) != Health::Available);
            unavailable += i32::from(is_unavailable);
        }
        let mut room = most.saturating_sub(unavailable);
        for place in places.iter().rev().take_while(|place| place.ordinal >= least) {
            let Some(pod) = place.pod else { continue };
            let health = self.health(pod);
            let is_old = revision_of(pod) != self.view.update;
            match health {
                Health::Going => {}
                // What serves nobody costs nothing.
                Health::NotReady | Health::NotAvailable | Health::Ended if is_old => {
                    self.plan.delete.push(Arc::clone(pod));
                }
                _ if is_old && room > 0 => {
                    room -= 1;
                    self.plan.delete.push(Arc::clone(pod));
                }
                _ if is_old => return,
                _ => {}
            }
            // One at a time: nobody is passed by who is not well yet.
            let is_moving = is_old || health != Health::Available;
            if most == 1 && is_moving {
                return;
            }
        }
    }

    fn report(&mut self, places: &[Place<'a>], condemned: &[&'a Arc<Pod>]) {
        let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
        let (update_revision, current_revision) = (self.view.update, self.view.current);
        for pod in places.iter().filter_map(|place| place.pod).chain(condemned.iter().copied()) {
            replicas += 1;
            let health = self.health(pod);
            ready += i32::from(is_ready(pod) && phase(pod) == "Running");
            available += i32::from(health == Health::Available);
            if !matches!(health, Health::Going | Health::Ended) {
                current += i32::from(revision_of(pod) == current_revision);
                updated += i32::from(revision_of(pod) == update_revision);
            }
        }
        let old = self.view.set.status.as_ref();
        // The rollout is over when every pod is new and ready: what was new is then current.
        let rolls =
            self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        let total = to_i32(places.len());
        let is_over = rolls && updated == total && ready == total;
        self.plan.status = StatefulSetStatus {
            replicas,
            ready_replicas: Some(ready),
            available_replicas: Some(available),
            current_replicas: Some(if is_over { updated } else { current }),
            updated_replicas: Some(updated),
            current_revision: Some(if is_over { update_revision } else { current_revision }.to_owned()),
            update_revision: Some(update_revision.to_owned()),
            observed_generation: self.view.set.metadata.generation,
            collision_count: self.view.collisions.or(Some(0)),
            conditions: old.and_then(|status| status.conditions.clone()),
        };
    }
}
