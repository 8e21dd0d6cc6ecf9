//! The pods of a Job by what they count as, and the bookkeeping of those that have ended. No I/O.
//!
//! A pod is counted exactly once, whatever crashes in between: its UID is written into the status
//! (`uncountedTerminatedPods`; for indexed Jobs that it succeeded is its index), then its finalizer is taken away,
//! then the UID is replaced by a higher count.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods},
    core::v1::Pod,
};

use super::{
    facts::{FAILURES, index_of, is_failed, is_indexed, is_tracked},
    indexes::Indexes,
    policy::{Verdict, judge},
};
use crate::meta::{is_active, is_ready, is_terminal, phase, to_i32, uid};

/// How many pods may be written down as not yet counted at once, as in Kubernetes.
const MAX_UNCOUNTED: usize = 500;

/// The pods of a Job.
#[derive(Default)]
pub struct Tally {
    /// Neither ended nor going.
    pub active: Vec<Arc<Pod>>,
    /// How many of those are ready.
    pub ready: usize,
    /// How many are going and have not ended.
    pub terminating: usize,
    /// Ended well.
    pub succeeded: Vec<Arc<Pod>>,
    /// Ended badly, or going before they ended.
    pub failed: Vec<Arc<Pod>>,
    /// The indexes that have succeeded.
    pub completed: Indexes,
    /// The indexes that have failed for good.
    pub lost: Indexes,
    /// For each index that is to be tried again, the pod that failed last; it is kept until another takes its place,
    /// for what it says of the failures before.
    pub last_failed: HashMap<i32, Arc<Pod>>,
}

/// What was counted.
pub struct Counted {
    /// How many pods (or indexes) have succeeded.
    pub succeeded: i32,
    /// How many pods have failed.
    pub failed: i32,
    /// Pods whose finalizer may go once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// Whether everything that has ended is counted.
    pub is_settled: bool,
}

/// The number of completions of a Job that has indexes.
pub fn completions(spec: &JobSpec) -> i32 {
    spec.completions.unwrap_or_default()
}

impl Tally {
    /// Sorts the pods of a Job.
    pub fn of(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], is_doomed: &dyn Fn(&Pod) -> bool) -> Self {
        let mut tally = Self::default();
        for pod in pods {
            let going = is_doomed(pod) || pod.metadata.deletion_timestamp.is_some();
            if !is_terminal(pod) && going {
                tally.terminating += 1;
            }
            if phase(pod) == "Succeeded" {
                tally.succeeded.push(Arc::clone(pod));
            } else if is_failed(spec, pod) {
                tally.failed.push(Arc::clone(pod));
            } else if is_active(pod) && !going {
                tally.ready += usize::from(is_ready(pod));
                tally.active.push(Arc::clone(pod));
            }
        }
        if is_indexed(spec) {
            tally.sort_indexes(job, spec);
        }
        tally
    }

    fn sort_indexes(&mut self, job: &Job, spec: &JobSpec) {
        let limit = completions(spec);
        let known = |field: fn(&JobStatus) -> Option<&String>| {
            let text = job.status.as_ref().and_then(field).map(String::as_str).unwrap_or_default();
            Indexes::parse(text, limit)
        };
        let valid = |pod: &Arc<Pod>| index_of(pod).filter(|index| *index < limit);
        self.completed = known(|s| s.completed_indexes.as_ref()).with(self.succeeded.iter().filter_map(valid));
        let Some(most) = spec.backoff_limit_per_index else { return };
        let is_lost = |pod: &&Arc<Pod>| match judge(spec, pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            Verdict::Count | Verdict::FailJob(_) => failures_before(pod) >= most,
        };
        self.lost = known(|s| s.failed_indexes.as_ref()).with(self.failed.iter().filter(is_lost).filter_map(valid));
        let active: HashSet<i32> = self.active.iter().filter_map(|pod| index_of(pod)).collect();
        for pod in &self.failed {
            let Some(index) = valid(pod) else { continue };
            if active.contains(&index) || self.completed.contains(index) || self.lost.contains(index) {
                continue;
            }
            let newer = self.last_failed.get(&index).is_none_or(|known| failures_of(known) < failures_of(pod));
            if newer {
                self.last_failed.insert(index, Arc::clone(pod));
            }
        }
    }

    /// Brings the counts of a status up to date. `ending` says that the Job is over, so that nothing is kept back;
    /// `well` that it is over because it has succeeded, so that what is ended for that is no failure.
    pub fn count(&self, spec: &JobSpec, status: &mut JobStatus, ending: bool, well: bool) -> Counted {
        let mut waiting = status.uncounted_terminated_pods.take().unwrap_or_default();
        let tracked: HashSet<&str> =
            self.all_ended().filter(|pod| is_tracked(pod)).map(|pod| uid(&pod.metadata)).collect();
        let settle = |uids: &mut Option<Vec<String>>, count: &mut Option<i32>| {
            let before = uids.as_ref().map_or(0, Vec::len);
            uids.iter_mut().for_each(|uids| uids.retain(|uid| tracked.contains(uid.as_str())));
            let gone = before - uids.as_ref().map_or(0, Vec::len);
            *count = Some(count.unwrap_or_default().saturating_add(to_i32(gone)));
        };
        settle(&mut waiting.succeeded, &mut status.succeeded);
        settle(&mut waiting.failed, &mut status.failed);
        let release = self.note(spec, &mut waiting, ending, well);
        let all_waiting = lengths(&waiting);
        let is_settled = all_waiting == (0, 0) && tracked.is_empty();
        let failed = status.failed.unwrap_or_default().saturating_add(to_i32(all_waiting.1));
        let succeeded = if is_indexed(spec) {
            status.completed_indexes = text_of(&self.completed, true);
            status.failed_indexes = text_of(&self.lost, spec.backoff_limit_per_index.is_some());
            status.succeeded = Some(self.completed.total());
            self.completed.total()
        } else {
            status.succeeded.unwrap_or_default().saturating_add(to_i32(all_waiting.0))
        };
        status.uncounted_terminated_pods = Some(waiting);
        Counted { succeeded, failed, release, is_settled }
    }

    fn all_ended(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.succeeded.iter().chain(&self.failed)
    }

    /// Writes down what has ended and is not written down yet; answers with the pods whose finalizer may go.
    fn note(&self, spec: &JobSpec, waiting: &mut UncountedTerminatedPods, ending: bool, well: bool) -> Vec<Arc<Pod>> {
        let known: HashSet<String> =
            [&waiting.succeeded, &waiting.failed].into_iter().flatten().flatten().cloned().collect();
        let mut room = MAX_UNCOUNTED.saturating_sub(known.len());
        let mut release = Vec::new();
        for (pod, succeeded) in
            self.succeeded.iter().map(|pod| (pod, true)).chain(self.failed.iter().map(|pod| (pod, false)))
        {
            if !is_tracked(pod) || (!ending && !succeeded && self.is_kept_back(pod)) {
                continue;
            }
            let uncounted = (succeeded && is_indexed(spec)) || (!succeeded && !counts(spec, pod, well));
            if !uncounted && !known.contains(uid(&pod.metadata)) {
                if room == 0 {
                    continue;
                }
                room -= 1;
                let list = if succeeded { &mut waiting.succeeded } else { &mut waiting.failed };
                list.get_or_insert_default().push(uid(&pod.metadata).to_owned());
            }
            release.push(Arc::clone(pod));
        }
        release
    }

    fn is_kept_back(&self, pod: &Pod) -> bool {
        let kept = index_of(pod).and_then(|index| self.last_failed.get(&index));
        kept.is_some_and(|kept| uid(&kept.metadata) == uid(&pod.metadata))
    }
}

/// Whether a failed pod counts as a failure of the Job.
fn counts(spec: &JobSpec, pod: &Pod, well: bool) -> bool {
    let ended_for_success = well && phase(pod) != "Failed";
    let out_of_range = is_indexed(spec) && index_of(pod).is_none_or(|index| index >= completions(spec));
    !ended_for_success && !out_of_range && judge(spec, pod) != Verdict::Ignore
}

/// How often the pods of a pod's index had failed before it was made.
pub fn failures_before(pod: &Pod) -> i32 {
    super::facts::annotation(pod, FAILURES).unwrap_or_default()
}

/// All failures of a pod's index before it was made, those that do not count included.
pub fn failures_of(pod: &Pod) -> i32 {
    failures_before(pod).saturating_add(super::facts::annotation(pod, super::facts::IGNORED).unwrap_or_default())
}

fn lengths(waiting: &UncountedTerminatedPods) -> (usize, usize) {
    (waiting.succeeded.as_ref().map_or(0, Vec::len), waiting.failed.as_ref().map_or(0, Vec::len))
}

fn text_of(indexes: &Indexes, wanted: bool) -> Option<String> {
    wanted.then(|| indexes.to_string())
}
