//! What a Job needs next. No I/O.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobSpec, JobStatus},
        core::v1::{ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    facts::{Slot, is_indexed, is_tracked},
    policy::{Verdict, judge, succeeds},
    slots::changes,
    tally::{Counted, Tally, completions},
};
use crate::meta::{elapsed, is_deleting, phase, seconds, to_i32};

/// The condition of a Job that is over and has succeeded.
pub const COMPLETE: &str = "Complete";
/// The condition of a Job that is over and has failed.
pub const FAILED: &str = "Failed";
/// The condition of a Job that will fail once its pods have ended.
const FAILURE_TARGET: &str = "FailureTarget";
/// The condition of a Job that will be complete once its pods have ended.
const SUCCESS_MET: &str = "SuccessCriteriaMet";
const SUSPENDED: &str = "Suspended";

/// What is known when deciding.
pub struct View<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Whether a pod has been deleted already though it is still shown as staying.
    pub is_doomed: &'a (dyn Fn(&Pod) -> bool + Sync),
    /// The delay after a first failure.
    pub first_backoff: Duration,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods to make.
    pub create: Vec<Slot>,
    /// Pods that are too many: their finalizer is taken away and they are deleted, so that they do not count.
    pub discard: Vec<Arc<Pod>>,
    /// Pods to be deleted because the Job is over.
    pub terminate: Vec<Arc<Pod>>,
    /// The new status.
    pub status: JobStatus,
    /// Pods whose finalizer is to be taken away once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// What there is to say: whether it is a warning, reason and message.
    pub events: Vec<(bool, String, String)>,
    /// When to look again though nothing changes.
    pub again: Option<Duration>,
}

/// Why a Job is over: the condition that says so first, with its reason and message.
struct Ending {
    target: &'static str,
    reason: String,
    message: String,
}

impl Ending {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self { target: FAILURE_TARGET, reason: reason.to_owned(), message: message.into() }
    }

    fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        Self { target: SUCCESS_MET, reason: reason.to_owned(), message: message.into() }
    }

    fn is_success(&self) -> bool {
        self.target == SUCCESS_MET
    }

    fn last_condition(&self) -> &'static str {
        if self.is_success() { COMPLETE } else { FAILED }
    }
}

/// Whether a Job is over: it has succeeded or failed.
pub fn is_finished(job: &Job) -> bool {
    [COMPLETE, FAILED].iter().any(|kind| condition(job.status.as_ref(), kind).is_some())
}

/// A condition of a Job that holds.
pub fn condition<'a>(status: Option<&'a JobStatus>, kind: &str) -> Option<&'a JobCondition> {
    status?.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Decides.
pub fn decide(view: &View<'_>, now: Timestamp) -> Plan {
    let spec = view.job.spec.clone().unwrap_or_default();
    let tally = Tally::of(view.job, &spec, view.pods, view.is_doomed);
    let mut plan = Plan { status: view.job.status.clone().unwrap_or_default(), ..Plan::default() };
    if is_finished(view.job) {
        plan.release = view.pods.iter().filter(|pod| is_tracked(pod)).cloned().collect();
        return plan;
    }
    let is_suspended = spec.suspend == Some(true);
    if plan.status.start_time.is_none() && !is_suspended {
        plan.status.start_time = Some(Time(now));
    }
    let known = known_ending(&plan.status);
    let well = known.as_ref().is_some_and(Ending::is_success);
    let going = is_deleting(&view.job.metadata);
    let counted = tally.count(&spec, &mut plan.status, known.is_some() || going, well);
    let ending = known.or_else(|| new_ending(&spec, &tally, &counted, &plan.status, now));
    match ending {
        Some(ending) => end(&mut plan, &tally, &counted, &ending, now),
        None if going => {}
        None => go_on(&mut plan, view, &spec, &tally, counted.succeeded, now),
    }
    plan.release.extend(counted.release);
    report(&mut plan.status, &tally);
    plan
}

fn report(status: &mut JobStatus, tally: &Tally) {
    status.active = Some(to_i32(tally.active.len()));
    status.ready = Some(to_i32(tally.ready));
    status.terminating = Some(to_i32(tally.terminating));
}

/// The ending that the status speaks of already.
fn known_ending(status: &JobStatus) -> Option<Ending> {
    [FAILURE_TARGET, SUCCESS_MET].into_iter().find_map(|target| {
        let known = condition(Some(status), target)?;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Some(Ending { target, reason: text(&known.reason), message: text(&known.message) })
    })
}

/// Whether the Job is over by what there is now, and why. The order is that of Kubernetes.
fn new_ending(spec: &JobSpec, tally: &Tally, counted: &Counted, status: &JobStatus, now: Timestamp) -> Option<Ending> {
    let by_policy = tally.failed.iter().find_map(|pod| match judge(spec, pod) {
        Verdict::FailJob(message) => Some(Ending::failed("PodFailurePolicy", message)),
        _ => None,
    });
    by_policy
        .or_else(|| too_many_failures(spec, tally, counted.failed))
        .or_else(|| past_deadline(spec, status, now))
        .or_else(|| indexes_end(spec, tally))
        .or_else(|| complete(spec, tally, counted.succeeded))
}

fn too_many_failures(spec: &JobSpec, tally: &Tally, failed: i32) -> Option<Ending> {
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts = || tally.active.iter().map(|pod| restarts(pod)).fold(0, i32::saturating_add);
    let in_place = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref()) == Some("OnFailure");
    let restarted_too_often = in_place && if limit == 0 { restarts() > 0 } else { restarts() >= limit };
    (failed > limit || restarted_too_often)
        .then(|| Ending::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
}

/// How often the containers of a pod that runs were started again.
fn restarts(pod: &Pod) -> i32 {
    if !matches!(phase(pod), "Running" | "Pending") {
        return 0;
    }
    let sum = |list: &Option<Vec<ContainerStatus>>| {
        list.iter().flatten().map(|status| status.restart_count).fold(0, i32::saturating_add)
    };
    pod.status.as_ref().map_or(0, |s| sum(&s.container_statuses).saturating_add(sum(&s.init_container_statuses)))
}

fn past_deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Ending> {
    (deadline_left(spec, status, now)?.is_zero())
        .then(|| Ending::failed("DeadlineExceeded", "Job was active longer than specified deadline"))
}

fn deadline_left(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    if spec.suspend == Some(true) {
        return None;
    }
    let (limit, start) = (spec.active_deadline_seconds?, status.start_time.as_ref()?);
    Some(seconds(limit).saturating_sub(elapsed(start.0, now)))
}

fn indexes_end(spec: &JobSpec, tally: &Tally) -> Option<Ending> {
    if !is_indexed(spec) {
        return None;
    }
    let message = "Job has exceeded the specified maximal number of failed indexes";
    if spec.backoff_limit_per_index.is_some() && spec.max_failed_indexes.is_some_and(|most| tally.lost.total() > most) {
        return Some(Ending::failed("MaxFailedIndexesExceeded", message));
    }
    let message = succeeds(spec.success_policy.as_ref()?, &tally.completed, completions(spec))?;
    Some(Ending::succeeded("SuccessPolicy", message))
}

fn complete(spec: &JobSpec, tally: &Tally, succeeded: i32) -> Option<Ending> {
    if !tally.active.is_empty() {
        return None;
    }
    let reached = || Ending::succeeded("CompletionsReached", "Reached expected number of succeeded pods");
    match spec.completions {
        None => (succeeded > 0).then(reached),
        Some(completions) if succeeded >= completions => Some(reached()),
        Some(completions) => {
            let over = spec.backoff_limit_per_index.is_some() && succeeded + tally.lost.total() >= completions;
            over.then(|| Ending::failed("FailedIndexes", "Job has failed indexes"))
        }
    }
}

/// A Job that is over: its pods end, and when all have and are counted, it says so.
fn end(plan: &mut Plan, tally: &Tally, counted: &Counted, ending: &Ending, now: Timestamp) {
    set_condition(&mut plan.status, ending.target, true, &ending.reason, &ending.message, now);
    if !tally.active.is_empty() {
        plan.terminate.clone_from(&tally.active);
        return;
    }
    if tally.terminating > 0 || !counted.is_settled {
        return;
    }
    set_condition(&mut plan.status, ending.last_condition(), true, &ending.reason, &ending.message, now);
    if ending.is_success() {
        plan.status.completion_time = Some(Time(now));
        plan.events.push((false, "Completed".to_owned(), "Job completed".to_owned()));
    } else {
        plan.events.push((true, ending.reason.clone(), ending.message.clone()));
    }
}

/// A Job that is not over: pods are made and taken away.
fn go_on(plan: &mut Plan, view: &View<'_>, spec: &JobSpec, tally: &Tally, succeeded: i32, now: Timestamp) {
    if spec.suspend == Some(true) {
        plan.discard.clone_from(&tally.active);
        if set_condition(&mut plan.status, SUSPENDED, true, "JobSuspended", "Job suspended", now) {
            plan.events.push((false, "Suspended".to_owned(), "Job suspended".to_owned()));
        }
        return;
    }
    if condition(Some(&plan.status), SUSPENDED).is_some() {
        set_condition(&mut plan.status, SUSPENDED, false, "JobResumed", "Job resumed", now);
        plan.status.start_time = Some(Time(now));
        plan.events.push((false, "Resumed".to_owned(), "Job resumed".to_owned()));
    }
    let changes = changes(spec, tally, succeeded, view.first_backoff, now);
    plan.create = changes.create;
    plan.discard = changes.discard;
    plan.again = [changes.again, deadline_left(spec, &plan.status, now)].into_iter().flatten().min();
}

/// Sets a condition; whether that changes what it says.
fn set_condition(status: &mut JobStatus, kind: &str, holds: bool, reason: &str, message: &str, now: Timestamp) -> bool {
    let all = status.conditions.get_or_insert_default();
    let state = if holds { "True" } else { "False" };
    if all.iter().any(|known| known.type_ == kind && known.status == state) {
        return false;
    }
    let new = JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match all.iter_mut().find(|known| known.type_ == kind) {
        Some(known) => *known = new,
        None => all.push(new),
    }
    true
}
