//! A pod in a small world of random events, against the promises of `decide`.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::{at, desired};
use crate::pods::{
    decide,
    execute::Outcome,
    init, memory,
    model::{Action, DesiredPod, ObservedPod, RunState, Sandbox, Seen, is_sidecar},
    status,
};

/// How many turns a pod gets to go away in the end.
const TURNS: usize = 300;

#[derive(Clone, Debug)]
enum Event {
    /// A pending action ends; whether it succeeds.
    Finish(usize, bool),
    /// A running container ends.
    Exit(usize, i32),
    /// The sandbox dies with all in it.
    SandboxDies,
    /// Time passes.
    Wait(i64),
    /// The sidecars are started, as their probes would say.
    Probes,
    /// The user deletes the pod.
    Delete,
}

struct World {
    pod: DesiredPod,
    observed: ObservedPod,
    pending: Vec<Action>,
    now: i64,
    ids: u32,
}

impl World {
    fn now(&self) -> Timestamp {
        at(self.now)
    }

    /// Asks what to do and holds it against the promises.
    fn turn(&mut self) {
        let told = status(&self.pod, &self.observed, self.now());
        assert!(told.phase.is_some());
        for action in decide(&self.pod, &self.observed, self.now()) {
            let Some(subject) = action.subject() else { continue };
            assert!(self.observed.busy.insert(subject), "two actions on one subject: {action:?}");
            if let Action::StartContainer { container, sandbox_id, attempt, .. } = &action {
                self.check_start(container, sandbox_id, *attempt);
            }
            if matches!(action, Action::RunSandbox { .. }) {
                assert!(self.observed.ready_sandbox().is_none() && !self.pod.deleting());
                assert!(self.observed.live().next().is_none(), "a sandbox beside running containers");
            }
            self.pending.push(action);
        }
    }

    fn check_start(&self, name: &str, sandbox_id: &str, attempt: u32) {
        assert!(!self.pod.deleting(), "started though deleted");
        assert!(!self.observed.is_running(name), "{name} started twice");
        assert_eq!(self.observed.ready_sandbox().map(|sandbox| sandbox.id.as_str()), Some(sandbox_id));
        assert!(self.observed.newest(name).is_none_or(|seen| seen.attempt < attempt), "a try is not counted");
        if init::was_initialized(&self.pod, &self.observed) {
            return;
        }
        for before in self.pod.all_containers().take_while(|container| container.name != name) {
            let is_init = self.pod.init_containers().iter().any(|init| init.name == before.name);
            if is_init && !is_sidecar(before) {
                let done = self
                    .observed
                    .current(&before.name)
                    .is_some_and(|s| s.state == RunState::Exited && s.exit_code == 0);
                assert!(done, "{name} started before {} was through", before.name);
            }
        }
    }

    fn finish(&mut self, at: usize, success: bool) {
        if self.pending.is_empty() {
            return;
        }
        let action = self.pending.remove(at % self.pending.len());
        if let Some(subject) = action.subject() {
            self.observed.busy.remove(&subject);
        }
        let outcome = self.effect(&action, success);
        memory::remember(&self.pod, &mut self.observed, &outcome, at_of(self.now));
        if success {
            self.apply(&action);
        }
    }

    fn effect(&self, action: &Action, success: bool) -> Outcome {
        let ok = |text: &str| if success { Ok(()) } else { Err(text.to_owned()) };
        match action {
            Action::MountVolumes => Outcome::Mounted(ok("x")),
            Action::UnmountVolumes if success => Outcome::Unmounted,
            Action::RunSandbox { .. } => Outcome::Sandbox(ok("x")),
            Action::EnsureImage { container } => {
                let result = if success { Ok("i".to_owned()) } else { Err(("ErrImagePull", "x".to_owned())) };
                Outcome::Image(container.clone(), result)
            }
            Action::StartContainer { container, .. } => {
                let started = ok("x").map(|()| Default::default());
                Outcome::Started(container.clone(), started.map_err(|e| ("RunContainerError", e)))
            }
            _ => Outcome::Done,
        }
    }

    fn apply(&mut self, action: &Action) {
        self.ids += 1;
        let (id, now) = (format!("id{}", self.ids), self.now());
        match action {
            Action::RunSandbox { attempt } => {
                self.observed.sandboxes.push(Sandbox { id, attempt: *attempt, ready: true, ..Sandbox::default() });
            }
            Action::StopSandbox { id } => {
                self.observed.sandboxes.iter_mut().filter(|s| s.id == *id).for_each(|s| s.ready = false);
                self.end(|seen| seen.sandbox_id == *id, 137);
            }
            Action::RemoveSandbox { id } => {
                self.observed.sandboxes.retain(|sandbox| sandbox.id != *id);
                self.observed.containers.values_mut().for_each(|all| all.retain(|seen| seen.sandbox_id != *id));
            }
            Action::StartContainer { container, attempt, sandbox_id, .. } => {
                let state = if self.observed.sandboxes.iter().any(|s| s.id == *sandbox_id && s.ready) {
                    RunState::Running
                } else {
                    RunState::Exited
                };
                let seen = Seen {
                    id,
                    sandbox_id: sandbox_id.clone(),
                    attempt: *attempt,
                    state,
                    exit_code: 137,
                    finished_at: Some(now),
                    ..Seen::default()
                };
                self.observed.containers.entry(container.clone()).or_default().push(seen);
            }
            Action::StopContainer { id, .. } => self.end(|seen| seen.id == *id, 137),
            Action::RemoveContainer { id, .. } => {
                self.observed.containers.values_mut().for_each(|all| all.retain(|seen| seen.id != *id));
            }
            Action::FinishDeletion => self.pod.gone = true,
            _ => {}
        }
    }

    fn end(&mut self, which: impl Fn(&Seen) -> bool, code: i32) {
        let now = self.now();
        let live = |seen: &&mut Seen| seen.state == RunState::Running && which(seen);
        for seen in self.observed.containers.values_mut().flatten().filter(live) {
            (seen.state, seen.exit_code, seen.finished_at) = (RunState::Exited, code, Some(now));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Finish(at, success) => self.finish(at, success),
            Event::Exit(at, code) => {
                let live: Vec<String> = self.observed.live().map(|(_, seen)| seen.id.clone()).collect();
                if let Some(id) = live.get(at % live.len().max(1)) {
                    self.end(|seen| seen.id == *id, code);
                }
            }
            Event::SandboxDies => {
                self.observed.sandboxes.iter_mut().for_each(|sandbox| sandbox.ready = false);
                self.end(|_| true, 137);
            }
            Event::Wait(seconds) => self.now += seconds,
            Event::Probes => self.observed.memory.values_mut().for_each(|memory| memory.started = true),
            Event::Delete => {
                let mut pod = (*self.pod.pod).clone();
                pod.metadata.deletion_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now()));
                pod.metadata.deletion_grace_period_seconds = Some(30);
                self.pod.pod = Arc::new(pod);
            }
        }
    }
}

fn at_of(seconds: i64) -> Timestamp {
    at(seconds)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, success)| Event::Finish(at, success)),
        3 => (any::<usize>(), 0..2_i32).prop_map(|(at, code)| Event::Exit(at, code)),
        1 => Just(Event::SandboxDies),
        2 => (1..60_i64).prop_map(Event::Wait),
        2 => Just(Event::Probes),
    ];
    prop::collection::vec(event, 0..120)
}

fn specs() -> impl Strategy<Value = DesiredPod> {
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    (prop::collection::vec(any::<bool>(), 0..3), 1..3_usize, policy).prop_map(|(inits, containers, policy)| {
        let init = |(at, sidecar): (usize, &bool)| match sidecar {
            true => json!({"name": format!("i{at}"), "image": "x", "restartPolicy": "Always"}),
            false => json!({"name": format!("i{at}"), "image": "x"}),
        };
        desired(json!({
            "initContainers": inits.iter().enumerate().map(init).collect::<Vec<_>>(),
            "containers": (0..containers).map(|at| json!({"name": format!("a{at}"), "image": "x"})).collect::<Vec<_>>(),
            "restartPolicy": policy,
        }))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_runs_twice_and_nothing_is_left_behind(pod in specs(), events in events()) {
        let mut world = World { pod, observed: ObservedPod::default(), pending: vec![], now: 0, ids: 0 };
        world.turn();
        for event in events {
            world.happen(event);
            world.turn();
        }
        world.happen(Event::Delete);
        for turn in 0..TURNS {
            world.turn();
            world.finish(turn, true);
            world.now += 1;
        }
        prop_assert!(world.pod.gone, "not deleted: {:?} {:?}", world.observed, world.pending);
        prop_assert!(world.observed.sandboxes.is_empty() && world.observed.containers.values().all(Vec::is_empty));
    }
}
