//! What of an action's outcome is remembered of a pod.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::{
    execute::Outcome,
    model::{DesiredPod, ImageState, ObservedPod, RunState, StartFailure, VolumeState},
};
use crate::probes::{ProbeKind, Verdict};

/// When a start that failed is tried again.
const START_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// When a sandbox that failed is tried again.
const SANDBOX_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// When volumes that failed are tried again.
const VOLUMES_AGAIN: SignedDuration = SignedDuration::from_secs(2);

fn later(now: Timestamp, delay: SignedDuration) -> Timestamp {
    now.checked_add(delay).unwrap_or(now)
}

/// Takes in what came of an action.
pub(super) fn remember(desired: &DesiredPod, observed: &mut ObservedPod, outcome: &Outcome, now: Timestamp) {
    match outcome {
        Outcome::Mounted(Ok(())) => observed.volumes = VolumeState::Ready,
        Outcome::Mounted(Err(message)) => {
            if observed.volumes != VolumeState::Ready {
                observed.volumes =
                    VolumeState::Failed { message: message.clone(), retry_at: later(now, VOLUMES_AGAIN) };
            }
        }
        Outcome::Unmounted => observed.volumes = VolumeState::Absent,
        Outcome::Sandbox(Ok(())) => observed.sandbox_failure = None,
        Outcome::Sandbox(Err(message)) => observed.sandbox_failure = Some((message.clone(), later(now, SANDBOX_AGAIN))),
        Outcome::Image(container, result) => image(observed, container, result, now),
        Outcome::Started(container, result) => started(desired, observed, container, result, now),
        Outcome::Resized(container, resources, done) => {
            let memory = observed.memory.entry(container.clone()).or_default();
            if *done {
                memory.resources = Some(resources.clone());
            } else {
                memory.refused = Some(resources.clone());
            }
        }
        Outcome::Done | Outcome::Deleted | Outcome::Reported(_) | Outcome::Retry(_) => {}
    }
}

fn image(observed: &mut ObservedPod, container: &str, result: &Result<String, (&'static str, String)>, now: Timestamp) {
    let memory = observed.memory.entry(container.to_owned()).or_default();
    memory.image = match result {
        Ok(reference) => ImageState::Present(reference.clone()),
        Err((reason, message)) => {
            memory.pull_backoff.advance(now, now);
            memory.pull_failed_at = Some(now);
            ImageState::Failed { reason: (*reason).to_owned(), message: message.clone() }
        }
    };
}

fn started(
    desired: &DesiredPod,
    observed: &mut ObservedPod,
    container: &str,
    result: &Result<ResourceRequirements, (&'static str, String)>,
    now: Timestamp,
) {
    // What stands in `observed` is from before the start: the newest container is the one that is replaced.
    let ended = observed.newest(container).filter(|seen| seen.state == RunState::Exited);
    let ended = ended.map(|seen| seen.finished_at.unwrap_or(now));
    let spec = desired.container(container);
    let memory = observed.memory.entry(container.to_owned()).or_default();
    if let Some(ended) = ended {
        memory.crash_backoff.advance(ended, now);
    }
    memory.image = ImageState::Unknown;
    memory.resources = result.as_ref().ok().cloned();
    memory.refused = None;
    memory.unhealthy = None;
    memory.unhealthy_grace_seconds = None;
    memory.started = result.is_ok() && spec.is_some_and(|spec| spec.startup_probe.is_none());
    memory.ready = memory.started && spec.is_some_and(|spec| spec.readiness_probe.is_none());
    memory.failure = result.as_ref().err().map(|(reason, message)| StartFailure {
        reason: (*reason).to_owned(),
        message: message.clone(),
        retry_at: later(now, START_AGAIN),
    });
}

/// Takes in what a probe found of a container that is still the current one.
pub(super) fn probed(desired: &DesiredPod, observed: &mut ObservedPod, verdict: &Verdict) {
    if observed.newest(&verdict.container).is_none_or(|seen| seen.id != verdict.id) {
        return;
    }
    let Some(spec) = desired.container(&verdict.container) else { return };
    let memory = observed.memory.entry(verdict.container.clone()).or_default();
    match (verdict.kind, verdict.settled) {
        (_, None) | (ProbeKind::Liveness, Some(true)) => {}
        (ProbeKind::Readiness, Some(ready)) => memory.ready = ready,
        (ProbeKind::Startup, Some(true)) => {
            memory.started = true;
            memory.ready |= spec.readiness_probe.is_none();
        }
        (kind @ (ProbeKind::Startup | ProbeKind::Liveness), Some(false)) => {
            let probe = if kind == ProbeKind::Startup { &spec.startup_probe } else { &spec.liveness_probe };
            let word = kind.as_str().to_lowercase();
            let again = desired.restart_policy() != "Never" || spec.restart_policy.as_deref() == Some("Always");
            let then = if again { ", will be restarted" } else { "" };
            memory.unhealthy = Some(format!("Container {} failed {word} probe{then}", spec.name));
            memory.unhealthy_grace_seconds = probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
        }
    }
}

/// A container that runs though this agent did not start it (it was restarted): it counts as started and ready
/// until its probes say otherwise, if the API says that it was.
pub(super) fn adopt(desired: &DesiredPod, observed: &mut ObservedPod) {
    let status = desired.api_status();
    let known: Vec<_> = status.init_container_statuses.iter().chain(&status.container_statuses).flatten().collect();
    let running: Vec<String> = observed.live().map(|(name, _)| name.to_owned()).collect();
    for name in running {
        let Some(spec) = desired.container(&name) else { continue };
        let before = known.iter().find(|status| status.name == name);
        let memory = observed.memory.entry(name).or_default();
        memory.resources = before.and_then(|status| status.resources.clone()).or(spec.resources.clone());
        memory.started = spec.startup_probe.is_none() || before.is_some_and(|status| status.started == Some(true));
        memory.ready = memory.started && (spec.readiness_probe.is_none() || before.is_some_and(|status| status.ready));
    }
}
