//! Which pods a Job that is not over has too many or too few of. No I/O.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::JobSpec, core::v1::Pod};

use super::{
    facts::{Slot, annotation, backoff_left, finished_at, index_of, is_indexed, replaces_failed_only},
    policy::{Verdict, judge},
    tally::{Tally, completions, failures_before, failures_of},
};
use crate::{pods::BURST, replicaset::rank::sort_for_deletion};

/// Pods to make and to take away.
#[derive(Default)]
pub struct Changes {
    /// To be made.
    pub create: Vec<Slot>,
    /// Too many: to be taken away without counting.
    pub discard: Vec<Arc<Pod>>,
    /// When more can be made.
    pub again: Option<Duration>,
}

/// Decides on the pods of a Job that runs. `succeeded` is how many have, `first` the delay after a first failure.
pub fn changes(spec: &JobSpec, tally: &Tally, succeeded: i32, first: Duration, now: Timestamp) -> Changes {
    let count = |number: i32| usize::try_from(number).unwrap_or_default();
    let parallelism = count(spec.parallelism.unwrap_or(1));
    let active = tally.active.len();
    let wanted = match spec.completions {
        // Work is over once one has succeeded; the others may end.
        None if succeeded > 0 => active,
        None => parallelism,
        Some(completions) => parallelism.min(count(completions.saturating_sub(succeeded))),
    };
    let mut discard = surplus(spec, tally, active.saturating_sub(wanted), now);
    discard.truncate(BURST);
    if !discard.is_empty() {
        return Changes { discard, ..Changes::default() };
    }
    let terminating = if replaces_failed_only(spec) { tally.terminating } else { 0 };
    let lacking = wanted.saturating_sub(active + terminating).min(BURST);
    if lacking == 0 {
        return Changes::default();
    }
    if spec.backoff_limit_per_index.is_some() && is_indexed(spec) {
        return slots_by_index(spec, tally, lacking, first, now);
    }
    let left = common_backoff(tally, first, now);
    if !left.is_zero() {
        return Changes { again: Some(left), ..Changes::default() };
    }
    let create = if is_indexed(spec) {
        free_indexes(spec, tally).take(lacking).map(|index| Slot { index: Some(index), ..Slot::default() }).collect()
    } else {
        vec![Slot::default(); lacking]
    };
    Changes { create, ..Changes::default() }
}

/// The active pods that are too many: of indexes that nobody needs, the second of an index, and a number of others.
fn surplus(spec: &JobSpec, tally: &Tally, least: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut pods = tally.active.clone();
    if least == 0 && !is_indexed(spec) {
        return Vec::new();
    }
    sort_for_deletion(&mut pods, &tally.active, now);
    if !is_indexed(spec) {
        pods.truncate(least);
        return pods;
    }
    let (mut seen, limit) = (HashSet::new(), completions(spec));
    // What would be deleted last is looked at first, so that the better of two is kept.
    pods.reverse();
    let is_needed = |pod: &Arc<Pod>| {
        index_of(pod).is_some_and(|index| index < limit && !tally.completed.contains(index) && seen.insert(index))
    };
    let (kept, mut doomed): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_needed);
    let more = least.saturating_sub(doomed.len());
    doomed.extend(kept.into_iter().rev().take(more));
    doomed
}

/// The indexes that are neither over nor being worked on, lowest first.
fn free_indexes<'a>(spec: &JobSpec, tally: &'a Tally) -> impl Iterator<Item = i32> + 'a {
    let busy: HashSet<i32> = tally.active.iter().filter_map(|pod| index_of(pod)).collect();
    tally
        .completed
        .missing(completions(spec))
        .filter(move |index| !busy.contains(index) && !tally.lost.contains(*index))
}

/// Slots where each index waits for itself after a failure.
fn slots_by_index(spec: &JobSpec, tally: &Tally, lacking: usize, first: Duration, now: Timestamp) -> Changes {
    let mut changes = Changes::default();
    for index in free_indexes(spec, tally) {
        if changes.create.len() == lacking {
            break;
        }
        let slot = Slot { index: Some(index), failures: Some(0), ignored: 0 };
        let Some(last) = tally.last_failed.get(&index) else {
            changes.create.push(slot);
            continue;
        };
        let failures = u32::try_from(failures_of(last).saturating_add(1)).unwrap_or(u32::MAX);
        let left = backoff_left(failures, finished_at(last), first, now);
        if !left.is_zero() {
            changes.again = Some(changes.again.map_or(left, |known| known.min(left)));
            continue;
        }
        let ignored = i32::from(judge(spec, last) == Verdict::Ignore);
        let before = annotation(last, super::facts::IGNORED).unwrap_or_default();
        changes.create.push(Slot {
            failures: Some(failures_before(last).saturating_add(1 - ignored)),
            ignored: before.saturating_add(ignored),
            ..slot
        });
    }
    changes
}

/// How long the next pod has to wait for the failures since the last success.
fn common_backoff(tally: &Tally, first: Duration, now: Timestamp) -> Duration {
    let success = tally.succeeded.iter().filter_map(|pod| finished_at(pod)).max();
    let times = tally.failed.iter().filter_map(|pod| finished_at(pod));
    let since: Vec<Timestamp> = times.filter(|time| success.is_none_or(|success| *time > success)).collect();
    let failures = u32::try_from(since.len()).unwrap_or(u32::MAX);
    backoff_left(failures, since.into_iter().max(), first, now)
}
