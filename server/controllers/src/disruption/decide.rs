//! How many pods of a budget may be evicted. No I/O.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};

use crate::meta::{elapsed, is_deleting, is_ready, name, namespace, scaled, to_i32};

/// How long a pod whose eviction was granted may take until its deletion is seen; after that it counts again.
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(2 * 60);

const ALLOWED: &str = "DisruptionAllowed";

/// What is to be written, and said.
#[derive(Debug)]
pub struct Plan {
    /// The status.
    pub status: PodDisruptionBudgetStatus,
    /// What there is to say: whether it is a warning, reason and message.
    pub events: Vec<(bool, &'static str, String)>,
    /// When to look again though nothing changes.
    pub again: Option<Duration>,
}

/// Whether a budget is a share of what the pods' controllers want to have.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    let percent = |value: &IntOrString| matches!(value, IntOrString::String(_));
    spec.is_some_and(|spec| spec.max_unavailable.is_some() || spec.min_available.as_ref().is_some_and(percent))
}

/// Decides, by the pods that the budget selects and how many their controllers want.
pub fn decide(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: Result<i32, String>, now: Timestamp) -> Plan {
    let mut plan = Plan { status: budget.status.clone().unwrap_or_default(), events: Vec::new(), again: None };
    let generation = budget.metadata.generation;
    if pods.is_empty() {
        plan.events.push((false, "NoPods", "No matching pods found".to_owned()));
    }
    let scale = match scale {
        Ok(scale) => scale,
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            plan.events.push((true, "CalculateExpectedPodCountFailed", message));
            plan.status.disruptions_allowed = Some(0);
            plan.status.observed_generation = generation;
            set_condition(&mut plan.status, false, "SyncFailed", &why, now);
            return plan;
        }
    };
    let (expected, desired) = counts(budget, pods.len(), scale);
    let disrupted = still_disrupted(budget, pods, &mut plan, now);
    let is_healthy =
        |pod: &&Arc<Pod>| !is_deleting(&pod.metadata) && !disrupted.contains_key(name(&pod.metadata)) && is_ready(pod);
    let healthy = to_i32(pods.iter().filter(is_healthy).count());
    let allowed = if expected > 0 { healthy.saturating_sub(desired).max(0) } else { 0 };
    plan.status.current_healthy = Some(healthy);
    plan.status.desired_healthy = Some(desired);
    plan.status.expected_pods = Some(expected);
    plan.status.disruptions_allowed = Some(allowed);
    plan.status.disrupted_pods = (!disrupted.is_empty()).then_some(disrupted);
    plan.status.observed_generation = generation;
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    set_condition(&mut plan.status, allowed > 0, reason, "", now);
    plan
}

/// How many pods are expected, and how many of them have to be healthy.
fn counts(budget: &PodDisruptionBudget, pods: usize, scale: i32) -> (i32, i32) {
    let spec = budget.spec.clone().unwrap_or_default();
    match (spec.max_unavailable, spec.min_available) {
        (Some(most), _) => (scale, scale.saturating_sub(scaled(&most, scale, true)).max(0)),
        (None, Some(least @ IntOrString::String(_))) => (scale, scaled(&least, scale, true)),
        (None, Some(IntOrString::Int(least))) => (to_i32(pods), least),
        (None, None) => (to_i32(pods), 1),
    }
}

/// The pods whose eviction was granted and that have not begun to go.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    plan: &mut Plan,
    now: Timestamp,
) -> BTreeMap<String, Time> {
    let known = plan.status.disrupted_pods.take().unwrap_or_default();
    let mut still = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        let Some(since) = known.get(name(&pod.metadata)) else { continue };
        let left = DELETION_TIMEOUT.saturating_sub(elapsed(since.0, now));
        if left.is_zero() {
            let (space, own) = (namespace(&budget.metadata), name(&budget.metadata));
            let message = format!("Pod was expected by PDB {space}/{own} to be deleted but it wasn't");
            plan.events.push((true, "NotDeleted", message));
            continue;
        }
        plan.again = Some(plan.again.map_or(left, |known| known.min(left)));
        still.insert(name(&pod.metadata).to_owned(), since.clone());
    }
    still
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, holds: bool, reason: &str, message: &str, now: Timestamp) {
    let state = if holds { "True" } else { "False" };
    let generation = status.observed_generation;
    let all = status.conditions.get_or_insert_default();
    let known = all.iter().position(|condition| condition.type_ == ALLOWED);
    let since = known.map(|at| &all[at]).filter(|c| c.status == state).map(|c| c.last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    match known {
        Some(at) => all[at] = new,
        None => all.push(new),
    }
}
