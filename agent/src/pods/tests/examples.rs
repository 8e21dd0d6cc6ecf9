use serde_json::json;

use super::{at, desired};
use crate::pods::{
    decide,
    execute::Outcome,
    memory,
    model::{Action, ContainerMemory, Ended, ImageState, ObservedPod, RunState, Sandbox, Seen, VolumeState},
    restart::Backoff,
    status,
};

fn in_sandbox() -> ObservedPod {
    let sandbox =
        Sandbox { id: "s0".into(), ready: true, ips: vec!["127.64.0.2".parse().unwrap()], ..Sandbox::default() };
    ObservedPod {
        sandboxes: vec![sandbox],
        volumes: VolumeState::Ready,
        runtime_name: "skiff".into(),
        ..ObservedPod::default()
    }
}

fn seen(state: RunState, exit_code: i32, attempt: u32) -> Seen {
    let id = format!("c{attempt}");
    let finished_at = (state == RunState::Exited).then(|| at(0));
    Seen { id, sandbox_id: "s0".into(), attempt, state, exit_code, finished_at, ..Seen::default() }
}

fn present() -> ContainerMemory {
    ContainerMemory { image: ImageState::Present("i".into()), ..ContainerMemory::default() }
}

#[test]
fn volumes_then_sandbox_then_image_then_container() {
    let pod = desired(json!({"containers": [{"name": "a", "image": "x"}]}));
    let mut observed = ObservedPod::default();
    assert_eq!(decide(&pod, &observed, at(0)), [Action::MountVolumes]);
    observed.volumes = VolumeState::Ready;
    assert_eq!(decide(&pod, &observed, at(0)), [Action::RunSandbox { attempt: 0 }]);
    let mut observed = in_sandbox();
    assert_eq!(decide(&pod, &observed, at(0)), [Action::EnsureImage { container: "a".into() }]);
    observed.memory.insert("a".into(), Box::new(present()));
    let start =
        Action::StartContainer { container: "a".into(), attempt: 0, sandbox_id: "s0".into(), image_ref: "i".into() };
    assert_eq!(decide(&pod, &observed, at(0)), [start]);
}

#[test]
fn a_crashed_container_waits_and_says_so_as_the_kubelet() {
    let pod = desired(json!({"containers": [{"name": "a", "image": "x"}]}));
    let mut observed = in_sandbox();
    let mut backoff = Backoff::default();
    backoff.advance(at(-5), at(-5));
    observed.memory.insert("a".into(), Box::new(ContainerMemory { crash_backoff: backoff, ..present() }));
    observed.containers.insert("a".into(), vec![seen(RunState::Exited, 1, 1)]);
    assert_eq!(decide(&pod, &observed, at(3)), [Action::WakeAt(at(10))]);
    assert!(matches!(decide(&pod, &observed, at(10))[..], [Action::StartContainer { attempt: 2, .. }]));
    let told = status(&pod, &observed, at(3));
    let container = &told.container_statuses.as_ref().unwrap()[0];
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p_n(u)"));
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref(), container.restart_count), (1, Some("Error"), 1));
    assert_eq!(told.phase.as_deref(), Some("Running"));
}

#[test]
fn a_sidecar_starts_before_and_ends_after_the_others() {
    let pod = desired(json!({
        "initContainers": [{"name": "s", "image": "x", "restartPolicy": "Always"}, {"name": "i", "image": "x"}],
        "containers": [{"name": "a", "image": "x"}], "restartPolicy": "Never",
    }));
    let mut observed = in_sandbox();
    for name in ["s", "i", "a"] {
        observed.memory.insert(name.into(), Box::new(present()));
    }
    let started = |observed: &ObservedPod| match &decide(&pod, observed, at(0))[..] {
        [Action::StartContainer { container, .. }] => container.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(started(&observed), "s");
    observed.containers.insert("s".into(), vec![seen(RunState::Running, 0, 0)]);
    assert_eq!(decide(&pod, &observed, at(0)), []);
    observed.memory.get_mut("s").unwrap().started = true;
    assert_eq!(started(&observed), "i");
    observed.containers.insert("i".into(), vec![seen(RunState::Exited, 0, 0)]);
    assert_eq!(started(&observed), "a");
    observed.containers.insert("a".into(), vec![seen(RunState::Exited, 3, 0)]);
    assert!(
        matches!(&decide(&pod, &observed, at(0))[..], [Action::StopContainer { container, .. }] if container == "s")
    );
    observed.containers.insert("s".into(), vec![seen(RunState::Exited, 0, 0)]);
    assert_eq!(decide(&pod, &observed, at(0)), [Action::StopSandbox { id: "s0".into() }]);
    assert_eq!(status(&pod, &observed, at(0)).phase.as_deref(), Some("Failed"));
}

#[test]
fn phases_and_conditions_follow_the_containers() {
    let never = desired(json!({"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Never"}));
    let condition = |observed: &ObservedPod, kind: &str| {
        let told = status(&never, observed, at(0));
        let found = told.conditions.unwrap().into_iter().find(|c| c.type_ == kind).unwrap();
        (found.status, found.reason.unwrap_or_default(), found.message.unwrap_or_default())
    };
    let mut observed = in_sandbox();
    assert_eq!(status(&never, &observed, at(0)).phase.as_deref(), Some("Pending"));
    assert_eq!(
        condition(&observed, "Ready"),
        ("False".into(), "ContainersNotReady".into(), "containers with unready status: [a]".into())
    );
    observed.containers.insert("a".into(), vec![seen(RunState::Running, 0, 0)]);
    observed.memory.insert("a".into(), Box::new(ContainerMemory { started: true, ready: true, ..present() }));
    assert_eq!(status(&never, &observed, at(0)).phase.as_deref(), Some("Running"));
    assert_eq!(condition(&observed, "Ready").0, "True");
    observed.containers.insert("a".into(), vec![seen(RunState::Exited, 0, 0)]);
    let told = status(&never, &observed, at(0));
    assert_eq!((told.phase.as_deref(), told.qos_class.as_deref()), (Some("Succeeded"), Some("BestEffort")));
    assert_eq!(condition(&observed, "Ready"), ("False".into(), "PodCompleted".into(), String::new()));
    assert_eq!(told.observed_generation, Some(3));
}

#[test]
fn an_ephemeral_container_waits_for_nothing_and_runs_once() {
    let pod = desired(json!({
        "initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "a", "image": "x"}],
        "ephemeralContainers": [{"name": "debug", "image": "x", "targetContainerName": "a"}],
    }));
    let mut observed = in_sandbox();
    let ensure = |name: &str| Action::EnsureImage { container: name.into() };
    assert_eq!(decide(&pod, &observed, at(0)), [ensure("debug"), ensure("i")]);
    observed.containers.insert("debug".into(), vec![seen(RunState::Exited, 1, 0)]);
    assert_eq!(decide(&pod, &observed, at(0)), [ensure("i")]);
    let told = status(&pod, &observed, at(0));
    let state = told.ephemeral_container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(state.terminated.unwrap().exit_code, 1);
}

#[test]
fn an_evicted_pod_ends_at_once_and_says_why() {
    let pod = desired(json!({"containers": [{"name": "a", "image": "x"}], "terminationGracePeriodSeconds": 50}));
    let mut observed = in_sandbox();
    observed.containers.insert("a".into(), vec![seen(RunState::Running, 0, 0)]);
    observed.ended = Some(Ended { reason: "Evicted".into(), message: "low".into(), grace_seconds: Some(0) });
    assert!(matches!(decide(&pod, &observed, at(0))[..], [Action::StopContainer { grace_seconds: 0, .. }]));
    let told = status(&pod, &observed, at(0));
    assert_eq!((told.phase.as_deref(), told.reason.as_deref()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn a_container_is_resized_once_where_it_is() {
    let pod = desired(json!({"containers": [{"name": "a", "image": "x", "resources": {"limits": {"cpu": "2"}}}]}));
    let mut observed = in_sandbox();
    observed.containers.insert("a".into(), vec![seen(RunState::Running, 0, 0)]);
    let had = serde_json::from_value(json!({"limits": {"cpu": "1"}})).unwrap();
    observed.memory.insert("a".into(), Box::new(ContainerMemory { resources: Some(had), ..present() }));
    assert_eq!(decide(&pod, &observed, at(0)), [Action::ResizeContainer { container: "a".into(), id: "c0".into() }]);
    let resources = pod.spec().containers[0].resources.clone().unwrap();
    memory::remember(&pod, &mut observed, &Outcome::Resized("a".into(), resources, true), at(0));
    assert_eq!(decide(&pod, &observed, at(0)), []);
    let told = status(&pod, &observed, at(0)).container_statuses.unwrap()[0].resources.clone().unwrap();
    assert_eq!(told.limits.unwrap()["cpu"].0, "2");
}
