//! Jobs: pods that run to their end, so many and so often as is asked for.
//!
//! A pass decides, makes and deletes pods, decides again on what there is then, and writes the status that this gives;
//! only then are the pods that it has counted let go.

pub mod decide;
pub mod facts;
pub mod indexes;
pub mod policy;
pub mod slots;
pub mod tally;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec, JobStatus},
    core::v1::Pod,
};
use serde_json::json;
use skiff_api::{selector::LabelSelector, status::ApiError};
use skiff_client::{EventType, Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{controller_of, is_active, namespace, selector, uid},
    pods::{PodControl, claim, keys_of_owned},
};
use decide::{Plan, View, decide};
use facts::{FIRST_BACKOFF, TRACKING, is_tracked, pod_of};

/// The controller's identity.
pub const NAME: &str = "job-controller";

/// Keys worked on at once.
const WORKERS: usize = 5;

/// After how long a Job is looked at again of which one pass could not do all.
const MORE: Duration = Duration::from_secs(1);

/// The value of `spec.managedBy` of Jobs that are this controller's.
const OWN: &str = "kubernetes.io/job-controller";

/// The index of pods that wait for their Job to count them, by its name.
const BY_JOB: &str = "job";

struct Jobs {
    context: Context,
    jobs: Arc<Informer<Job>>,
    control: PodControl,
    first_backoff: Duration,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    run_with(context, FIRST_BACKOFF).await;
}

/// As [`run`], with a delay after a pod's first failure.
pub async fn run_with(context: Context, first_backoff: Duration) {
    let (jobs, control) = (context.informers.of::<Job>(), PodControl::new(&context));
    let (of_pods, pods) = (Arc::clone(&jobs), Arc::clone(&control.pods));
    pods.index(BY_JOB, jobs_of);
    let cancel = context.cancel.clone();
    let controller = Jobs { context, jobs: Arc::clone(&jobs), control, first_backoff };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&jobs, |job| vec![Key::of(job)])
        .watch(&pods, move |pod| keys_of_owned(pod, &of_pods, labels))
        .run(WORKERS)
        .await;
}

/// The Job that a tracked pod waits for, as `NAMESPACE/NAME`.
fn jobs_of(pod: &Pod) -> Vec<String> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job" && is_tracked(pod));
    owner.map(|owner| format!("{}/{}", namespace(&pod.metadata), owner.name)).into_iter().collect()
}

fn labels(job: &Job) -> LabelSelector {
    let labels = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    labels.map_or_else(LabelSelector::nothing, selector)
}

fn is_mine(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_none_or(|by| by == OWN)
}

#[async_trait]
impl Controller for Jobs {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let job = self.jobs.get(&key.namespace, &key.name);
        self.let_orphans_go(key, job.as_deref()).await?;
        let Some(job) = job else { return Ok(None) };
        if !job.spec.as_ref().is_some_and(is_mine) {
            return Ok(None);
        }
        let claimed = claim(&job.metadata, &labels(&job), self.control.claimable(&job.metadata), is_active);
        self.control.claim(&*job, &claimed.adopt, &claimed.release).await?;
        let plan = self.decide(&job);
        let outcome = self.act(&job, &plan).await;
        // What was made and deleted is seen by now.
        let plan = self.decide(&job);
        let more = !(plan.create.is_empty() && plan.discard.is_empty() && plan.terminate.is_empty());
        let again = self.report(&job, plan).await?;
        outcome?;
        Ok([again, more.then_some(MORE)].into_iter().flatten().min())
    }
}

impl Jobs {
    fn decide(&self, job: &Job) -> Plan {
        let claimed = claim(&job.metadata, &labels(job), self.control.claimable(&job.metadata), is_active);
        let is_doomed = |pod: &Pod| self.control.is_doomed(pod);
        let view = View { job, pods: &claimed.mine, is_doomed: &is_doomed, first_backoff: self.first_backoff };
        decide(&view, Timestamp::now())
    }

    async fn act(&self, job: &Job, plan: &Plan) -> Result<(), ApiError> {
        let tracked = plan.discard.iter().filter(|pod| is_tracked(pod)).cloned().collect();
        self.untrack(tracked).await?;
        self.control.delete_all(job, &plan.discard).await?;
        self.control.delete_all(job, &plan.terminate).await?;
        let pods = plan.create.iter().map(|slot| pod_of(job, slot)).collect();
        self.control.create_all(job, pods).await
    }

    /// Writes the status if it says something new, then lets go of the pods that it has counted.
    async fn report(&self, job: &Arc<Job>, plan: Plan) -> Result<Again, ApiError> {
        if !same(job.status.as_ref(), &plan.status) {
            let changed = Job { status: Some(plan.status), ..(**job).clone() };
            match self.context.client.update_status(&changed).await {
                Ok(job) => self.jobs.observe(job),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
            for (is_warning, reason, message) in plan.events {
                let kind = if is_warning { EventType::Warning } else { EventType::Normal };
                self.context.events.event(&**job, kind, &reason, message);
            }
        }
        self.untrack(plan.release).await?;
        Ok(plan.again)
    }

    async fn untrack(&self, pods: Vec<Arc<Pod>>) -> Result<(), ApiError> {
        let patch = |pod: &Pod| json!({"metadata": {"uid": uid(&pod.metadata), "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
        let patches = pods.into_iter().map(|pod| (Arc::clone(&pod), patch(&pod))).collect();
        self.control.patch_all(patches).await
    }

    /// Pods of a Job that is gone, or that somebody else manages, have nobody to count them.
    async fn let_orphans_go(&self, key: &Key, job: Option<&Job>) -> Result<(), ApiError> {
        let waiting = self.control.pods.indexed(BY_JOB, &key.to_string());
        let is_orphan = |pod: &Arc<Pod>| {
            let owner = controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
            job.is_none_or(|job| owner != Some(uid(&job.metadata)))
        };
        self.untrack(waiting.into_iter().filter(is_orphan).collect()).await
    }
}

/// Whether two statuses say the same; absent counts are zero, absent lists are empty.
fn same(old: Option<&JobStatus>, new: &JobStatus) -> bool {
    let plain = |status: &JobStatus| {
        let mut status = status.clone();
        for count in
            [&mut status.active, &mut status.ready, &mut status.terminating, &mut status.succeeded, &mut status.failed]
        {
            count.get_or_insert_default();
        }
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        uncounted.succeeded.get_or_insert_default();
        uncounted.failed.get_or_insert_default();
        status.conditions.get_or_insert_default();
        status.completed_indexes.get_or_insert_default();
        status
    };
    old.is_some_and(|old| plain(old) == plain(new))
}
