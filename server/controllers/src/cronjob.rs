//! CronJobs: a Job at every time of a schedule.

pub mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobStatus, Job},
    apimachinery::pkg::apis::meta::v1::DeleteOptions,
};
use skiff_api::status::ApiError;
use skiff_client::{EventType, Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{BY_CONTROLLER, controller_of, controller_values, is_controlled_by, name, namespace, uid},
    pods::{delete_options, is_namespace_terminating},
};
use decide::{Said, decide, status_with};

/// The controller's identity.
pub const NAME: &str = "cronjob-controller";

/// Keys worked on at once.
const WORKERS: usize = 5;

struct CronJobs {
    context: Context,
    crons: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
}

/// Runs the controller until cancelled.
pub async fn run(context: Context) {
    let (crons, jobs) = (context.informers.of::<CronJob>(), context.informers.of::<Job>());
    jobs.index(BY_CONTROLLER, controller_values);
    let cancel = context.cancel.clone();
    let controller = CronJobs { context, crons: Arc::clone(&crons), jobs: Arc::clone(&jobs) };
    let of_job = |job: &Job| {
        let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob");
        owner.map(|owner| Key::new(namespace(&job.metadata), &*owner.name)).into_iter().collect()
    };
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&crons, |cron| vec![Key::of(cron)])
        .watch(&jobs, of_job)
        .run(WORKERS)
        .await;
}

#[async_trait]
impl Controller for CronJobs {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(cron) = self.crons.get(&key.namespace, &key.name) else { return Ok(None) };
        let jobs = self.jobs.indexed(BY_CONTROLLER, uid(&cron.metadata));
        let plan = decide(&cron, &jobs, Timestamp::now());
        self.say(&cron, plan.events);
        for job in &plan.delete {
            self.delete(&cron, job).await?;
        }
        let mut status = plan.status;
        if let Some((job, due)) = plan.create
            && let Some(job) = self.create(&cron, &job).await?
        {
            status = status_with(status, &job, due);
        }
        self.write_status(&cron, status).await?;
        Ok(plan.again)
    }
}

impl CronJobs {
    fn say(&self, cron: &CronJob, events: Vec<Said>) {
        for (is_warning, reason, message) in events {
            let kind = if is_warning { EventType::Warning } else { EventType::Normal };
            self.context.events.event(cron, kind, reason, message);
        }
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), ApiError> {
        let options =
            DeleteOptions { propagation_policy: Some("Background".to_owned()), ..delete_options(uid(&job.metadata)) };
        let name = name(&job.metadata);
        match self.context.client.delete::<Job>(namespace(&job.metadata), name, &options).await {
            Ok(_) => {
                let message = format!("Deleted job {name}");
                self.context.events.event(cron, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                let message = format!("Deleted job: {error}");
                self.context.events.event(cron, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Makes a Job. One that is there already was made before its time was written down.
    async fn create(&self, cron: &CronJob, job: &Job) -> Result<Option<Job>, ApiError> {
        match self.context.client.create(job).await {
            Ok(job) => {
                self.jobs.observe(job.clone());
                let message = format!("Created job {}", name(&job.metadata));
                self.context.events.event(cron, EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(job))
            }
            Err(error) if is_namespace_terminating(&error) => Ok(None),
            Err(error) if error.is_already_exists() => self.existing(cron, job).await,
            Err(error) => {
                let message = format!("Error creating job: {error}");
                self.context.events.event(cron, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn existing(&self, cron: &CronJob, job: &Job) -> Result<Option<Job>, ApiError> {
        let there: Job = self.context.client.get(namespace(&job.metadata), name(&job.metadata)).await?;
        if is_controlled_by(&there.metadata, uid(&cron.metadata)) {
            self.jobs.observe(there.clone());
            return Ok(Some(there));
        }
        let message =
            format!("Error creating job: {} is there already and is not controlled by this", name(&job.metadata));
        self.context.events.event(cron, EventType::Warning, "FailedCreate", message);
        Ok(None)
    }

    async fn write_status(&self, cron: &CronJob, status: CronJobStatus) -> Result<(), ApiError> {
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let changed = CronJob { status: Some(status), ..cron.clone() };
        match self.context.client.update_status(&changed).await {
            Ok(cron) => self.crons.observe(cron),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
