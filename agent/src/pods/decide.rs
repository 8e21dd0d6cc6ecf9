//! What is to be done for a pod next.
//!
//! # Expected flow
//! volumes, sandbox, init containers and sidecars in order, containers; restarts as policy and back-off say. On the
//! way out: containers, sidecars in reverse order, sandbox, what the runtime keeps, volumes, the object.
//!
//! # Guarantees
//! Never two actions on one subject at a time, never a start of a container that runs, never a sandbox beside one
//! that is ready, nothing started once the pod is to go.
//!
//! # Assumptions
//! The caller executes every action, records what came of it in [`ObservedPod`], and asks again after each change
//! and at each [`Action::WakeAt`].

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::{
    init,
    model::{Action, DesiredPod, ImageState, ObservedPod, RunState, Seen, Subject, VolumeState, is_sidecar},
    resize, restart,
};

/// How many containers of a name are kept: the newest, and the one before for `logs --previous`.
const KEPT_A_NAME: usize = 2;

/// The least grace that a sidecar gets when the pod's own is used up.
const LEAST_SIDECAR_GRACE_SECONDS: i64 = 2;

/// What is to be done for a pod, given what is wanted and what was seen.
pub fn decide(desired: &DesiredPod, observed: &ObservedPod, now: Timestamp) -> Vec<Action> {
    let mut plan = Plan { desired, observed, now, taken: BTreeSet::new(), actions: vec![], wake: None };
    if desired.deleting() {
        delete(&mut plan);
    } else if is_over(desired, observed) {
        stop(&mut plan);
    } else {
        run(&mut plan);
    }
    plan.actions.extend(plan.wake.map(Action::WakeAt));
    plan.actions
}

/// Whether the pod has ended for good: nothing of it is to run any more.
pub(super) fn is_over(desired: &DesiredPod, observed: &ObservedPod) -> bool {
    let reported = matches!(desired.api_status().phase.as_deref(), Some("Succeeded" | "Failed"));
    reported || observed.ended.is_some() || init_failed(desired, observed) || containers_ended(desired, observed)
}

fn init_failed(desired: &DesiredPod, observed: &ObservedPod) -> bool {
    !init::was_initialized(desired, observed)
        && desired.init_containers().iter().filter(|container| !is_sidecar(container)).any(|container| {
            let ended = observed.newest(&container.name).filter(|seen| seen.state == RunState::Exited);
            ended.is_some_and(|seen| seen.exit_code != 0 && !restart::init_restarts(desired, container, seen.exit_code))
        })
}

fn containers_ended(desired: &DesiredPod, observed: &ObservedPod) -> bool {
    !desired.spec().containers.is_empty()
        && desired.spec().containers.iter().all(|container| {
            let ended = observed.newest(&container.name).filter(|seen| seen.state == RunState::Exited);
            ended.is_some_and(|seen| !restart::restarts(desired, container, seen.exit_code))
        })
}

/// Actions as they are collected.
pub(super) struct Plan<'a> {
    pub(super) desired: &'a DesiredPod,
    pub(super) observed: &'a ObservedPod,
    pub(super) now: Timestamp,
    taken: BTreeSet<Subject>,
    actions: Vec<Action>,
    wake: Option<Timestamp>,
}

impl Plan<'_> {
    fn push(&mut self, action: Action) {
        if let Some(subject) = action.subject()
            && (self.observed.is_busy(&subject) || !self.taken.insert(subject))
        {
            return;
        }
        self.actions.push(action);
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Whether a time has come; asks to be woken if it has not.
    fn is_due(&mut self, at: Timestamp) -> bool {
        if at > self.now {
            self.wake_at(at);
        }
        at <= self.now
    }

    /// Starts a container that does not run in the current sandbox: back-off, then image, then start.
    pub(super) fn start(&mut self, container: &Container) {
        let Some(sandbox) = self.observed.ready_sandbox() else { return };
        let newest = self.observed.newest(&container.name);
        let memory = self.observed.memory_of(&container.name);
        if let Some(created) = newest.filter(|seen| seen.state == RunState::Created) {
            return self.push(Action::RemoveContainer { container: container.name.clone(), id: created.id.clone() });
        }
        if let Some((due, _)) = newest.and_then(|ended| restart::backing_off(&memory.crash_backoff, ended, self.now)) {
            return self.wake_at(due);
        }
        if let Some(failure) = &memory.failure
            && !self.is_due(failure.retry_at)
        {
            return;
        }
        let name = container.name.clone();
        match &memory.image {
            ImageState::Present(image_ref) => {
                let attempt = newest.map_or(0, |seen| seen.attempt + 1);
                let (sandbox_id, image_ref) = (sandbox.id.clone(), image_ref.clone());
                self.push(Action::StartContainer { container: name, attempt, sandbox_id, image_ref });
            }
            ImageState::Unknown => self.push(Action::EnsureImage { container: name }),
            ImageState::Failed { .. } => {
                let failed_at = memory.pull_failed_at.unwrap_or(self.now);
                if self.is_due(memory.pull_backoff.due(failed_at)) {
                    self.push(Action::EnsureImage { container: name });
                }
            }
        }
    }

    /// How long containers get to end for good.
    fn last_grace_seconds(&self) -> i64 {
        let ended = self.observed.ended.as_ref().and_then(|ended| ended.grace_seconds);
        ended.unwrap_or(self.desired.grace_seconds())
    }

    /// Stops a running container for a reason.
    pub(super) fn kill(&mut self, name: &str, seen: &Seen, grace_seconds: i64, message: String) {
        self.push(Action::StopContainer { container: name.to_owned(), id: seen.id.clone(), grace_seconds, message });
    }

    /// Whether a running container is as it should be; if not, it is stopped, and restarted by policy later.
    pub(super) fn keep(&mut self, container: &Container, seen: &Seen) -> bool {
        let memory = self.observed.memory_of(&container.name);
        let grace = memory.unhealthy_grace_seconds.unwrap_or(self.desired.grace_seconds());
        if let Some(why) = &memory.unhealthy {
            self.kill(&container.name, seen, grace, why.clone());
        } else if !seen.spec_hash.is_empty() && seen.spec_hash != super::config::spec_hash(container) {
            let message = format!("Container {} definition changed, will be restarted", container.name);
            self.kill(&container.name, seen, self.desired.grace_seconds(), message);
        } else if resize::is_wanted(container, memory) {
            if resize::restarts(container, memory) {
                let message = format!("Container {} resize requires restart", container.name);
                self.kill(&container.name, seen, self.desired.grace_seconds(), message);
                return false;
            }
            self.push(Action::ResizeContainer { container: container.name.clone(), id: seen.id.clone() });
            return true;
        } else {
            return true;
        }
        false
    }
}

fn run(plan: &mut Plan<'_>) {
    if deadline_exceeded(plan) {
        return plan.push(Action::ExceedDeadline);
    }
    if !volumes_ready(plan) || !sandbox_ready(plan) {
        return;
    }
    let desired = plan.desired;
    // Ephemeral containers wait for nothing and are never started again.
    for container in desired.ephemeral.iter().filter(|container| plan.observed.newest(&container.name).is_none()) {
        plan.start(container);
    }
    if init::step(plan) {
        for container in &desired.spec().containers {
            run_container(plan, container);
        }
    }
    collect_garbage(plan);
}

fn deadline_exceeded(plan: &mut Plan<'_>) -> bool {
    let started = plan.desired.api_status().start_time.as_ref().map(|time| time.0).or(plan.observed.first_seen);
    let (Some(seconds), Some(started)) = (plan.desired.spec().active_deadline_seconds, started) else { return false };
    let deadline = started.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    plan.is_due(deadline)
}

fn volumes_ready(plan: &mut Plan<'_>) -> bool {
    match &plan.observed.volumes {
        VolumeState::Ready => return true,
        VolumeState::Absent => plan.push(Action::MountVolumes),
        VolumeState::Failed { retry_at, .. } => {
            if plan.is_due(*retry_at) {
                plan.push(Action::MountVolumes);
            }
        }
    }
    false
}

/// Whether there is a sandbox to start containers in; sees to one if there is none.
fn sandbox_ready(plan: &mut Plan<'_>) -> bool {
    let observed = plan.observed;
    if observed.ready_sandbox().is_some() {
        return true;
    }
    let mut left_over = false;
    for (name, seen) in observed.live() {
        left_over = true;
        let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
        plan.kill(name, seen, plan.desired.grace_seconds(), message);
    }
    if left_over || observed.any_container_busy() {
        return false;
    }
    if observed.sandbox_failure.as_ref().is_none_or(|(_, retry_at)| plan.is_due(*retry_at)) {
        plan.push(Action::RunSandbox { attempt: observed.sandbox().map_or(0, |sandbox| sandbox.attempt + 1) });
    }
    false
}

fn run_container(plan: &mut Plan<'_>, container: &Container) {
    let observed = plan.observed;
    match observed.newest(&container.name) {
        Some(seen) if seen.state == RunState::Running => {
            let current = observed.current(&container.name).is_some();
            if current {
                plan.keep(container, seen);
            } else {
                plan.kill(
                    &container.name,
                    seen,
                    plan.desired.grace_seconds(),
                    format!("Stopping container {}", container.name),
                );
            }
        }
        Some(seen) if seen.state == RunState::Unknown => {
            let message = format!("Container {} is in unknown state, try killing it before restart", container.name);
            plan.kill(&container.name, seen, plan.desired.grace_seconds(), message);
        }
        Some(seen) if seen.state == RunState::Exited => {
            if restart::restarts(plan.desired, container, seen.exit_code) {
                plan.start(container);
            }
        }
        _ => plan.start(container),
    }
}

/// Containers that neither run nor are needed for `lastState` and `logs --previous`, and sandboxes that hold none.
fn collect_garbage(plan: &mut Plan<'_>) {
    let observed = plan.observed;
    for (name, all) in &observed.containers {
        for seen in all.iter().take(all.len().saturating_sub(KEPT_A_NAME)) {
            match seen.state {
                RunState::Running | RunState::Unknown => {
                    plan.kill(name, seen, plan.desired.grace_seconds(), format!("Stopping container {name}"));
                }
                RunState::Created | RunState::Exited => {
                    plan.push(Action::RemoveContainer { container: name.clone(), id: seen.id.clone() });
                }
            }
        }
    }
    let newest = observed.sandbox().map(|sandbox| sandbox.id.as_str());
    for sandbox in observed.sandboxes.iter().filter(|sandbox| Some(sandbox.id.as_str()) != newest) {
        let holds_any = observed.containers.values().flatten().any(|seen| seen.sandbox_id == sandbox.id);
        if !holds_any {
            plan.push(Action::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

/// Stops all containers, then the sandboxes. Whether nothing of the pod runs any more.
fn stop(plan: &mut Plan<'_>) -> bool {
    stop_containers(plan);
    let observed = plan.observed;
    if observed.live().next().is_some() || observed.any_container_busy() {
        return false;
    }
    for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        plan.push(Action::StopSandbox { id: sandbox.id.clone() });
    }
    observed.sandboxes.iter().all(|sandbox| !sandbox.ready) && !observed.is_busy(&Subject::Sandbox)
}

/// Ordinary containers at once; sidecars one by one in reverse order once no other runs (KEP-753).
fn stop_containers(plan: &mut Plan<'_>) {
    let (desired, observed) = (plan.desired, plan.observed);
    let is_late = |name: &str| desired.init_containers().iter().any(|c| c.name == name && is_sidecar(c));
    let mut any = false;
    for (name, seen) in observed.live().filter(|(name, _)| !is_late(name)) {
        any = true;
        plan.kill(name, seen, plan.last_grace_seconds(), format!("Stopping container {name}"));
    }
    let others_busy = desired.spec().containers.iter().any(|c| observed.is_busy(&Subject::Container(c.name.clone())));
    if any || others_busy {
        return;
    }
    let last = desired.init_containers().iter().rev().find(|c| is_sidecar(c) && observed.is_running(&c.name));
    if let Some(container) = last {
        let grace = sidecar_grace_seconds(plan);
        if let Some(seen) = observed.newest(&container.name) {
            plan.kill(&container.name, seen, grace, format!("Stopping container {}", container.name));
        }
    }
}

/// What is left of the pod's grace period.
fn sidecar_grace_seconds(plan: &Plan<'_>) -> i64 {
    let grace = plan.last_grace_seconds();
    let left = match &plan.desired.pod.metadata.deletion_timestamp {
        Some(deadline) => deadline.0.duration_since(plan.now).as_secs(),
        None => grace,
    };
    left.max(LEAST_SIDECAR_GRACE_SECONDS).min(grace)
}

/// Stops and removes everything, the object last.
fn delete(plan: &mut Plan<'_>) {
    if !stop(plan) {
        return;
    }
    let observed = plan.observed;
    for sandbox in &observed.sandboxes {
        plan.push(Action::RemoveSandbox { id: sandbox.id.clone() });
    }
    let held = |seen: &Seen| observed.sandboxes.iter().any(|sandbox| sandbox.id == seen.sandbox_id);
    for (name, seen) in observed.containers.iter().flat_map(|(name, all)| all.iter().map(move |seen| (name, seen))) {
        if !held(seen) {
            plan.push(Action::RemoveContainer { container: name.clone(), id: seen.id.clone() });
        }
    }
    if !observed.sandboxes.is_empty() || observed.containers.values().any(|all| !all.is_empty()) {
        return;
    }
    if observed.volumes != VolumeState::Absent || observed.is_busy(&Subject::Volumes) {
        return plan.push(Action::UnmountVolumes);
    }
    if !plan.desired.gone && observed.object_retry_at.is_none_or(|at| plan.is_due(at)) {
        plan.push(Action::FinishDeletion);
    }
}
