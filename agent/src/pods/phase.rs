//! The phase of a pod, from the states of its containers.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::model::{DesiredPod, is_sidecar};

#[derive(Default)]
struct Count {
    running: usize,
    succeeded: usize,
    stopped: usize,
    waiting: usize,
}

/// `Pending`, `Running`, `Succeeded` or `Failed`. `over`: nothing of the pod is to run any more.
pub(super) fn phase(
    desired: &DesiredPod,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    over: bool,
    initialized: bool,
) -> &'static str {
    let pending = init_pending(desired, init);
    if !initialized && init_failed(desired, init) && over {
        return "Failed";
    }
    let count = count(containers);
    if over && count.running == 0 {
        return if count.succeeded == containers.len() { "Succeeded" } else { "Failed" };
    }
    match () {
        () if pending && !initialized => "Pending",
        () if count.waiting > 0 => "Pending",
        () if count.running > 0 || count.stopped > 0 => "Running",
        () => "Pending",
    }
}

fn count(containers: &[ContainerStatus]) -> Count {
    let mut count = Count::default();
    for status in containers {
        let Some(state) = &status.state else {
            count.waiting += 1;
            continue;
        };
        if state.running.is_some() {
            count.running += 1;
        } else if let Some(terminated) = &state.terminated {
            count.stopped += 1;
            count.succeeded += usize::from(terminated.exit_code == 0);
        } else if status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            count.stopped += 1;
        } else {
            count.waiting += 1;
        }
    }
    count
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    let last = status.last_state.as_ref().filter(|_| state.waiting.is_some());
    state.terminated.as_ref().or(last.and_then(|last| last.terminated.as_ref())).map(|ended| ended.exit_code)
}

fn init_pending(desired: &DesiredPod, init: &[ContainerStatus]) -> bool {
    desired.init_containers().iter().any(|container| {
        let Some(status) = init.iter().find(|status| status.name == container.name) else { return true };
        if is_sidecar(container) { status.started != Some(true) } else { exit_code(status) != Some(0) }
    })
}

fn init_failed(desired: &DesiredPod, init: &[ContainerStatus]) -> bool {
    desired.init_containers().iter().filter(|container| !is_sidecar(container)).any(|container| {
        let status = init.iter().find(|status| status.name == container.name);
        status.and_then(exit_code).is_some_and(|code| code != 0)
    })
}
