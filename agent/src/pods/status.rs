//! The `PodStatus` that says where a pod is, as a kubelet reports it.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    conditions::conditions,
    decide::is_over,
    init::was_initialized,
    model::{DesiredPod, ImageState, ObservedPod, RunState, Seen, is_sidecar},
    phase::phase,
    qos, restart,
};

/// Where the pod is.
pub fn status(desired: &DesiredPod, observed: &ObservedPod, now: Timestamp) -> PodStatus {
    let before = desired.api_status();
    let over = is_over(desired, observed) || (desired.deleting() && nothing_runs(observed));
    let init: Vec<_> =
        desired.init_containers().iter().map(|c| container_status(desired, observed, c, true, now)).collect();
    let containers: Vec<_> =
        desired.spec().containers.iter().map(|c| container_status(desired, observed, c, false, now)).collect();
    let ephemeral: Vec<_> =
        desired.ephemeral.iter().map(|c| container_status(desired, observed, c, false, now)).collect();
    let phase = match before.phase.as_deref() {
        Some(ended @ ("Succeeded" | "Failed")) => ended,
        _ if observed.ended.is_some() => "Failed",
        _ => phase(desired, &init, &containers, over, was_initialized(desired, observed)),
    };
    let mut status = PodStatus {
        conditions: Some(conditions(desired, observed, phase, &init, &containers, now)),
        phase: Some(phase.to_owned()),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        container_statuses: (!containers.is_empty()).then_some(containers),
        observed_generation: desired.pod.metadata.generation,
        qos_class: Some(before.qos_class.clone().unwrap_or_else(|| qos::class(desired.spec()).to_owned())),
        start_time: before.start_time.clone().or(Some(Time(observed.first_seen.unwrap_or(now)))),
        ..before.clone()
    };
    if let Some(ended) = &observed.ended {
        status.reason = Some(ended.reason.clone());
        status.message = Some(ended.message.clone());
    }
    set_addresses(&mut status, desired, observed);
    status
}

fn nothing_runs(observed: &ObservedPod) -> bool {
    observed.live().next().is_none() && !observed.any_container_busy()
}

fn set_addresses(status: &mut PodStatus, desired: &DesiredPod, observed: &ObservedPod) {
    let texts: Vec<String> = desired.host_ips.iter().map(IpAddr::to_string).collect();
    status.host_ip = texts.first().cloned();
    status.host_ips = Some(texts.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let ips: Vec<String> = match desired.spec().host_network {
        Some(true) => texts,
        _ => observed.ready_sandbox().iter().flat_map(|sandbox| &sandbox.ips).map(IpAddr::to_string).collect(),
    };
    if !ips.is_empty() {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
}

fn container_status(
    desired: &DesiredPod,
    observed: &ObservedPod,
    container: &Container,
    is_init: bool,
    now: Timestamp,
) -> ContainerStatus {
    let before = before(desired, &container.name);
    let newest = observed.newest(&container.name);
    if let (None, Some(before), true) = (newest, before, desired.deleting() || is_over(desired, observed)) {
        return before.clone();
    }
    let memory = observed.memory_of(&container.name);
    let (state, last) = states(desired, observed, container, now);
    let running = state.running.is_some();
    let sidecar = is_sidecar(container);
    let done = is_init && !sidecar && state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: newest
            .map(|seen| seen.image.clone())
            .filter(|image| !image.is_empty())
            .or(container.image.clone())
            .unwrap_or_default(),
        image_id: newest.map(|seen| seen.image_ref.clone()).unwrap_or_default(),
        container_id: newest
            .filter(|seen| !seen.id.is_empty())
            .map(|seen| format!("{}://{}", observed.runtime_name, seen.id)),
        restart_count: newest
            .map_or(before.map_or(0, |b| b.restart_count), |seen| seen.attempt.try_into().unwrap_or(i32::MAX)),
        ready: done || (running && memory.ready && (!is_init || sidecar) && !desired.is_ephemeral(&container.name)),
        started: (!desired.is_ephemeral(&container.name)).then_some(running && memory.started),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        resources: memory.resources.clone().filter(|_| running).or(container.resources.clone()),
        allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        ..ContainerStatus::default()
    }
}

fn before<'a>(desired: &'a DesiredPod, name: &str) -> Option<&'a ContainerStatus> {
    let status = desired.api_status();
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let all = all.chain(&status.ephemeral_container_statuses).flatten();
    all.into_iter().find(|status| status.name == name)
}

/// The state and the one before.
fn states(
    desired: &DesiredPod,
    observed: &ObservedPod,
    container: &Container,
    now: Timestamp,
) -> (ContainerState, Option<ContainerState>) {
    let all = observed.containers.get(&container.name).map(Vec::as_slice).unwrap_or_default();
    let previous = all
        .iter()
        .rev()
        .skip(1)
        .find(|seen| seen.state == RunState::Exited)
        .map(|seen| terminated(seen, &observed.runtime_name));
    let Some(newest) = all.last() else { return (waiting(waits_for(desired, observed, container)), None) };
    match newest.state {
        RunState::Running | RunState::Unknown => {
            let running = ContainerStateRunning { started_at: newest.started_at.map(Time) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, previous)
        }
        RunState::Created => (waiting(waits_for(desired, observed, container)), previous),
        RunState::Exited => match comes_again(desired, observed, container, newest, now) {
            Some(reason) => (waiting(reason), Some(terminated(newest, &observed.runtime_name))),
            None => (terminated(newest, &observed.runtime_name), previous),
        },
    }
}

/// Why a container that ended waits to be started again; `None` where it does not, or not yet.
fn comes_again(
    desired: &DesiredPod,
    observed: &ObservedPod,
    container: &Container,
    ended: &Seen,
    now: Timestamp,
) -> Option<(String, String)> {
    if desired.deleting() || is_over(desired, observed) || desired.is_ephemeral(&container.name) {
        return None;
    }
    let is_init = desired.init_containers().iter().any(|init| init.name == container.name) && !is_sidecar(container);
    let again = match is_init {
        true => ended.exit_code != 0 && restart::init_restarts(desired, container, ended.exit_code),
        false => restart::restarts(desired, container, ended.exit_code),
    };
    if !again {
        return None;
    }
    let memory = observed.memory_of(&container.name);
    if let Some((_, wait)) = restart::backing_off(&memory.crash_backoff, ended, now) {
        return Some(("CrashLoopBackOff".to_owned(), restart::crash_message(desired, &container.name, wait)));
    }
    failure(observed, container)
}

fn waits_for(desired: &DesiredPod, observed: &ObservedPod, container: &Container) -> (String, String) {
    if let Some(failure) = failure(observed, container) {
        return failure;
    }
    let reason = if desired.init_containers().is_empty() { "ContainerCreating" } else { "PodInitializing" };
    (reason.to_owned(), String::new())
}

/// What keeps a container from starting: its image, or the newest try to create or start it.
fn failure(observed: &ObservedPod, container: &Container) -> Option<(String, String)> {
    let memory = observed.memory_of(&container.name);
    if let ImageState::Failed { reason, message } = &memory.image {
        return Some((reason.clone(), message.clone()));
    }
    memory.failure.as_ref().map(|failure| (failure.reason.clone(), failure.message.clone()))
}

fn waiting((reason, message): (String, String)) -> ContainerState {
    let message = (!message.is_empty()).then_some(message);
    let waiting = ContainerStateWaiting { reason: Some(reason), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(seen: &Seen, runtime: &str) -> ContainerState {
    let by_code = if seen.exit_code == 0 { "Completed" } else { "Error" };
    let reason = if seen.reason.is_empty() { by_code.to_owned() } else { seen.reason.clone() };
    let terminated = ContainerStateTerminated {
        container_id: (!seen.id.is_empty()).then(|| format!("{runtime}://{}", seen.id)),
        exit_code: seen.exit_code,
        reason: Some(reason),
        message: (!seen.message.is_empty()).then(|| seen.message.clone()),
        started_at: seen.started_at.map(Time),
        finished_at: seen.finished_at.map(Time),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}
