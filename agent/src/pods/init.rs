//! Init containers in order, and the sidecars among them (restartable init containers, KEP-753).

use k8s_openapi::api::core::v1::Container;

use super::{
    decide::Plan,
    model::{DesiredPod, ObservedPod, RunState, is_sidecar},
    restart,
};

/// Whether the pod was initialized in its current sandbox: a container proper has been created there. Init
/// containers are not run again then.
pub(super) fn was_initialized(desired: &DesiredPod, observed: &ObservedPod) -> bool {
    desired.spec().containers.iter().any(|container| observed.current(&container.name).is_some())
}

/// Brings init containers and sidecars forward; true once the containers proper may start.
pub(super) fn step(plan: &mut Plan<'_>) -> bool {
    let desired = plan.desired;
    let initialized = was_initialized(desired, plan.observed);
    for container in desired.init_containers() {
        let passed = match is_sidecar(container) {
            true => run_sidecar(plan, container),
            false => initialized || run_once(plan, container),
        };
        if !passed && !initialized {
            return false;
        }
    }
    true
}

/// Keeps a sidecar running; true once it is started, so that what follows it may start.
fn run_sidecar(plan: &mut Plan<'_>, container: &Container) -> bool {
    let observed = plan.observed;
    match observed.current(&container.name) {
        Some(seen) if seen.state == RunState::Running => {
            plan.keep(container, seen) && observed.memory_of(&container.name).started
        }
        Some(seen) if seen.state == RunState::Unknown => {
            let message =
                format!("Init container {} is in unknown state, try killing it before restart", container.name);
            plan.kill(&container.name, seen, plan.desired.grace_seconds(), message);
            false
        }
        _ => {
            plan.start(container);
            false
        }
    }
}

/// Runs an init container until it succeeds; true once it has.
fn run_once(plan: &mut Plan<'_>, container: &Container) -> bool {
    match plan.observed.current(&container.name) {
        Some(seen) if seen.state == RunState::Exited && seen.exit_code == 0 => return true,
        Some(seen) if seen.state == RunState::Exited => {
            if restart::init_restarts(plan.desired, container, seen.exit_code) {
                plan.start(container);
            }
        }
        Some(seen) if seen.state == RunState::Running => {}
        Some(seen) if seen.state == RunState::Unknown => {
            let message =
                format!("Init container {} is in unknown state, try killing it before restart", container.name);
            plan.kill(&container.name, seen, plan.desired.grace_seconds(), message);
        }
        _ => plan.start(container),
    }
    false
}
