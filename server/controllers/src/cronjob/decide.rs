//! What a CronJob needs next. No I/O.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, fmt::strtime, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use skiff_api::cron::{Schedule, zone};
use skiff_client::recorder::reference;

use crate::{
    job::decide::{COMPLETE, FAILED, condition, is_finished},
    meta::{controller_reference, elapsed, is_deleting, name, namespace, seconds, uid},
};

/// The annotation of the time that a Job was meant for.
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// With more missed times than this something is wrong with the clock, or the deadline is too long.
const MANY_MISSED: i64 = 100;

/// The next look is a little after the time, as in Kubernetes.
const MARGIN: Duration = Duration::from_millis(100);

/// What there is to say: whether it is a warning, reason and message.
pub type Said = (bool, &'static str, String);

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Jobs that are to go.
    pub delete: Vec<Arc<Job>>,
    /// The Job that is to be made, and the time that it is meant for.
    pub create: Option<(Job, Timestamp)>,
    /// The status, before the Job is made.
    pub status: CronJobStatus,
    /// What there is to say.
    pub events: Vec<Said>,
    /// When to look again though nothing changes.
    pub again: Option<Duration>,
}

/// Decides, by the Jobs that a CronJob controls.
pub fn decide(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    follow_jobs(&mut plan, jobs);
    if is_deleting(&cron.metadata) {
        return plan;
    }
    let spec = &cron.spec;
    plan.delete = outdated(spec, jobs);
    if spec.suspend == Some(true) {
        return plan;
    }
    let Some(zone) = zone(spec.time_zone.as_deref().unwrap_or("UTC")) else {
        let name = spec.time_zone.as_deref().unwrap_or_default();
        plan.events.push((true, "UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}")));
        return plan;
    };
    match Schedule::parse(&spec.schedule) {
        Err(why) => {
            let message = format!("unparseable schedule: {:?} : {why}", spec.schedule);
            plan.events.push((true, "UnparseableSchedule", message));
        }
        Ok(schedule) => fire(&mut plan, cron, spec, jobs, &schedule, &zone, now),
    }
    plan
}

/// Brings the list of Jobs that run up to date.
fn follow_jobs(plan: &mut Plan, jobs: &[Arc<Job>]) {
    let mut active = plan.status.active.take().unwrap_or_default();
    active.retain(|known| {
        let job = jobs.iter().find(|job| job.metadata.uid == known.uid);
        match job {
            None => {
                let name = known.name.as_deref().unwrap_or_default();
                plan.events.push((false, "MissingJob", format!("Active job went missing: {name}")));
            }
            Some(job) if is_finished(job) => {
                let kind = [COMPLETE, FAILED].into_iter().find(|kind| condition(job.status.as_ref(), kind).is_some());
                let (name, kind) = (name(&job.metadata), kind.unwrap_or_default());
                plan.events.push((false, "SawCompletedJob", format!("Saw completed job: {name}, condition: {kind}")));
            }
            Some(_) => return true,
        }
        false
    });
    let succeeded = |job: &Arc<Job>| {
        let status = job.status.as_ref();
        condition(status, COMPLETE)?;
        status?.completion_time.as_ref().map(|time| time.0)
    };
    let last = jobs.iter().filter_map(succeeded).chain(plan.status.last_successful_time.as_ref().map(|time| time.0));
    plan.status.last_successful_time = last.max().map(Time);
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// Finished Jobs beyond what the history keeps, the oldest first.
fn outdated(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let beyond = |kind: &str, limit: Option<i32>, by_default: i32| {
        let mut done: Vec<Arc<Job>> =
            jobs.iter().filter(|job| condition(job.status.as_ref(), kind).is_some()).cloned().collect();
        let keep = usize::try_from(limit.unwrap_or(by_default)).unwrap_or_default();
        let begun = |job: &Job| job.status.as_ref().and_then(|status| Some(status.start_time.as_ref()?.0));
        done.sort_by(|a, b| (begun(a), &a.metadata.name).cmp(&(begun(b), &b.metadata.name)));
        done.truncate(done.len().saturating_sub(keep));
        done
    };
    let mut all = beyond(COMPLETE, spec.successful_jobs_history_limit, 3);
    all.extend(beyond(FAILED, spec.failed_jobs_history_limit, 1));
    all.retain(|job| !is_deleting(&job.metadata));
    all
}

/// Makes the Job of the time that has come, if it has.
fn fire(
    plan: &mut Plan,
    cron: &CronJob,
    spec: &CronJobSpec,
    jobs: &[Arc<Job>],
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) {
    plan.again = schedule.next_after(now, zone).map(|next| elapsed(now, next) + MARGIN);
    let (due, missed) = last_due(cron, spec, schedule, zone, now);
    if missed > MANY_MISSED {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.events.push((true, "TooManyMissedTimes", message.to_owned()));
    }
    let Some(due) = due else { return };
    let deadline = spec.starting_deadline_seconds.map(seconds);
    if deadline.is_some_and(|deadline| elapsed(due, now) > deadline) {
        let time = strtime::format("%a, %d %b %Y %H:%M:%S %z", &due.to_zoned(TimeZone::UTC)).unwrap_or_default();
        plan.events.push((true, "MissSchedule", format!("Missed scheduled time to start a job: {time}")));
        return;
    }
    let job = job_of(cron, spec, due, zone);
    let runs: Vec<ObjectReference> = plan.status.active.clone().unwrap_or_default();
    if runs.iter().any(|run| run.name == job.metadata.name) {
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !runs.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((false, "JobAlreadyActive", message.to_owned()));
            return;
        }
        Some("Replace") => {
            let running = |job: &&Arc<Job>| runs.iter().any(|run| run.uid == job.metadata.uid);
            plan.delete.extend(jobs.iter().filter(running).cloned());
            plan.status.active = None;
        }
        _ => {}
    }
    plan.create = Some((job, due));
}

/// The last time that has come and for which nothing was done yet, and about how many came since the last one.
fn last_due(
    cron: &CronJob,
    spec: &CronJobSpec,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> (Option<Timestamp>, i64) {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let deadline = spec.starting_deadline_seconds.and_then(|limit| now.checked_sub(seconds(limit)).ok());
    let since = deadline.map_or(since, |deadline| since.max(deadline));
    let due = |time: &Timestamp| *time <= now;
    let Some(first) = schedule.next_after(since, zone).filter(due) else { return (None, 0) };
    let Some(second) = schedule.next_after(first, zone).filter(due) else { return (Some(first), 1) };
    let between = second.as_second() - first.as_second();
    if between < 1 {
        return (Some(first), 1);
    }
    let missed = (now.as_second() - first.as_second()) / between + 1;
    // Begun near the end, so that a CronJob that slept for long costs no search through all that time.
    let near = first.as_second() + (missed - 2).max(0) * between;
    let mut latest = Timestamp::from_second(near).ok().and_then(|near| schedule.next_after(near, zone)).filter(due);
    while let Some(next) = latest.and_then(|latest| schedule.next_after(latest, zone)).filter(due) {
        latest = Some(next);
    }
    (latest.or(Some(second)), missed)
}

/// The name of the Job of a time: the same for the same minute, so that none is made twice.
pub fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", name(&cron.metadata), due.as_second() / 60)
}

fn job_of(cron: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.clone();
    let from = template.metadata.unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    let local = strtime::format("%Y-%m-%dT%H:%M:%S%:z", &due.to_zoned(zone.clone())).unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), local.replace("+00:00", "Z"));
    let metadata = ObjectMeta {
        name: Some(job_name(cron, due)),
        namespace: Some(namespace(&cron.metadata).to_owned()),
        labels: from.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(cron)]),
        ..ObjectMeta::default()
    };
    Job { metadata, spec: template.spec, status: None }
}

/// The status after a Job was made for a time.
pub fn status_with(mut status: CronJobStatus, job: &Job, due: Timestamp) -> CronJobStatus {
    status.last_schedule_time = Some(Time(due));
    // One that was made before its time was written down may be over.
    if is_finished(job) {
        return status;
    }
    let active = status.active.get_or_insert_default();
    if !active.iter().any(|known| known.uid.as_deref() == Some(uid(&job.metadata))) {
        active.push(reference(job));
    }
    status
}
