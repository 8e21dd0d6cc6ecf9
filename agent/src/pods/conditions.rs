//! The conditions of a pod: those that the node owns, worded as the kubelet's; the others are kept as they are.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::model::{DesiredPod, ObservedPod, is_sidecar};

struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

fn yes() -> Verdict {
    Verdict { status: true, reason: "", message: String::new() }
}

fn no(reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict { status: false, reason, message: message.into() }
}

/// All conditions, with the transition times of those that did not change kept.
pub(super) fn conditions(
    desired: &DesiredPod,
    observed: &ObservedPod,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    now: Timestamp,
) -> Vec<PodCondition> {
    let sandbox = observed.ready_sandbox().is_some_and(|sandbox| !sandbox.ips.is_empty());
    let ready = containers_ready(desired, phase, init, containers);
    let gated = pod_ready(desired, &ready);
    let ours = [
        ("PodReadyToStartContainers", Verdict { status: sandbox, reason: "", message: String::new() }),
        ("Initialized", initialized(desired, observed, phase, init)),
        ("Ready", gated),
        ("ContainersReady", ready),
        ("PodScheduled", yes()),
    ];
    let before = desired.api_status().conditions.as_deref().unwrap_or_default();
    let generation = desired.pod.metadata.generation;
    let mut all: Vec<PodCondition> = ours
        .into_iter()
        .map(|(kind, verdict)| condition(kind, verdict, before.iter().find(|c| c.type_ == kind), generation, now))
        .collect();
    let foreign = before.iter().filter(|c| !all.iter().any(|own| own.type_ == c.type_)).cloned().collect::<Vec<_>>();
    all.extend(foreign);
    all
}

fn condition(
    kind: &str,
    verdict: Verdict,
    before: Option<&PodCondition>,
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let unchanged = before.filter(|before| before.status == status);
    let since = unchanged.and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!verdict.reason.is_empty()).then(|| verdict.reason.to_owned()),
        message: (!verdict.message.is_empty()).then_some(verdict.message),
        last_probe_time: None,
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: generation,
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", names.collect::<Vec<_>>().join(" "))
}

fn initialized(desired: &DesiredPod, observed: &ObservedPod, phase: &str, init: &[ContainerStatus]) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { status: true, reason: "PodCompleted", message: String::new() };
    }
    if super::init::was_initialized(desired, observed) {
        return yes();
    }
    let incomplete = |name: &str, sidecar: bool| {
        let Some(status) = init.iter().find(|status| status.name == name) else { return true };
        let done = status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
        if sidecar { status.started != Some(true) } else { !done }
    };
    let left: Vec<&str> = desired
        .init_containers()
        .iter()
        .filter(|container| incomplete(&container.name, is_sidecar(container)))
        .map(|container| container.name.as_str())
        .collect();
    match left.is_empty() {
        true => yes(),
        false => {
            let message = format!("containers with incomplete status: {}", names(left.into_iter()));
            no("ContainersNotInitialized", message)
        }
    }
}

fn containers_ready(
    desired: &DesiredPod,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Verdict {
    match phase {
        "Succeeded" => return no("PodCompleted", ""),
        "Failed" => return no("PodFailed", ""),
        _ => {}
    }
    let sidecars = desired.init_containers().iter().filter(|container| is_sidecar(container));
    let wanted = sidecars.chain(&desired.spec().containers);
    let find = |name: &str| init.iter().chain(containers).find(|status| status.name == name);
    let unready: Vec<&str> = wanted
        .filter(|container| find(&container.name).is_none_or(|status| !status.ready))
        .map(|container| container.name.as_str())
        .collect();
    match unready.is_empty() {
        true => yes(),
        false => no("ContainersNotReady", format!("containers with unready status: {}", names(unready.into_iter()))),
    }
}

fn pod_ready(desired: &DesiredPod, ready: &Verdict) -> Verdict {
    if !ready.status {
        return no(ready.reason, ready.message.clone());
    }
    let gates = desired.spec().readiness_gates.as_deref().unwrap_or_default();
    let conditions = desired.api_status().conditions.as_deref().unwrap_or_default();
    let unmet: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions.iter().find(|condition| condition.type_ == *kind) {
                None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
                Some(condition) if condition.status != "True" => {
                    Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", condition.status))
                }
                Some(_) => None,
            }
        })
        .collect();
    if unmet.is_empty() { yes() } else { no("ReadinessGatesNotReady", unmet.join(", ")) }
}
